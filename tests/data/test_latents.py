"""Codes computed beforehand: files of ours and of upstream's, against the published visits."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from facerestore.data.latents import read_latents, write_latents
from facerestore.errors import DataError, UserError
from tests import parity
from tests.data.torch_files import damaged_files, save_as

CASE, ARRAYS = parity.load("data_codeformer_components")
CODES = np.arange(256).reshape(16, 16)
ORIG = {"00000": CODES, "a.": CODES + 1, "b/c": CODES + 2}
HFLIP = {name: codes + 500 for name, codes in ORIG.items()}


def work(latents, queue):
    queue.put(latents.codes("00000", True).tolist())


@pytest.fixture(params=["ours", "numpy 1", "numpy 2"])
def path(request, tmp_path) -> str:
    if request.param == "ours":
        write_latents(tmp_path / "codes.pth", ORIG, HFLIP)
    else:
        save_as(tmp_path / "codes.pth", {"orig": ORIG, "hflip": HFLIP}, int(request.param[-1]))
    return str(tmp_path / "codes.pth")


def test_published_visits(tmp_path):
    write_latents(tmp_path / "codes.pth", {"00000000": CODES}, {"00000000": CODES + 1000})
    latents = read_latents(str(tmp_path / "codes.pth"))
    for seed in CASE["config"]["latent_seeds"]:
        mirrored = random.Random(seed).random() < 0.5  # how the case chose
        assert np.array_equal(latents.codes("00000000", mirrored), ARRAYS[f"latent.visit.{seed}"])


def test_codes_of_pictures_and_their_mirror_images(path):
    latents = read_latents(path).select(["b/c", "0", "sub/a"])
    assert latents.names == ["b/c", "0", "sub/a"]
    for name, first in (("0", 0), ("sub/a", 1), ("b/c", 2)):
        plain, mirrored = latents.codes(name, False), latents.codes(name, True)
        assert plain.shape == (256,) and plain.dtype == mirrored.dtype == np.int64
        assert np.array_equal(plain, np.arange(256) + first) and np.array_equal(mirrored, plain + 500)
        plain[:] = -1  # the caller's own
        assert latents.codes(name, False)[0] == first


def test_pictures_without_codes_are_refused(path):
    with pytest.raises(DataError, match=r"codes\.pth, named by `latent_gt_path`, has no entry for 2 of the 3 pictures: x, y"):
        read_latents(path).select(["x", "0", "y"])
    with pytest.raises(DataError, match="no entry for picture 'x'"):
        read_latents(path).codes("x", False)


def test_a_file_is_small_and_mapped_and_travels_to_workers(tmp_path):
    names = [f"{i:05d}" for i in range(500)]
    codes = np.random.default_rng(0).integers(1024, size=(2, 500, 16, 16))
    path = tmp_path / "codes.pth"
    write_latents(path, *(dict(zip(names, part, strict=True)) for part in codes))
    assert path.stat().st_size < 1.1 * codes.size * 2  # two bytes a code
    latents = read_latents(str(path))
    assert latents.orig.dtype == torch.int16
    if sys.platform == "linux":
        assert str(path) in Path("/proc/self/maps").read_text()
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    worker = context.Process(target=work, args=(latents, queue))
    worker.start()
    assert queue.get() == codes[1, 0].ravel().tolist()
    worker.join()


def test_large_codes_keep_their_value(tmp_path):
    write_latents(tmp_path / "codes.pth", {"a": np.array([[0, 70000]])})
    assert read_latents(str(tmp_path / "codes.pth")).codes("a", False).tolist() == [0, 70000]


def test_without_mirrored_codes(tmp_path):
    write_latents(tmp_path / "codes.pth", ORIG)
    latents = read_latents(str(tmp_path / "codes.pth"))
    assert latents.hflip is None and latents.codes("00000", False)[5] == 5
    with pytest.raises(DataError, match="no codes of mirrored pictures"):
        latents.codes("00000", True)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1], "holds no codes"),
        ({"hflip": ORIG}, "holds no codes"),
        ({"orig": {}}, "holds no codes"),
        ({"orig": torch.zeros(3, 4)}, "holds no codes"),
        ({"orig": ORIG, "hflip": {"00000": CODES}}, "in only one of `orig` and `hflip`"),
        ({"orig": ORIG | {"d": CODES[:4]}}, "code maps of several sizes"),
        ({"orig": {"a": CODES + 0.5}}, "tables of whole numbers"),
        ({"orig": {"a": CODES - 1}}, "tables of whole numbers"),
        ({"orig": {"a": "codes"}}, "tables of whole numbers"),
        ({"names": ["a"], "orig": torch.zeros(2, 256, dtype=torch.int16)}, "tables of whole numbers"),
        ({"names": ["a"], "orig": torch.zeros(1, 256)}, "tables of whole numbers"),
        ({"names": ["a"], "orig": CODES[:1]}, "tables of whole numbers"),
        ({"names": ["a"], "orig": torch.zeros(1, 4, dtype=torch.int16), "codebook": torch.zeros(4)}, "float32 as `codebook`"),
        ({"names": ["a"], "orig": torch.zeros(1, 4, dtype=torch.int16), "codebook": [[0.5]]}, "float32 as `codebook`"),
        ({"names": "a", "orig": torch.zeros(1, 256, dtype=torch.int16)}, "without names"),
        ({"names": ["a", "b", "a"], "orig": torch.zeros(3, 4, dtype=torch.int16)}, r"of 1 pictures twice \(a\)"),
        ({"orig": {1: CODES, "1": CODES, "b": CODES}}, r"of 1 pictures twice \(1\)"),
        ({"names": ["a"], "orig": torch.full((1, 4), 2**31)}, "whole numbers from 0 to 2147483647"),
        ({"names": ["a"], "orig": torch.full((1, 4), 2**60)}, "whole numbers from 0 to 2147483647"),
        ({"orig": {"a": CODES + 2**60}}, "whole numbers from 0 to 2147483647"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "codes.pth")
    with pytest.raises(DataError, match=message):
        read_latents(str(tmp_path / "codes.pth"))


def odd_tensors() -> dict[str, torch.Tensor]:
    whole = torch.ones(1, 4, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls some of these kinds new, and others old
        return {
            "bool": whole.bool(),
            "complex": whole.to(torch.complex64),
            "conjugate": whole.to(torch.complex64).conj(),
            "bfloat16": whole.bfloat16(),
            "meta": whole.to("meta"),
            "sparse": whole.to_sparse(),
            "sparse rows": whole.to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(whole.float(), 0.1, 0, torch.quint8),
            "parameter": torch.nn.Parameter(whole.float()),
            "scalar": torch.tensor(1),
        }


@pytest.mark.parametrize("kind", odd_tensors())
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_refused(tmp_path, kind):
    tensor, path = odd_tensors()[kind], str(tmp_path / "codes.pth")
    contents = [{"names": ["a"], "orig": tensor}]
    contents += [{"names": ["a"], "orig": torch.ones(1, 4, dtype=torch.int64), "hflip": tensor}]
    contents += [] if kind == "scalar" else [{"orig": {"a": tensor}}]  # a map of one code is a map
    for content in contents:
        torch.save(content, path)
        with pytest.raises(DataError, match="tables of whole numbers"):
            read_latents(path)


def test_whole_numbers_of_any_width_are_read(tmp_path):
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64, torch.uint16):
        torch.save({"names": ["a"], "orig": torch.arange(4).to(dtype)[None]}, tmp_path / "codes.pth")
        assert read_latents(str(tmp_path / "codes.pth")).codes("a", False).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["a bit", "a block"])
def test_damage_anywhere_is_found(tmp_path, damage):
    """torch itself maps such files without a word, and the labels are others."""
    path = tmp_path / "codes.pth"
    rng = np.random.default_rng(0)
    write_latents(path, *({f"{i:05d}": rng.integers(1, 1024, 256) for i in range(40)} for _ in range(2)))
    whole, expected = path.read_bytes(), read_latents(str(path))
    found = 0
    for at in range(0, len(whole) - 512, 389):
        filling = bytes([whole[at] ^ 16]) if damage == "a bit" else bytes(512)
        path.write_bytes(whole[:at] + filling + whole[at + len(filling) :])
        try:
            given = read_latents(str(path))
        except DataError as error:
            assert "is cut off, damaged, or no file of torch.save" in str(error)
            found += 1
        else:  # between the tensors
            assert given.names == expected.names
            assert torch.equal(given.orig, expected.orig) and torch.equal(given.hflip, expected.hflip)
    assert found > 0.8 * len(range(0, len(whole) - 512, 389))


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        write_latents(tmp_path / "codes.pth", ORIG)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_latents(str(tmp_path / "codes.pth")).codes("a.", False)[0] == 1


def test_a_path_that_no_file_can_have_is_one_sentence():
    with pytest.raises(DataError, match="named by `latent_gt_path`, cannot be read: embedded null byte"):
        read_latents("a\0.pth")


def test_damaged_files_are_refused(tmp_path, capsys):
    for word, path in damaged_files(tmp_path / "damaged").items():
        with pytest.raises(DataError, match=rf"named by `latent_gt_path`.*{word}"):
            read_latents(str(path))
    assert "ran" not in capsys.readouterr().out


def test_a_wrong_table_is_not_written_and_the_old_file_stays(tmp_path):
    path = tmp_path / "codes.pth"
    write_latents(path, ORIG)
    before = path.read_bytes()
    with pytest.raises(DataError, match="several sizes"):
        write_latents(path, ORIG | {"d": CODES[:4]})
    with pytest.raises(DataError, match="tables of whole numbers"):
        write_latents(path, ORIG, {name: codes[:4] for name, codes in ORIG.items()})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_latents(tmp_path / "file/codes.pth", ORIG)
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["codes.pth", "file"]
