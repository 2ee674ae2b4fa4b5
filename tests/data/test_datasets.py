"""Paired and single pictures."""

from __future__ import annotations

import inspect
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from facerestore.data import build_dataset
from facerestore.data.base import FaceDataset, SampleKey
from facerestore.data.image_io import PictureError, write_image
from facerestore.data.resize import imresize, pil_resize
from facerestore.errors import DataError, OptionError
from tests.data.pictures import folder, truncate, waves

NAMES = ["img1", "img2", "img10", "sub/img1"]


@pytest.fixture
def gt(tmp_path):
    return str(folder(tmp_path / "gt", NAMES))


@pytest.fixture
def lq(tmp_path):
    """Quarter-size counterparts: the mean colour of each 4x4 block, so that a place in one is found in the other."""
    for seed, name in enumerate(NAMES):
        blocks = waves(seed, 24, 20, noise=20.0).reshape(6, 4, 5, 4, 3)
        write_image(tmp_path / "lq" / f"{name}x4.png", blocks.mean((1, 3)).round().astype(np.uint8))
    return str(tmp_path / "lq")


def paired(gt, lq=None, **keywords) -> FaceDataset:
    return build_dataset({"type": "PairedImageDataset", "dataroot_gt": gt, "dataroot_lq": lq, "scale": 4} | keywords)


