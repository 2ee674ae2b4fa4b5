"""create_lmdb.py and prepare_ffhq.py: what they make, and that they can be killed, stopped and misused."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from facerestore.data.convert import FolderWriter, shrink, storable_channels
from facerestore.data.image_io import decode_image, read_image, write_image
from facerestore.data.lmdb_storage import Lmdb, LmdbWriter
from facerestore.data.parallel import parallel_map
from facerestore.data.storage import Folder, Pictures
from facerestore.errors import DataError, UserError
from tests.data.pictures import encode, folder, truncate, waves

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: object) -> int:
    return importlib.import_module(f"scripts.{script}").main([str(a) for a in arguments])


def create(source: Path, output: Path, *more: object) -> int:
    return run("create_lmdb", "--input", source, "--output", output, "--workers", 1, *more)


def prepare(source: Path, output: Path, *more: object) -> int:
    return run("prepare_ffhq", source, output, "--size", 16, "--workers", 1, *more)


def content(root: Path) -> tuple[dict[bytes, bytes], str]:
    """What upstream reads: values by key, and the list."""
    environment = lmdb.open(str(root), readonly=True, lock=False, readahead=False)
    with environment.begin() as transaction:
        values = dict(transaction.cursor())
    environment.close()
    return values, (root / "meta_info.txt").read_text(encoding="utf-8")


def ffhq(root: Path, count: int = 4, side: int = 32) -> Path:
    """The layout in which FFHQ is published."""
    return folder(root, [f"{i // 2 * 1000:05d}/{i // 2 * 1000 + i % 2:05d}" for i in range(count)], side, side)


@pytest.fixture
def mixed(tmp_path) -> Path:
    """PNG and JPEG of the plain kinds, and one of each of the others."""
    root, image = tmp_path / "mixed", waves(0, 24, 20, noise=20.0)
    root.mkdir()
    picture, exif = Image.fromarray(image), Image.Exif()
    exif[0x0112] = 6
    picture.save(root / "a.png")
    picture.save(root / "b.jpg", quality=90)
    picture.convert("L").save(root / "c.png")
    picture.convert("RGBA").save(root / "d.png")
    picture.save(root / "e.jpeg", exif=exif)
    picture.save(root / "f.webp", lossless=True)
    picture.convert("CMYK").save(root / "g.jpg")
    (root / "h.png").write_bytes(encode(image[..., ::-1].astype(np.uint16) * 257, ".png"))
    return root


def test_plain_files_are_stored_as_they_are_and_others_as_png(mixed, tmp_path):
    assert create(mixed, tmp_path / "a.lmdb") == 0
    values, listing = content(tmp_path / "a.lmdb")
    assert listing.splitlines() == [f"{k}.png ({s}) 1" for k, s in zip(
        "abcdefgh", ["24,20,3", "24,20,3", "24,20,1", "24,20,3", "20,24,3", "24,20,3", "24,20,3", "24,20,3"], strict=True)
    ]  # fmt: skip
    for file in mixed.iterdir():
        value = values[file.stem.encode()]
        assert (value == file.read_bytes()) == (file.name in ("a.png", "b.jpg", "c.png"))
        assert np.array_equal(decode_image(value, "value"), read_image(file))  # what training gets is the same either way
        assert storable_channels(value) in (1, 3)


def test_all_can_be_encoded_anew_and_shrunk(mixed, tmp_path):
    assert create(mixed, tmp_path / "a.lmdb", "--png", "--compression", 9) == 0
    values, listing = content(tmp_path / "a.lmdb")
    assert all(v.startswith(b"\x89PNG") for v in values.values()) and listing.startswith("a.png (24,20,3) 9\n")
    assert create(mixed, tmp_path / "b.lmdb", "--size", 10) == 0
    values, listing = content(tmp_path / "b.lmdb")
    assert listing.splitlines()[0] == "a.png (12,10,3) 1"
    expected = shrink(waves(0, 24, 20, noise=20.0), (12, 10), "area")
    assert np.array_equal(decode_image(values[b"a"], "a"), expected)
    assert create(mixed, tmp_path / "c.lmdb", "--format", "jpg", "--quality", 80) == 0
    assert all(v.startswith(b"\xff\xd8") for v in content(tmp_path / "c.lmdb")[0].values())


def test_several_processes_make_the_same_in_the_same_order(tmp_path):
    source = folder(tmp_path / "in", ["b10", "b9", "sub/b1", "a b", "ü"])
    assert create(source, tmp_path / "one.lmdb") == 0 and create(source, tmp_path / "two.lmdb", "--workers", 3) == 0
    one, two = content(tmp_path / "one.lmdb"), content(tmp_path / "two.lmdb")
    assert one == two and [line.split(".png")[0] for line in one[1].splitlines()] == ["a b", "b9", "b10", "sub/b1", "ü"]


def test_names_that_basicsr_cannot_read_are_said(tmp_path, capsys):
    create(folder(tmp_path / "in", ["a.v2", "b"]), tmp_path / "a.lmdb")
    assert "BasicSR cannot read 1 of the names" in capsys.readouterr().err


def killed_midway(command: list[str], progress: Path, lines: int) -> None:
    """Start a script, and kill it with its workers running once so many pictures are noted."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not progress.exists() or len(progress.read_bytes().splitlines()) < lines:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_killed_one_goes_on_and_ends_the_same(tmp_path):
    source = folder(tmp_path / "in", [f"{i}" for i in range(600)])
    command = [
        "scripts/create_lmdb.py",
        "--input",
        str(source),
        "--output",
        str(tmp_path / "a.lmdb"),
        "--png",
        "--workers",
        "2",
    ]
    progress = tmp_path / "a.lmdb" / "meta_info.txt.part"
    killed_midway(command, progress, 200)
    assert not (tmp_path / "a.lmdb" / "meta_info.txt").exists()
    with pytest.raises(DataError, match="not complete"):
        Lmdb(str(tmp_path / "a.lmdb"), "key").names()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and int(re.search(r"(\d+)/600", done.stderr)[1]) in (200, 400)  # where it began
    assert create(source, tmp_path / "b.lmdb", "--png") == 0
    assert content(tmp_path / "a.lmdb") == content(tmp_path / "b.lmdb") and not progress.exists()


