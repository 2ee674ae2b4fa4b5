"""The data sets of GFPGAN and CodeFormer: published distributions, replay, and what is refused."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerestore.config import load_options
from facerestore.data import build_dataset
from facerestore.data.base import SampleKey
from facerestore.data.components import components_json
from facerestore.data.degradations.color import to_gray
from facerestore.data.degradations.masks import make_mask
from facerestore.data.image_io import PictureError, write_image
from facerestore.data.latents import write_latents
from facerestore.data.lmdb_storage import LmdbWriter
from facerestore.data.loader import training_loader
from facerestore.errors import DataError, OptionError
from tests import parity
from tests.data.degradations.distribution import check_distribution
from tests.data.pictures import folder, waves

SMALL = {"out_size": 64, "blur_kernel_size": 9, "blur_sigma": [0.5, 2], "downsample_range": [1, 4]}
BLIND = {"gt_size": 64, "in_size": 64, "blur_kernel_size": 9, "blur_sigma": [0.5, 2], "downsample_range": [1, 4]}
LARGE = {"blur_sigma_large": [1, 3], "downsample_range_large": [2, 8]}
COLORS = {"color_jitter_prob": 0.5, "color_jitter_pt_prob": 0.5, "gray_prob": 0.3}
KINDS = {
    "FFHQDegradationDataset": SMALL,
    "FFHQBlindDataset": BLIND,
    "FFHQBlindJointDataset": BLIND | LARGE,
}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return folder(tmp_path / "faces", [f"{i:05d}" for i in range(6)], h=64, w=64)


def dataset(root: Path, kind: str = "FFHQDegradationDataset", **options):
    built = build_dataset({"type": kind, "dataroot_gt": str(root), **KINDS[kind], **options})
    built.seed = 5
    return built


def figures(lq: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """As the notes of the cases define them; pictures are RGB in [0, 1]."""
    gray = lq @ np.array([0.299, 0.587, 0.114]) * 255
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    found = {"psnr": -10 * np.log10(((lq - gt) ** 2).mean() + 1e-12), "laplacian": laplacian.var()}
    for channel, name in enumerate("rgb"):
        found |= {f"mean_{name}": lq[..., channel].mean(), f"std_{name}": lq[..., channel].std()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "data_gfpgan_degradation",
        "data_gfpgan_degradation_nocolor",
        "data_codeformer_degradation",
        "data_codeformer_degradation_color",
    ],
)
def test_degraded_pictures_have_the_published_distribution(name, tmp_path):
    case, published = parity.load(name)
    config = case["config"]
    picture = waves(**config["picture"]["image"])[..., ::-1]  # the case's picture is BGR
    write_image(tmp_path / "00000.png", picture)
    options = {k: v for k, v in config["options"].items() if k != "latent_gt_path"}
    data = build_dataset({"type": config.get("type", "FFHQDegradationDataset"), "dataroot_gt": str(tmp_path), **options})
    found: dict[str, list[float]] = {}
    flips, grays = 0, 0
    for repeat in range(config["draws"]):
        rng = data.rng(SampleKey(0, 0, repeat))
        sample = data.sample(0, rng)
        mirrored = not np.array_equal(sample["gt"], picture)
        assert not mirrored or np.array_equal(sample["gt"], picture[:, ::-1])
        flips += mirrored
        grays += (np.ptp(sample["lq"], axis=2) == 0).all()
        for figure, value in figures(sample["lq"] / 255, sample["gt"] / 255).items():
            found.setdefault(figure, []).append(value)
    for figure, values in found.items():
        check_distribution(values, published, figure, config["draws"])
    for share, probability in ((flips, 0.5 * options["use_hflip"]), (grays, options.get("gray_prob") or 0)):
        error = np.sqrt(probability * (1 - probability) / config["draws"])
        assert abs(share / config["draws"] - probability) <= 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_function_of_seed_epoch_name_and_repeat(kind, faces):
    one, other = (dataset(faces, kind, use_hflip=True, **COLORS) for _ in range(2))
    other[3], other[(0, 7, 1)]  # what was read before makes no difference
    for key in [SampleKey(2), SampleKey(2, 1), SampleKey(2, 0, 1), SampleKey(3)]:
        a, b = one[key], other[key]
        assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        assert one.explain(key) == other.explain(key)
    assert not np.array_equal(one[SampleKey(2)]["lq"], one[SampleKey(2, 1)]["lq"])
    assert not np.array_equal(one[SampleKey(2)]["lq"], one[SampleKey(2, 0, 1)]["lq"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_explained_is_what_is_drawn(kind, faces):
    data = dataset(faces, kind, use_hflip=True, poisson_prob=0.5, use_motion_kernel=True, motion_kernel_prob=0.3, **COLORS)
    seen = set()
    for repeat in range(30):
        key = SampleKey(1, 0, repeat)
        told, sample = data.explain(key), data.sample(1, data.rng(key))
        truth = data.gt.read(data.names[1])
        assert np.array_equal(sample["gt"], truth[:, ::-1] if told["mirrored"] else truth)
        assert told["lq"]["kernel"]["size"] == 9 and 1 <= told["lq"]["factor"] <= 4
        gray = told.get("color", {}).get("gray", False)
        adjusted = "adjustments" in told.get("color", {})
        if gray and not adjusted:
            assert (np.ptp(sample["lq"], axis=2) == 0).all()
        seen |= {told["mirrored"], f"gray {gray}", f"adjusted {adjusted}", told["lq"]["kernel"]["type"], *told["lq"]["noise"]}
    assert {True, False, "gray True", "gray False", "iso", "aniso", "motion", "sigma", "scale"} <= seen


def test_steps_can_be_left_out(faces):
    data = dataset(faces, noise_range=None, jpeg_range=None, blur_sigma=[0.01, 0.011], downsample_range=[1, 1])
    sample = data.sample(0, data.rng(SampleKey(0)))
    assert np.array_equal(sample["lq"], sample["gt"])
    blind = dataset(faces, "FFHQBlindDataset", use_corrupt=False)
    sample = blind.sample(0, blind.rng(SampleKey(0)))
    assert np.array_equal(sample["lq"], sample["gt"])
    assert "lq" not in blind.explain(SampleKey(0))


def test_the_truth_is_gray_with_the_input_only_where_asked(faces):
    for gt_gray in (False, True):
        data = dataset(faces, gray_prob=1.0, gt_gray=gt_gray)
        sample, truth = data.sample(0, data.rng(SampleKey(0))), data.gt.read(data.names[0])
        assert np.array_equal(sample["gt"], to_gray(truth) if gt_gray else truth)


def test_the_input_may_be_smaller_than_the_truth(faces):
    for use_corrupt in (True, False):
        data = dataset(faces, "FFHQBlindDataset", in_size=32, use_corrupt=use_corrupt)
        sample = data.sample(0, data.rng(SampleKey(0)))
        assert sample["lq"].shape == (32, 32, 3) and sample["gt"].shape == (64, 64, 3)


@pytest.mark.parametrize("kind", ["brush", "free_form", "polygons"])
def test_inpainting_paints_the_mask_white_and_leaves_the_rest(kind, faces):
    data = dataset(faces, "FFHQBlindDataset", gen_inpaint_mask=True, inpaint_masks=[kind], use_hflip=True)
    for repeat in range(6):
        rng = data.rng(SampleKey(0, 0, repeat))
        draw = data.draw(data.rng(SampleKey(0, 0, repeat)))
        sample = data.sample(0, rng)
        inside = sample["mask"][..., 0] == 255
        assert np.array_equal(make_mask(draw.mask) == 255, inside)
        assert (sample["lq"][inside] == 255).all() and np.array_equal(sample["lq"][~inside], sample["gt"][~inside])
    assert data[0]["mask"].shape == (1, 64, 64)


def test_gray_and_a_mask_go_together(faces):
    data = dataset(faces, "FFHQBlindDataset", gen_inpaint_mask=True, gray_prob=1.0)
    sample = data.sample(0, data.rng(SampleKey(0)))
    assert (np.ptp(sample["lq"], axis=2) == 0).all() and (sample["lq"][sample["mask"][..., 0] == 255] == 255).all()


def test_the_joint_copies_are_drawn_apart_but_change_colour_together(faces):
    data = dataset(faces, "FFHQBlindJointDataset", **COLORS)
    grays = []
    for repeat in range(40):
        draw = data.draw(data.rng(SampleKey(0, 0, repeat)))
        assert draw.lq.factor != draw.lq_large.factor and draw.lq.noise.seed != draw.lq_large.noise.seed
        assert draw.color.gray == draw.color_large.gray
        assert bool(draw.color.shift) == bool(draw.color_large.shift)
        assert not draw.color.shift or draw.color.shift != draw.color_large.shift
        assert 2 <= draw.lq_large.factor <= 8
        grays.append(draw.color.gray)
    assert 0 < sum(grays) < 40
    sample = data.sample(0, data.rng(SampleKey(0)))
    assert sample["lq_large"].shape == sample["lq"].shape and not np.array_equal(sample["lq_large"], sample["lq"])


def test_a_picture_of_another_size_is_named_or_skipped(faces):
    write_image(faces / "00002.png", waves(1, 48, 64, 10.0))
    with pytest.raises(PictureError, match=r"00002.png is 64x48, but .* 64x64"):
        dataset(faces)[2]
    assert dataset(faces, on_bad_image="skip")[2]["gt_path"].endswith("00003.png")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("FFHQDegradationDataset", {"blur_kernel_size": 40}, "must be odd"),
        ("FFHQDegradationDataset", {"blur_sigma": [3, 1]}, "lower bound comes first"),
        ("FFHQDegradationDataset", {"hue": [-0.9, 0.1]}, "hue"),
        ("FFHQDegradationDataset", {"kernel_prob": [1.0]}, "give each type one"),
        ("FFHQDegradationDataset", {"kernel_list": ["isotropic", "aniso"]}, "iso"),
        ("FFHQDegradationDataset", {"downsample_modes": []}, "empty"),
        ("FFHQDegradationDataset", {"jpeg_range": [60, 101]}, "jpeg_range"),
        ("FFHQDegradationDataset", {"gray_prob": 1.5}, "gray_prob"),
        ("FFHQBlindDataset", {"gen_inpaint_mask": True, "in_size": 32}, "must be `gt_size`"),
        ("FFHQBlindDataset", {"inpaint_masks": []}, "empty"),
        ("FFHQBlindJointDataset", {"gen_inpaint_mask": True}, "use FFHQBlindDataset"),
        ("FFHQBlindJointDataset", {"jpeg_range_large": [80, 30]}, "`jpeg_range_large` is"),
    ],
)
def test_what_is_refused(kind, options, sentence, faces):
    with pytest.raises(OptionError, match=sentence):
        dataset(faces, kind, **options)


def test_results_do_not_depend_on_opencvs_threads(faces):
    data = dataset(faces, use_hflip=True, **COLORS)
    keys = [SampleKey(i % 6, 0, i) for i in range(24)]
    found = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        found.append([data[key]["lq"] for key in keys])
    cv2.setNumThreads(-1)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def components_file(root: Path, names: list[str]) -> str:
    parts = {"left_eye": [20.5, 25.0, 6.0], "right_eye": [42.0, 26.5, 7.0], "mouth": [31.0, 48.0, 9.0]}
    write_components = {name: {k: [x + i, y, h] for k, (x, y, h) in parts.items()} for i, name in enumerate(names)}
    path = root / "parts.json"
    path.write_text(components_json(write_components, size=64))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_belong_to_their_picture_at_every_epoch(kind, faces, tmp_path):
    file = components_file(tmp_path, [f"{i:08d}" for i in range(6)])  # upstream's names have more digits than FFHQ's files
    data = dataset(faces, kind, use_hflip=True, crop_components=True, component_path=file, eye_enlarge_ratio=1.4)
    kinds = set()
    for epoch in range(8):
        for index in (4, 1):
            key = SampleKey(index, epoch)
            mirrored = data.explain(key)["mirrored"]
            x, half = (63 - (42.0 + index), 1.4 * 7.0) if mirrored else (20.5 + index, 1.4 * 6.0)
            y = 26.5 if mirrored else 25.0
            expected = [x - half + 1, y - half + 1, x + half, y + half]
            assert data[key]["loc_left_eye"].numpy() == pytest.approx(expected)
            kinds.add(mirrored)
    assert kinds == {True, False}


def test_legacy_boxes_are_mirrored_as_published(faces, tmp_path):
    options = {"use_hflip": True, "crop_components": True, "component_path": components_file(tmp_path, ["00000"])}
    boxes = []
    for legacy in (False, True):
        data = dataset(faces, on_missing="skip", legacy=legacy, **options)
        assert len(data) == 1
        key = next(SampleKey(0, epoch) for epoch in range(20) if data.explain(SampleKey(0, epoch))["mirrored"])
        boxes.append(data[key]["loc_mouth"])
    assert (boxes[1] - boxes[0]).tolist() == [1, 0, 1, 0]


def test_pictures_without_boxes_or_codes_are_told(faces, tmp_path):
    with pytest.raises(OptionError, match="needs `component_path`"):
        dataset(faces, crop_components=True)
    data = dataset(faces, crop_components=True, component_path=components_file(tmp_path, ["00000", "00001"]))
    with pytest.raises(DataError, match="no entry for 4 of the 6 pictures"):
        len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_larger_pictures_are_refused_where_the_file_has_no_size(kind, faces, tmp_path):
    larger = {"left_eye": [41, 50, 12], "right_eye": [84, 53, 14], "mouth": [62, 96, 18]}  # of 128 pixels
    path = tmp_path / "parts.json"
    path.write_text(json.dumps({f"{i:05d}": larger for i in range(6)}))
    data = dataset(faces, kind, crop_components=True, component_path=str(path))
    with pytest.raises(DataError, match=r"`right_eye` of picture '00000', which lies outside of a picture of 64x64.*larger"):
        len(data)


def test_stored_codes_are_those_of_the_picture_or_of_its_mirror_image(faces, tmp_path):
    names = [f"{i:05d}" for i in range(5)]
    orig = {n: np.full((4, 4), int(n)) for n in names}
    write_latents(tmp_path / "codes.pth", orig, {n: codes + 100 for n, codes in orig.items()})
    options = {"latent_gt_path": str(tmp_path / "codes.pth"), "on_missing": "skip", "use_hflip": True}
    data = dataset(faces, "FFHQBlindDataset", **options)
    assert [data.name(i) for i in range(len(data))] == names
    for epoch in range(6):
        key = SampleKey(3, epoch)
        codes = data[key]["latent_gt"]
        assert codes.shape == (16,) and (codes == (103 if data.explain(key)["mirrored"] else 3)).all()
    write_latents(tmp_path / "codes.pth", orig)
    with pytest.raises(DataError, match="use_hflip"):
        len(dataset(faces, "FFHQBlindDataset", **options))


def batches(root: Path, count: int = 5, batch_size: int = 4, **loader) -> list:
    options = {"use_hflip": True, "use_motion_kernel": True, "motion_kernel_prob": 0.3, "poisson_prob": 0.3, **COLORS}
    data = build_dataset({"type": "FFHQBlindJointDataset", "dataroot_gt": str(root), **BLIND, **LARGE, **options})
    return list(islice(training_loader(data, batch_size, seed=3, timeout=60, **loader), count))


def same(one: list, other: list) -> bool:
    keys = ("gt", "lq", "lq_large")
    return len(one) == len(other) > 0 and all(torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in keys)


def test_batches_do_not_depend_on_workers_processes_or_resumption(faces):
    reference = batches(faces)
    assert not same(reference[:1], reference[1:2])
    for workers in (1, 4):
        assert same(reference, batches(faces, num_workers=workers))
    assert same(reference[3:], batches(faces, 2, start_batch=3, num_workers=1))  # in the middle of the third epoch
    ranks = [batches(faces, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    joined = [{k: torch.cat([a[k], b[k]]) for k in ("gt", "lq", "lq_large")} for a, b in zip(*ranks, strict=True)]
    assert same(reference, joined)


def test_an_lmdb_gives_the_samples_of_its_folder(faces, tmp_path):
    with LmdbWriter(tmp_path / "faces.lmdb") as writer:
        for file in sorted(faces.iterdir()):
            writer.put(file.stem, file.read_bytes(), (64, 64, 3), 1)
        writer.finish()
    from_folder = dataset(faces, use_hflip=True)
    from_lmdb = dataset(tmp_path / "faces.lmdb", use_hflip=True, io_backend={"type": "lmdb"})
    for key in [SampleKey(1), SampleKey(5, 2, 1)]:
        assert torch.equal(from_folder[key]["lq"], from_lmdb[key]["lq"])


# The keys of CodeFormer's published files for stages I to III, colourisation and inpainting
CODEFORMER = {
    "name": "FFHQ", "dataroot_gt": "datasets/ffhq/ffhq_512", "filename_tmpl": "{}", "io_backend": {"type": "disk"},
    "in_size": 512, "gt_size": 512, "mean": [0.5] * 3, "std": [0.5] * 3, "use_hflip": True, "use_corrupt": True,
    "blur_kernel_size": 41, "use_motion_kernel": False, "motion_kernel_prob": 0.001, "kernel_list": ["iso", "aniso"],
    "kernel_prob": [0.5, 0.5], "blur_sigma": [0.1, 10], "downsample_range": [1, 12], "noise_range": [0, 15],
    "jpeg_range": [60, 100], "latent_gt_path": None, "color_jitter_prob": 0.3, "color_jitter_shift": 20,
    "color_jitter_pt_prob": 0.3, "gray_prob": 0.01, "num_worker_per_gpu": 2, "batch_size_per_gpu": 4,
    "dataset_enlarge_ratio": 100, "prefetch_mode": None,
}  # fmt: skip
STAGE_3 = {
    "blur_sigma_large": [1, 15], "downsample_range_large": [4, 30], "noise_range_large": [0, 20], "jpeg_range_large": [30, 80]
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more"),
    [("FFHQBlindDataset", {}), ("FFHQBlindDataset", {"gen_inpaint_mask": True}), ("FFHQBlindJointDataset", STAGE_3)],
)
def test_the_published_keys_load_and_those_without_meaning_are_named(kind, more):
    options = load_options(
        {
            "name": "published",
            "model_type": "SRModel",
            "datasets": {"train": {"type": kind, **CODEFORMER, **more}},
            "network_g": {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 1},
            "train": {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}},
        },
        ["datasets.train.mean=[0, 0, 0]", "datasets.train.std=[1, 1, 1]"],
    )
    assert options.datasets["train"].batch_size_per_gpu == 4
    assert [note.split()[0] for note in options.notes] == ["`datasets.train.prefetch_mode`", "`datasets.train.filename_tmpl`"]