def block_means(picture: torch.Tensor) -> np.ndarray:
    _, h, w = picture.shape
    return picture.numpy().reshape(3, h // 4, 4, w // 4, 4).mean((2, 4)).round()


def test_pairs_go_by_name(gt, lq):
    dataset = paired(gt, lq, filename_tmpl="{}x4")
    assert [dataset.name(i) for i in range(len(dataset))] == NAMES
    for i, name in enumerate(NAMES):
        sample = dataset[i]
        assert sample["gt"].shape == (3, 24, 20) and sample["lq"].shape == (3, 6, 5)
        assert sample["gt"].dtype == sample["lq"].dtype == torch.uint8
        assert np.array_equal(block_means(sample["gt"]), sample["lq"])
        assert sample["gt_path"] == f"{gt}/{name}.png" and sample["lq_path"] == f"{lq}/{name}x4.png"
        assert np.array_equal(sample["gt"].permute(1, 2, 0), waves(i, 24, 20, noise=20.0))  # RGB, as written


def test_crops_and_poses_of_a_pair_are_the_same_part(gt, lq):
    dataset = paired(gt, lq, filename_tmpl="{}x4", gt_size=8, use_hflip=True, use_rot=True)
    samples = [dataset[SampleKey(0, epoch)] for epoch in range(60)]
    assert len({s["gt"].numpy().tobytes() for s in samples}) > 40
    for sample in samples:
        assert sample["gt"].shape == (3, 8, 8) and sample["lq"].shape == (3, 2, 2)
        assert np.array_equal(block_means(sample["gt"]), sample["lq"])


@pytest.mark.parametrize("downsample", ["matlab_bicubic", "pil_bicubic"])
def test_low_resolution_is_made_where_there_is_none(tmp_path, downsample):
    def shrink(image, size):
        return imresize(image, size=size) if downsample == "matlab_bicubic" else pil_resize(image, size)

    root = str(folder(tmp_path, ["a"], h=27, w=22))
    dataset = paired(root, downsample=downsample)
    sample = dataset[0]
    assert sample["gt"].shape == (3, 24, 20) and sample["lq"].shape == (3, 6, 5)
    expected = shrink(waves(0, 27, 22, noise=20.0)[:24, :20], (6, 5))
    assert np.array_equal(sample["lq"].permute(1, 2, 0), expected)
    assert sample["lq_path"] == sample["gt_path"]
    crop = paired(root, downsample=downsample, gt_size=12)[0]
    assert crop["gt"].shape == (3, 12, 12)
    assert np.array_equal(crop["lq"].permute(1, 2, 0), shrink(crop["gt"].permute(1, 2, 0).numpy().copy(), (3, 3)))


def test_a_rest_of_the_ground_truth_is_cut(tmp_path):
    folder(tmp_path / "gt", ["a"], h=27, w=20)
    folder(tmp_path / "lq", ["a"], h=6, w=5)
    assert paired(str(tmp_path / "gt"), str(tmp_path / "lq"))[0]["gt"].shape == (3, 24, 20)


def test_samples_are_a_function_of_seed_epoch_name_and_repeat(gt):
    def draws(seed, key, dataset=None):
        dataset = dataset or paired(gt, gt_size=8, use_hflip=True, use_rot=True)
        dataset.seed = seed
        return dataset[key]["gt"].numpy().tobytes()

    base = draws(0, SampleKey(1, 2, 3))
    assert base == draws(0, (1, 2, 3))
    others = {draws(1, SampleKey(1, 2, 3)), draws(0, SampleKey(1, 3, 3)), draws(0, SampleKey(1, 2, 4))}
    assert len(others | {base}) == 4
    listed = paired(gt, gt_size=8, use_hflip=True, use_rot=True)
    listed.gt.names = ["img2"]  # another place in the list, the same name
    assert base == draws(0, SampleKey(0, 2, 3), listed)


def test_reading_order_changes_nothing(gt):
    one, other = (paired(gt, gt_size=8, use_hflip=True) for _ in range(2))
    forward = [one[i]["gt"] for i in range(4)]
    backward = [other[i]["gt"] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_unpaired_names_are_refused(gt, lq):
    with pytest.raises(DataError, match=r"4 of the 4 pictures .* lacks img1, .*instead.*filename_tmpl: '\{\}x4'"):
        len(paired(gt, lq))


def test_missing_and_extra_counterparts_are_refused(tmp_path, gt):
    lq = folder(tmp_path / "lq", NAMES[:3], h=6, w=5)
    with pytest.raises(DataError, match=r"1 of the 4 pictures .*/gt have no counterpart in .*/lq: it lacks sub/img1$"):
        len(paired(gt, str(lq)))
    folder(lq, ["sub/img1", "zzz"], h=6, w=5)
    with pytest.raises(DataError, match=r"1 of 5 pictures of .*/lq have no counterpart in .*/gt: zzz;.*`meta_info_file`"):
        len(paired(gt, str(lq)))
    listing = tmp_path / "list.txt"
    listing.write_text("img2.png\nimg1.png\n")
    dataset = paired(gt, str(lq), meta_info_file=str(listing))
    assert [dataset.name(i) for i in range(len(dataset))] == ["img2", "img1"]


def test_same_number_of_other_names_is_refused(tmp_path, gt):
    """What pairing by position lets through."""
    lq = folder(tmp_path / "lq", ["x1", "x2", "x3", "x4"], h=6, w=5)
    with pytest.raises(DataError, match="no counterpart"):
        len(paired(gt, str(lq)))


def test_sizes_that_do_not_fit_are_refused(tmp_path, gt):
    lq = folder(tmp_path / "lq", NAMES, h=12, w=10)
    with pytest.raises(DataError, match=r"gt/img1\.png \(20x24\) and .*lq/img1\.png \(10x12\) are no pair: .* 4 times"):
        paired(gt, str(lq))[0]


def test_too_small_pictures_are_named(tmp_path, gt):
    with pytest.raises(DataError, match=r"img1\.png is 20x24, smaller than `gt_size` 32"):
        paired(gt, gt_size=32)[0]
    with pytest.raises(DataError, match="smaller than `scale` 4"):
        paired(str(folder(tmp_path / "tiny", ["a"], h=3, w=3)))[0]


@pytest.mark.parametrize(
    "keywords, path, message",
    [
        ({"gt_size": 10}, ("gt_size",), "multiple of the scale, 4"),
        ({"filename_tmpl": "x4"}, ("filename_tmpl",), "hold {} once"),
        ({"io_backend": {"type": "lmbd"}}, ("io_backend",), "lmbd"),
        ({"io_backend": {"kind": "disk"}}, ("io_backend",), "kind"),
        ({"downsample": "bilinear"}, ("downsample",), "bilinear"),
        ({"std": [0.5, 0.5, 0]}, ("std",), ">= 0.001"),
        ({"mean": [0.5]}, ("mean",), "length 3"),
        ({"gt_sise": 8}, ("gt_sise",), "`gt_size`|'gt_size'"),
        ({"scale": 0}, ("scale",), ">= 1"),
    ],
)
def test_wrong_options_are_refused(keywords, path, message):
    with pytest.raises(OptionError, match=message) as caught:
        paired("no/such/folder", **keywords)
    assert caught.value.path[:1] == path


@pytest.mark.parametrize("kind", ["PairedImageDataset", "SingleImageDataset"])
def test_upstreams_keys_are_taken_and_documented(kind, gt):
    from facerestore.registry import DATASETS, parameters_of

    assert all(p.doc for p in parameters_of(DATASETS.get(kind)))
    root = "dataroot_gt" if kind.startswith("Paired") else "dataroot_lq"
    options = {"type": kind, root: gt, "io_backend": {"type": "disk"}, "mean": [0.5, 0.5, 0.5], "std": [0.5] * 3}
    dataset = build_dataset(options)
    assert dataset.mean == dataset.std == (0.5, 0.5, 0.5) and len(dataset) == 4
    assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(type(dataset)).parameters.values())


def test_range_by_default(gt):
    assert (paired(gt).mean, paired(gt).std) == ((0, 0, 0), (1, 1, 1))


def test_single_pictures(gt):
    dataset = build_dataset({"type": "SingleImageDataset", "dataroot_lq": gt})
    assert set(dataset[3]) == {"lq", "lq_path"} and dataset[3]["lq_path"] == f"{gt}/sub/img1.png"
    assert np.array_equal(dataset[3]["lq"].permute(1, 2, 0), waves(3, 24, 20, noise=20.0))
    with pytest.raises(IndexError):
        dataset[4]


def test_samples_own_their_memory(gt):
    dataset = build_dataset({"type": "SingleImageDataset", "dataroot_lq": gt})
    dataset[0]["lq"].zero_()
    assert dataset[0]["lq"].any()


def test_datasets_travel_to_workers_with_their_listing(gt, tmp_path):
    dataset = paired(gt, gt_size=8)
    expected = dataset[1]
    copy = pickle.loads(pickle.dumps(dataset))
    folder(tmp_path / "gt", ["a"])  # a picture that came later shifts no index
    assert len(copy) == 4 and torch.equal(copy[1]["gt"], expected["gt"])


def test_a_bad_picture_stops_by_default(gt):
    truncate(Path(gt, "img2.png"))
    with pytest.raises(PictureError, match=r"img2\.png is truncated"):
        paired(gt)[1]


def test_a_bad_picture_can_be_skipped(gt, tmp_path, caplog):
    for name in ("img2", "sub/img1"):
        truncate(tmp_path / "gt" / f"{name}.png")
    dataset = paired(gt, gt_size=8, on_bad_image="skip")
    with caplog.at_level(logging.WARNING, "facerestore"):
        first = dataset[SampleKey(1, 0, 0)]
        again = paired(gt, gt_size=8, on_bad_image="skip")[SampleKey(1, 0, 0)]
        assert first["gt_path"].endswith("img10.png") and torch.equal(first["gt"], again["gt"])
        caplog.clear()
        dataset[SampleKey(1, 5)]
        assert not caplog.records  # once for each file
        assert dataset[3]["gt_path"].endswith("/img1.png")  # the list goes round
        assert [r.levelname for r in caplog.records] == ["WARNING"] and "sub/img1.png is truncated" in caplog.text
    crops = {dataset[SampleKey(i, e)]["gt"].numpy().tobytes() for i in (1, 2) for e in range(6)}
    assert len(crops) > 6  # the stand-in is not the neighbour's own crop again
    with pytest.raises(PictureError):
        dataset.load(SampleKey(1))


def test_a_set_without_any_good_picture_ends(gt, tmp_path):
    for name in NAMES:
        truncate(tmp_path / "gt" / f"{name}.png")
    with pytest.raises(DataError, match="not one picture"):
        paired(gt, on_bad_image="skip")[0]


def test_other_faults_are_not_skipped(gt):
    with pytest.raises(DataError, match="smaller than"):
        paired(gt, gt_size=32, on_bad_image="skip")[0]


@pytest.mark.parametrize("kind", ["paired", "synthetic"])
def test_what_chance_decided_is_explained(gt, kind):
    """The words are enough to make the sample from the picture."""
    keywords = {"gt_size": 8, "scale": 4, "use_hflip": True, "use_rot": True}
    if kind == "paired":
        dataset, pictures = paired(gt, **keywords), [waves(i, 24, 20, noise=20.0) for i in range(4)]
    else:
        dataset = build_dataset({"type": "SyntheticFaceDataset", "count": 4, "size": 32} | keywords)
        pictures = [dataset.face(i).image for i in range(4)]
    seen = set()
    for key in (SampleKey(i, epoch) for i in range(4) for epoch in range(8)):
        words = dataset.explain(key)
        seen |= words.keys()
        part = pictures[key.index][words["crop"]["top"] :, words["crop"]["left"] :][:8, :8]
        part = part[:, ::-1] if words["mirrored"] else part
        part = part[::-1] if words.get("upside down") else part
        part = part.swapaxes(0, 1) if words.get("transposed") else part
        assert np.array_equal(dataset[key]["gt"].permute(1, 2, 0), part)
    assert seen == {"mirrored", "upside down", "transposed", "crop"}
    assert paired(gt).explain(SampleKey(0)) == {"mirrored": False}