def test_workers_end_with_a_process_that_is_killed():
    program = (
        "import os, time\nfrom facerestore.data.parallel import parallel_map\n"
        "def work(i):\n    os.write(1, b'%d\\n' % os.getpid())\n    time.sleep(600)\n"  # whole lines, whatever the other writes
        "list(parallel_map(work, range(9), 2))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(running(worker) for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.02)


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def die(item: int) -> int:
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_worker_that_is_killed_is_said():
    with pytest.raises(UserError, match=r"a worker process is gone.*fewer --workers"):
        list(parallel_map(die, range(9), 2))
    assert list(parallel_map(abs, range(-40, 0), 2)) == list(range(40, 0, -1))


def test_a_second_call_finds_all_done(tmp_path, capsys):
    source = folder(tmp_path / "in", ["a", "b"])
    assert create(source, tmp_path / "a.lmdb") == 0
    before = (tmp_path / "a.lmdb" / "data.mdb").stat().st_mtime_ns
    assert create(source, tmp_path / "a.lmdb") == 0 and (tmp_path / "a.lmdb" / "data.mdb").stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines()[-1].endswith("a.lmdb: 2 pictures were there already")
    write_image(source / "c.png", waves(2, 24, 20, noise=20.0))
    assert create(source, tmp_path / "a.lmdb") == 0
    assert Lmdb(str(tmp_path / "a.lmdb"), "key").names() == ["a", "b", "c"]
    assert "a.lmdb: 3 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_picture_ends_it_or_is_left_out(tmp_path, capsys, workers):
    source = folder(tmp_path / "in", ["a", "b", "c"])
    truncate(source / "b.png")
    assert create(source, tmp_path / "a.lmdb", "--workers", workers) == 2
    said = capsys.readouterr().err
    assert f"create_lmdb.py: picture {source / 'b.png'} is truncated: copy it again, or leave it out (--skip-bad" in said
    assert create(source, tmp_path / "a.lmdb", "--workers", workers, "--skip-bad") == 0
    said = capsys.readouterr()
    assert "left out: picture" in said.err and "2 pictures" in said.out
    assert Lmdb(str(tmp_path / "a.lmdb"), "key").names() == ["a", "c"]
    write_image(source / "b.png", waves(1, 24, 20, noise=20.0))
    assert create(source, tmp_path / "a.lmdb", "--workers", workers) == 0
    assert Lmdb(str(tmp_path / "a.lmdb"), "key").names() == ["a", "b", "c"]


def test_a_jpeg_with_damaged_codes_is_found(tmp_path, capsys):
    data = bytearray(encode(waves(0, 256, 256, noise=5.0), ".jpg"))
    data[len(data) // 2 : len(data) // 2 + 600] = b"\x55" * 600  # no marker, no hole
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(data)
    assert create(tmp_path / "in", tmp_path / "a.lmdb") == 2
    assert "a.jpg is damaged (Corrupt JPEG data: " in capsys.readouterr().err


def test_only_bad_pictures_make_nothing(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no picture")
    assert create(tmp_path / "in", tmp_path / "a.lmdb", "--skip-bad") == 2
    assert "not one picture of the input can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--input", "no/such", "--output", "a.lmdb"], "no/such, given as --input, does not exist"),
        (["--input", "in", "--output", "a"], "--output a: let its name end with .lmdb"),
        (["--input", "list.txt", "--output", "a.lmdb"], "list.txt, given as --input, is neither a folder nor a .zip or .tar"),
        (["--input", "bad.zip", "--output", "a.lmdb"], "bad.zip, given as --input, cannot be read"),
        (["--input", "bad.tar", "--output", "a.lmdb"], "bad.tar, given as --input, cannot be read"),
        (["--input", "in", "--output", "file.lmdb"], "file.lmdb is a file: name a folder, or NAME.lmdb"),
        (["--input", "in", "--output", "other.lmdb"], "other.lmdb holds other files: choose an empty or a new folder"),
        (["--input", "in", "--output", "done.lmdb"], "done.lmdb holds 1 pictures that the input does not (z)"),
        (["--input", "in", "--output", "done.lmdb", "--size", "9"], "were made with size None instead of 9"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "in", ["a"])
    create(folder(tmp_path / "z", ["z"]), Path("done.lmdb"))
    for name in ("list.txt", "bad.zip", "bad.tar", "file.lmdb"):
        (tmp_path / name).write_text("nothing of the kind")
    (tmp_path / "other.lmdb").mkdir()
    (tmp_path / "other.lmdb" / "data.mdb").write_text("")
    capsys.readouterr()
    assert run("create_lmdb", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("create_lmdb.py: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize("script", ["create_lmdb", "prepare_ffhq"])
def test_wrong_arguments_are_one_sentence(script, capsys):
    for arguments in (["--workers", "0"], ["--size", "x"], ["--nonsense"], []):
        with pytest.raises(SystemExit) as stop:
            run(script, *arguments)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.startswith(f"{script}.py: ") and said.count("\n") == 1


def test_an_interruption_is_said(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "read", interrupted)
    assert create(folder(tmp_path / "in", ["a"]), tmp_path / "a.lmdb") == 130
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err


def archive(source: Path, kind: str) -> Path:
    if kind == "folder":
        return source
    path = source.with_suffix(f".{kind}")
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for picture in sorted(source.rglob("*.png"), reverse=True):
                file.write(picture, Path("images1024x1024") / picture.relative_to(source))
            file.writestr("__MACOSX/images1024x1024/._00000.png", b"")
            file.writestr("LICENSE.txt", "")
    else:
        with tarfile.open(path, "w") as file:
            file.add(source, "images1024x1024")
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("workers", [1, 2])
def test_ffhq_from_all_that_it_comes_in(tmp_path, kind, workers):
    source = archive(ffhq(tmp_path / "images1024x1024"), kind)
    assert prepare(source, tmp_path / "out", "--workers", workers) == 0
    assert prepare(source, tmp_path / "out.lmdb", "--workers", workers) == 0
    names = ["00000000", "00000001", "00001000", "00001001"]
    files, base = Pictures(str(tmp_path / "out"), "key"), Pictures(str(tmp_path / "out.lmdb"), "key", {"type": "lmdb"})
    assert files.names == base.names == names
    for seed, name in enumerate(names):
        truth = waves(seed, 32, 32, noise=20.0).reshape(16, 2, 16, 2, 3).astype(int).sum((1, 3))
        assert np.abs(files.read(name).astype(int) * 4 - truth).max() <= 2  # the mean of 2x2, rounded
        assert np.array_equal(files.read(name), base.read(name))


def test_names_may_be_kept(tmp_path):
    source = ffhq(tmp_path / "in")
    assert prepare(source, tmp_path / "five", "--digits", 5) == 0 and prepare(source, tmp_path / "kept", "--digits", 0) == 0
    assert Folder(str(tmp_path / "five"), "key").names() == ["00000", "00001", "01000", "01001"]
    assert Folder(str(tmp_path / "kept"), "key").names() == Folder(str(source), "key").names()
    assert prepare(folder(tmp_path / "named", ["ann/1a", "bob/x"], 32, 32), tmp_path / "own") == 0
    assert Folder(str(tmp_path / "own"), "key").names() == ["ann/1a", "bob/x"]


def test_two_pictures_of_one_number_are_refused(tmp_path, capsys):
    assert prepare(folder(tmp_path / "in", ["images/00001", "thumbnails/00001"], 32, 32), tmp_path / "out") == 2
    assert "images/00001 and thumbnails/00001 would both be called 00000001" in capsys.readouterr().err


def test_a_part_and_then_the_rest(tmp_path, capsys):
    source = ffhq(tmp_path / "in")
    assert prepare(source, tmp_path / "out", "--start", 1, "--limit", 2) == 0
    assert Folder(str(tmp_path / "out"), "key").names() == ["00000001", "00001000"]
    written = (tmp_path / "out" / "00001000.png").stat().st_mtime_ns
    assert prepare(source, tmp_path / "out") == 0 and len(Folder(str(tmp_path / "out"), "key").names()) == 4
    assert (tmp_path / "out" / "00001000.png").stat().st_mtime_ns == written
    assert prepare(source, tmp_path / "out", "--start", 4) == 2
    assert "--start 4 is beyond the last of 4 pictures" in capsys.readouterr().err


@pytest.mark.parametrize("kind, first", [("jpg", b"\xff\xd8"), ("webp", b"RIFF"), ("png", b"\x89PNG")])
def test_formats(tmp_path, kind, first):
    assert prepare(ffhq(tmp_path / "in", 1), tmp_path / "out", "--format", kind, "--quality", 90) == 0
    assert (tmp_path / "out" / f"00000000.{kind}").read_bytes().startswith(first)


@pytest.mark.parametrize("height, width", [(32, 31), (12, 12)])
def test_what_is_no_square_or_too_small_is_named(tmp_path, capsys, height, width):
    assert prepare(folder(tmp_path / "in", ["0"], height, width), tmp_path / "out") == 2
    assert f"0.png is {width}x{height}: it must be a square of at least 16" in capsys.readouterr().err


def test_damaged_archives_name_the_picture(tmp_path, capsys):
    source = ffhq(tmp_path / "in")
    for kind in ("zip", "tar"):
        path = archive(source, kind)
        if kind == "zip":
            data = path.read_bytes()
            place = data.index(b"PK\x03\x04", 1) + 200
            path.write_bytes(data[:place] + bytes(300) + data[place + 300 :])
        else:
            with tarfile.open(path) as file:
                last = [m for m in file if m.isreg()][-1]
            os.truncate(path, last.offset_data + 100)
        assert prepare(path, tmp_path / f"out_{kind}", "--workers", 2) == 2
        said = capsys.readouterr().err
        assert f"{path}" in said and "cannot be read" in said


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/abs/x.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_out_of_an_archive_are_refused(tmp_path, capsys, kind, name):
    picture, path = encode(waves(0, 32, 32, 0.0), ".png"), tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("good.png", picture)
            file.writestr(name, picture)
    else:
        with tarfile.open(path, "w") as file:
            (info := tarfile.TarInfo(name)).size = len(picture)
            file.addfile(info, io.BytesIO(picture))
    assert prepare(path, tmp_path / "deep" / "out") == 2
    said = capsys.readouterr().err
    assert f"{name!r}, which leads out of it" in said and said.count("\n") == 1
    assert not (tmp_path / "deep").exists() and sorted(os.listdir(tmp_path)) == [path.name]


def test_names_that_lead_out_of_the_output_are_refused(tmp_path, capsys):
    with LmdbWriter(tmp_path / "in.lmdb") as writer:
        writer.put("../x", encode(waves(0, 32, 32, 0.0), ".png"), (32, 32, 3), 1)
        writer.finish()
    assert prepare(tmp_path / "in.lmdb", tmp_path / "out") == 2
    assert "picture '../x' would be written outside of" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.lmdb"]
    with FolderWriter(folder(tmp_path / "out", ["a"]), ".png") as writer, pytest.raises(DataError, match="outside of"):
        writer.put(str(tmp_path / "y"), b"", (1, 1, 3), 1)
    assert not (tmp_path / "y.png").exists()


def test_an_archive_of_a_folder_itself(tmp_path, capsys):
    """As `tar -C FOLDER -c .` writes it, with names that begin with ./ ."""
    source = folder(tmp_path / "in", ["ann/a", "b"], 32, 32)
    with tarfile.open(tmp_path / "in.tar", "w") as file:
        file.add(source, ".")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        for picture in source.rglob("*.png"):
            file.writestr(f"./{picture.relative_to(source)}", picture.read_bytes())
    for _ in range(2):
        for kind in ("tar", "zip"):
            assert prepare(tmp_path / f"in.{kind}", tmp_path / "out") == 0
    assert Folder(str(tmp_path / "out"), "key").names() == ["ann/a", "b"]
    assert "2 pictures were there already" in capsys.readouterr().out


def test_names_of_thousands_of_digits_are_one_sentence(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.writestr(f"{'7' * 5000}.png", encode(waves(0, 32, 32, 0.0), ".png"))
    assert prepare(tmp_path / "in.zip", tmp_path / "out") == 2
    assert "too long" in capsys.readouterr().err.splitlines()[-1]
    assert create(tmp_path / "in.zip", tmp_path / "out.lmdb") == 2
    assert "cannot be a key of an LMDB" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("output", ["out", "out.lmdb"])
def test_another_input_with_the_same_names_is_refused(tmp_path, capsys, output):
    first, other = folder(tmp_path / "first", ["1", "0"], 32, 32), folder(tmp_path / "other", ["0", "1"], 32, 32)
    names = ["00000000", "00000001"]

    def pictures() -> list[np.ndarray]:
        stored = Pictures(str(tmp_path / output), "key", backend(output))
        return [stored.read(name) for name in names]

    assert prepare(first, tmp_path / output) == 0
    assert f"{output}: 2 pictures, 16x16" in capsys.readouterr().out
    made = pictures()
    assert prepare(other, tmp_path / output) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{output} holds pictures that were made from others of the same names (00000000, 00000001): choose another" in said
    moved = first.rename(tmp_path / "moved")
    (moved / "1.png").touch()
    for source in (moved, archive(moved, "zip"), archive(moved, "tar")):  # the same pictures, wherever they lie
        assert prepare(source, tmp_path / output) == 0
        assert f"{output}: 2 pictures were there already, 16x16" in capsys.readouterr().out
    assert np.array_equal(pictures(), made)


def backend(output: str) -> dict:
    return {"type": "lmdb" if output.endswith(".lmdb") else "disk"}


def test_other_content_of_the_same_length_is_refused(tmp_path, capsys):
    """BMPs of one size are all as long."""
    first, other = (folder(tmp_path / name, order, 32, 32, ".bmp") for name, order in (("first", "abc"), ("other", "cab")))
    assert len({file.stat().st_size for file in (*first.iterdir(), *other.iterdir())}) == 1
    assert prepare(first, tmp_path / "out") == 0 and prepare(other, tmp_path / "out") == 2
    assert "made from others of the same names (a, b, c)" in capsys.readouterr().err


def test_a_picture_whose_source_is_not_known_is_made_again(tmp_path, capsys):
    source = folder(tmp_path / "in", ["a", "b"], 32, 32)
    assert prepare(source, tmp_path / "out") == 0
    sources = tmp_path / "out" / "sources.txt"
    sources.write_text(sources.read_text()[:-9])  # cut off by a kill
    write_image(tmp_path / "out" / "b.png", waves(9, 16, 16, noise=20.0))
    capsys.readouterr()
    for said in ("2 pictures (1 were there already), 16x16", "2 pictures were there already, 16x16"):
        assert prepare(source, tmp_path / "out") == 0 and said in capsys.readouterr().out
    assert prepare(source, tmp_path / "again") == 0
    assert np.array_equal(read_image(tmp_path / "out" / "b.png"), read_image(tmp_path / "again" / "b.png"))


@pytest.mark.parametrize("output", ["out", "out.lmdb"])
@pytest.mark.parametrize("more", [[], ["--skip-bad"]])
def test_a_refusal_of_the_first_picture_leaves_nothing(tmp_path, output, more):
    source = folder(tmp_path / "in", ["a", "b"], 32, 32)
    for name in ("a", "b") if more else ("a",):
        truncate(source / f"{name}.png")
    assert prepare(source, tmp_path / output, *more) == 2 and os.listdir(tmp_path) == ["in"]
    (tmp_path / output).mkdir()
    assert prepare(source, tmp_path / output, *more) == 2 and os.listdir(tmp_path / output) == []


@pytest.mark.parametrize("output", ["out", "out.lmdb"])
def test_a_refusal_of_a_later_picture_leaves_the_earlier(tmp_path, output):
    source = folder(tmp_path / "in", ["a", "b"], 32, 32)
    whole = (source / "b.png").read_bytes()
    truncate(source / "b.png")
    assert prepare(source, tmp_path / output) == 2 and "settings.json" in os.listdir(tmp_path / output)
    (source / "b.png").write_bytes(whole)
    assert prepare(source, tmp_path / output) == 0
    assert Pictures(str(tmp_path / output), "key", backend(output)).names == ["a", "b"]


def test_filters(tmp_path):
    edge = np.zeros((64, 64, 3), np.uint8) + 64
    edge[:, 30:] = 192
    area, bicubic, lanczos = (shrink(edge, (32, 32), kind) for kind in ("area", "bicubic", "lanczos"))
    assert area.min() >= 64 and area.max() <= 192  # no halo
    assert bicubic.max() > 192 and lanczos.max() > 192
    assert np.array_equal(area[..., 0], cv2.resize(edge, (32, 32), interpolation=cv2.INTER_AREA)[..., 0])


def test_what_can_be_stored():
    image = Image.fromarray(waves(0, 8, 8, 0.0))

    def saved(picture: Image.Image, kind: str, **keywords) -> bytes:
        data = io.BytesIO()
        picture.save(data, kind, **keywords)
        return data.getvalue()

    assert storable_channels(saved(image, "png")) == 3 and storable_channels(saved(image.convert("L"), "jpeg")) == 1
    for bad in (saved(image, "webp"), saved(image.convert("P"), "png"), saved(image, "png", transparency=(1, 2, 3))):
        assert storable_channels(bad) is None


def test_a_writer_may_hold_no_picture_twice(tmp_path):
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        for seed in range(2):
            writer.put("a", encode(waves(seed, 8, 8, 0.0), ".png"), (8, 8, 3), 1)
        writer.finish()
    assert content(tmp_path / "a.lmdb")[1] == "a.png (8,8,3) 1\n"
