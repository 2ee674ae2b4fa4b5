"""LMDBs of BasicSR's layout: written and read by liblmdb and by this project; whatever is wrong with one is said."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest

from facerestore.data import build_dataset, lmdb_storage
from facerestore.data.image_io import PictureError
from facerestore.data.lmdb_file import DamagedError, read_index
from facerestore.data.lmdb_storage import Lmdb, LmdbWriter, unreadable_upstream
from facerestore.data.loader import training_loader
from facerestore.data.storage import Folder, Pictures
from facerestore.errors import DataError, UserError
from tests.data.pictures import encode, folder, waves

NAMES = ["img1", "img2", "img10", "sub/img1", "two words", "ünï.v2"]


def picture(seed: int) -> bytes:
    return encode(waves(seed, 24, 20, noise=20.0)[..., ::-1], ".png")


def upstream(root: Path, names: list[str], keys: list[str] | None = None) -> Path:
    """As BasicSR writes one: list and data in the order in which pictures came."""
    environment = lmdb.open(str(root), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for seed, key in enumerate(names if keys is None else keys):
            transaction.put(key.encode(), picture(seed))
    environment.close()
    (root / "meta_info.txt").write_text("".join(f"{name}.png (24,20,3) 1\n" for name in names), encoding="utf-8")
    return root


def ours(root: Path, names: list[str], **keywords) -> Path:
    with LmdbWriter(root, **keywords) as writer:
        for seed, name in enumerate(names):
            writer.put(name, picture(seed), (24, 20, 3), 1)
        writer.finish()
    return root


def everything(root: Path) -> dict[bytes, bytes]:
    """All that liblmdb reads."""
    environment = lmdb.open(str(root), readonly=True, lock=False)
    with environment.begin() as transaction:
        found = dict(transaction.cursor())
    environment.close()
    return found


@pytest.mark.parametrize("make", [upstream, ours])
def test_pictures_and_names(tmp_path, make):
    root = make(tmp_path / "a.lmdb", NAMES)
    pictures = Pictures(str(root), "dataroot_gt", {"type": "lmdb"})
    assert pictures.names == ["img1", "img2", "img10", "sub/img1", "two words", "ünï.v2"]
    for seed, name in enumerate(NAMES):
        assert np.array_equal(pictures.read(name), waves(seed, 24, 20, noise=20.0))
        assert pictures.path(name) == f"{root}/{name}"
    assert everything(root) == {name.encode(): picture(seed) for seed, name in enumerate(NAMES)}


def test_the_list_is_as_upstream_writes_it(tmp_path):
    root = ours(tmp_path / "a.lmdb", ["10", "9", "a/1"])
    assert (root / "meta_info.txt").read_text() == "9.png (24,20,3) 1\n10.png (24,20,3) 1\na/1.png (24,20,3) 1\n"
    assert sorted(os.listdir(root)) == ["data.mdb", "lock.mdb", "meta_info.txt"]


def test_without_a_list_the_keys_are_the_names(tmp_path):
    root = upstream(tmp_path / "a.lmdb", ["b10", "b9"])
    (root / "meta_info.txt").unlink()
    assert Lmdb(str(root), "key").names() == ["b9", "b10"]


def test_a_list_of_names_alone_is_read(tmp_path):
    root = upstream(tmp_path / "a.lmdb", ["a", "b", "c"])
    (root / "meta_info.txt").write_text("c\nb.png 1\r\n\n")
    assert Lmdb(str(root), "key").names() == ["b", "c"]


def test_a_selection(tmp_path):
    root = upstream(tmp_path / "a.lmdb", NAMES)
    selection = tmp_path / "some.txt"
    selection.write_text("img10.png (24,20,3)\nsub/img1\n")
    assert Pictures(str(root), "key", {"type": "lmdb"}, str(selection)).names == ["img10", "sub/img1"]


@pytest.mark.parametrize("count, largest", [(0, 1), (1, 10), (5, 9000), (4000, 300), (40, 50000), (12000, 20)])
def test_the_index_holds_what_liblmdb_reads(tmp_path, count, largest):
    rng = np.random.default_rng(0)
    environment = lmdb.open(str(tmp_path), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for i in range(count):
            transaction.put(f"{i:0{1 + i % 60}d}x{i}".encode(), rng.bytes(rng.integers(1, largest + 1)))
    with environment.begin(write=True) as transaction:  # pages that were used and are free again
        for i in range(0, count, 3):
            transaction.delete(f"{i:0{1 + i % 60}d}x{i}".encode())
    environment.close()
    data, expected = (tmp_path / "data.mdb").read_bytes(), everything(tmp_path)
    found = read_index(tmp_path / "data.mdb")
    assert list(found) == list(expected) and len(found) == count - len(range(0, count, 3))
    assert all(data[place.offset :][: place.size] == expected[key] for key, place in found.items())


@pytest.mark.parametrize("share", [1e-4, 0.02, 0.3, 0.7, 0.97])
def test_a_truncated_one_is_refused(tmp_path, share):
    root = ours(tmp_path / "a.lmdb", [f"{i}" for i in range(40)])
    os.truncate(root / "data.mdb", int((root / "data.mdb").stat().st_size * share))
    with pytest.raises(DataError, match=r"a\.lmdb, named by `dataroot_gt`, cannot be used: data\.mdb .*make or copy it again"):
        Lmdb(str(root), "dataroot_gt").names()


@pytest.mark.parametrize(
    "data, message",
    [(b"", "is empty"), (b"no database" * 1000, "is no LMDB"), (bytes(8192), "is no LMDB"), (b"\0", "is damaged")],
)
def test_what_is_no_lmdb_is_refused(tmp_path, data, message):
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(DataError, match=f"data.mdb {message}"):
        Lmdb(str(tmp_path), "key").names()


def test_tables_in_a_table_are_refused(tmp_path):
    environment = lmdb.open(str(tmp_path), map_size=1 << 20, max_dbs=1)
    with environment.begin(write=True, db=environment.open_db(b"pictures")) as transaction:
        transaction.put(b"a", b"1")
    environment.close()
    with pytest.raises(DamagedError, match="holds tables in a table"):
        read_index(tmp_path / "data.mdb")


@pytest.mark.parametrize(
    "offset, value, message",
    [(20, 2, "has LMDB's format 2, not 1"), (92, 4, "table of another kind"), (40, 3000, "is damaged"), (94, 99, "is damaged")],
)
def test_another_format_is_refused(tmp_path, offset, value, message):
    """Version, flags, page size and depth in both meta pages."""
    data = bytearray((upstream(tmp_path, ["a"]) / "data.mdb").read_bytes())
    for page in (0, 4096):
        data[page + offset : page + offset + 2] = value.to_bytes(2, "little")
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(DamagedError, match=message):
        read_index(tmp_path / "data.mdb")


@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_damage_anywhere_is_an_error_and_no_crash(tmp_path, filling):
    """liblmdb aborts the process, or is killed, for some of these."""
    root, rng = ours(tmp_path / "a.lmdb", [f"{i}" for i in range(120)]), np.random.default_rng(0)
    whole, refused = (root / "data.mdb").read_bytes(), 0
    for start in range(0, len(whole), 4096):
        damaged = bytearray(whole)
        damaged[start : start + 4096] = bytes(4096) if filling == "zeros" else rng.bytes(4096)
        (root / "data.mdb").write_bytes(damaged)
        pictures = Pictures(str(root), "key", {"type": "lmdb"})
        try:
            for name in pictures.names:
                pictures.read(name)
        except DataError:
            refused += 1
    pages = len(whole) // 4096
    assert refused >= pages * 0.7  # the others are free, or hold a tree that a later one replaced


def test_a_base_that_is_not_complete_is_refused(tmp_path):
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        writer.put("a", picture(0), (24, 20, 3), 1)
    with pytest.raises(DataError, match=r"a\.lmdb, named by `key`, is not complete: start the script .* again"):
        Lmdb(str(tmp_path / "a.lmdb"), "key").names()


def test_an_empty_one_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        Lmdb(str(upstream(tmp_path / "a.lmdb", [])), "key").names()


def test_a_list_of_absent_pictures_is_refused(tmp_path):
    root = upstream(tmp_path / "a.lmdb", ["a", "b", "c"], keys=["a"])
    with pytest.raises(DataError, match=r"meta_info\.txt names 2 pictures that its data\.mdb does not hold \(b, c\)"):
        Lmdb(str(root), "key").names()


def test_a_wrong_backend_says_which_is_right(tmp_path):
    root = upstream(tmp_path / "a.lmdb", ["a"])
    with pytest.raises(DataError, match=r"a\.lmdb, named by `dataroot_gt`, is an LMDB: say `io_backend: {type: lmdb}`"):
        _ = Pictures(str(root), "dataroot_gt", {"type": "disk"}).names
    pictures = folder(tmp_path / "pictures", ["a"])
    with pytest.raises(
        DataError, match=r"pictures, named by `dataroot_gt`, holds no data\.mdb.*say `io_backend: {type: disk}`"
    ):
        _ = Pictures(str(pictures), "dataroot_gt", {"type": "lmdb"}).names
    with pytest.raises(DataError, match=r"no\.lmdb, named by `key`, does not exist.*say `io_backend: {type: lmdb}`"):
        Folder(str(tmp_path / "no.lmdb"), "key").names()


def test_a_missing_one_is_named(tmp_path):
    with pytest.raises(DataError, match=r"LMDB no/such\.lmdb, named by `key`, does not exist: correct the path"):
        Lmdb("no/such.lmdb", "key").names()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        Lmdb(str(tmp_path / "file"), "key").names()


def test_one_that_vanishes_shrinks_or_changes_while_it_is_used(tmp_path):
    root = ours(tmp_path / "a.lmdb", ["a", "b"])
    reader = Lmdb(str(root), "key")
    times = os.stat(root / "data.mdb")
    assert reader.names() == ["a", "b"] and reader.read("a") == picture(0)
    os.truncate(root / "data.mdb", 8192)
    with pytest.raises(DataError, match=r"data\.mdb has changed since it was opened: start again"):
        reader.read("b")
    os.truncate(root / "data.mdb", times.st_size)
    os.utime(root / "data.mdb", ns=(times.st_atime_ns, times.st_mtime_ns))
    pictures = Pictures(str(root), "key", {"type": "lmdb"})
    pictures.storage = reader
    with pytest.raises(PictureError, match=r"picture .*a\.lmdb/b cannot be decoded"):  # zeros now
        pictures.read("b")
    (root / "data.mdb").unlink()
    with pytest.raises(PictureError, match=r"picture .*a\.lmdb/a cannot be read: No such file"):
        reader.read("a")


def test_a_disk_error_names_the_picture(tmp_path, monkeypatch):
    reader = Lmdb(str(ours(tmp_path / "a.lmdb", ["a"])), "key")
    reader.names()

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lmdb_storage.os, "pread", broken)
    with pytest.raises(PictureError, match=r"a\.lmdb/a cannot be read: Input/output error"):
        reader.read("a")


def test_it_is_read_while_another_process_has_it_open_for_writing(tmp_path):
    root = ours(tmp_path / "a.lmdb", ["a"])
    environment = lmdb.open(str(root))
    with environment.begin(write=True):
        assert Lmdb(str(root), "key").read("a") == picture(0)
    environment.close()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_one(tmp_path, start):
    reader = Lmdb(str(ours(tmp_path / "a.lmdb", NAMES)), "key")
    names = reader.names()  # opened here, used there
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(reader.read, names) == [reader.read(name) for name in names]
    assert pickle.loads(pickle.dumps(reader)).read("img2") == picture(1)


def test_training_reads_it_by_workers_as_from_a_folder(tmp_path):
    names = [f"{i:08d}" for i in range(4)]
    files, base = folder(tmp_path / "files", names), ours(tmp_path / "a.lmdb", names)

    def batches(root, workers, **keywords):
        dataset = build_dataset({"type": "PairedImageDataset", "dataroot_gt": str(root), "gt_size": 8, **keywords})
        loader = iter(training_loader(dataset, 2, workers, timeout=60))
        return [next(loader).gt.numpy() for _ in range(3)]

    expected = batches(files, 0)
    for workers in (0, 2):
        assert np.array_equal(batches(base, workers, io_backend={"type": "lmdb"}), expected)


def test_the_map_grows(tmp_path):
    names = [f"{i}" for i in range(200)]
    root = ours(tmp_path / "a.lmdb", names, map_size=1 << 15)
    assert everything(root) == {name.encode(): picture(seed) for seed, name in enumerate(names)}


def test_a_writer_goes_on_after_another(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_storage, "BATCH", 3)
    with pytest.raises(RuntimeError), LmdbWriter(tmp_path / "a.lmdb") as writer:
        for seed in range(4):
            writer.put(f"{seed}", picture(seed), (24, 20, 3), 1)
        raise RuntimeError("stopped")
    with (tmp_path / "a.lmdb" / "meta_info.txt.part").open("a") as progress:
        progress.write("7.png (24,20,3) 1\n5.png (24,2")  # noted, but not in the file; and cut off
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        assert sorted(writer.done) == ["0", "1", "2", "3"]
        for seed in range(4, 9):
            writer.put(f"{seed}", picture(seed), (24, 20, 3), 1)
        writer.finish()
    assert everything(tmp_path / "a.lmdb") == everything(ours(tmp_path / "b.lmdb", [f"{i}" for i in range(9)]))
    lists = [(tmp_path / root / "meta_info.txt").read_text() for root in ("a.lmdb", "b.lmdb")]
    assert lists[0] == lists[1]


def test_a_complete_one_stays_complete_until_something_is_added(tmp_path):
    root = ours(tmp_path / "a.lmdb", ["a", "b"])
    with LmdbWriter(root) as writer:
        assert sorted(writer.done) == ["a", "b"] and Lmdb(str(root), "key").names() == ["a", "b"]
        writer.put("c", picture(2), (24, 20, 3), 1)
    with pytest.raises(DataError, match="not complete"):
        Lmdb(str(root), "key").names()
    with LmdbWriter(root) as writer:
        assert sorted(writer.done) == ["a", "b", "c"]
        writer.finish()
    assert Lmdb(str(root), "key").names() == ["a", "b", "c"]


def hold(root, ready, done):
    with LmdbWriter(root):
        ready.set()
        done.wait(30)


def test_two_processes_do_not_write_one(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "a.lmdb", ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(UserError, match=r"a\.lmdb: another process is writing it"), LmdbWriter(tmp_path / "a.lmdb"):
            raise AssertionError
    finally:
        done.set()
        other.join()


def test_a_damaged_one_is_not_gone_on_with(tmp_path):
    root = ours(tmp_path / "a.lmdb", ["a"])
    os.truncate(root / "data.mdb", 9000)
    with pytest.raises(DataError, match=r"data\.mdb is truncated.*: remove .*a\.lmdb, and start again"), LmdbWriter(root):
        raise AssertionError


@pytest.mark.parametrize("name", ["x" * 512, "two\nlines", ""])
def test_a_name_that_cannot_be_a_key_is_refused(tmp_path, name):
    with LmdbWriter(tmp_path / "a.lmdb") as writer, pytest.raises(DataError, match="cannot be a key of an LMDB"):
        writer.put(name, b"", (1, 1, 3), 1)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    writer = LmdbWriter(tmp_path / "a.lmdb")
    with pytest.raises(UserError, match=r"a\.lmdb: cannot be written: .*No space left.*; make room, and start again"), writer:

        def full(*_):
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")

        monkeypatch.setattr(writer, "_written", full)
        writer.put("a", b"", (1, 1, 3), 1)
        writer.finish()


def test_names_that_upstream_cannot_read():
    assert unreadable_upstream(["00000", "a/b c", "a.v2", "ü"]) == ["a.v2", "ü"]
