"""Pictures of several domains: samples, balance, chance, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from facerestore.data import build_dataset
from facerestore.data.augment import Crop, sample_resized_crop
from facerestore.data.base import SampleKey
from facerestore.data.domains import AREA, RATIO, DomainDataset, resized
from facerestore.data.loader import training_loader
from facerestore.errors import DataError
from tests import parity
from tests.data.pictures import folder, truncate


@pytest.fixture
def tree(tmp_path) -> str:
    for domain, count in (("dog", 5), ("cat", 2), ("wild", 3)):
        folder(tmp_path / "animals" / domain, [f"{domain}{i}" if i else f"deeper/{domain}{i}" for i in range(count)])
    return str(tmp_path / "animals")


def domains(root: str, **keywords) -> DomainDataset:
    return build_dataset({"type": "DomainFolderDataset", "dataroot": root, "img_size": 32, "latent_dim": 5} | keywords)


def test_a_sample(tree):
    dataset = domains(tree)
    assert dataset.domains == ["cat", "dog", "wild"] and len(dataset) == 15
    sample = dataset[SampleKey(4, 1)]
    for key in ("x_src", "x_ref", "x_ref2"):
        assert sample[key].shape == (3, 32, 32) and sample[key].dtype == torch.uint8
    for key in ("z_trg", "z_trg2"):
        assert sample[key].shape == (5,) and sample[key].dtype == torch.float32
    assert sample["y_src"] == 1 and 0 <= sample["y_ref"] <= 2 and "/dog/" in sample["x_src_path"]
    assert not torch.equal(sample["z_trg"], sample["z_trg2"])


def test_every_domain_comes_as_often_as_any_other(tree):
    dataset = domains(tree)
    samples = [dataset[SampleKey(i, epoch)] for epoch in range(40) for i in range(len(dataset))]
    assert set(Counter(s["y_src"] for s in samples).values()) == {5 * 40}
    targets = Counter((s["y_src"], s["y_ref"]) for s in samples)
    assert len(targets) == 9 and min(targets.values()) > 40  # of 66.7 on average
    paths = Counter(s["x_src_path"] for s in samples)
    of = {d: [n for path, n in paths.items() if f"/{d}/" in path] for d in dataset.domains}
    assert of["dog"] == [40] * 5  # the largest domain: each picture once in an epoch
    assert min(of["cat"]) > 2 * 40 and max(of["cat"]) < 3 * 40 and sum(of["cat"]) == 200  # twice, and half of the rest
    assert all(40 <= n <= 100 for n in of["wild"])
    assert len({dataset.name(i) for i in range(len(dataset))}) == len(dataset)


def test_published_distribution_of_crops_and_flips():
    case, stored = parity.load("data_stargan2_loader")
    rng, (height, width) = np.random.default_rng(0), case["config"]["ramp"]
    crops = [sample_resized_crop(rng, height, width, AREA, RATIO) for _ in range(4000)]
    area = np.array([c.height * c.width / (height * width) for c in crops])
    ratio = np.array([c.width / c.height for c in crops])
    for name, values in (("area_if_cropped", area), ("ratio_if_cropped", ratio)):
        mean, se = float(stored[f"{name}.mean"]), float(stored[f"{name}.se"])
        assert abs(values.mean() - mean) < 4 * se + 0.01, name  # there it was measured on the pixels of a ramp
        assert values.std() == pytest.approx(float(stored[f"{name}.std"]), rel=0.1)
    assert all(0 <= c.top <= height - c.height and 0 <= c.left <= width - c.width for c in crops)
    labels = case["config"]["labels"]
    weights = np.array([1 / labels.count(label) for label in labels])
    assert np.allclose(weights, stored["sampler.weights"])  # what `test_every_domain...` is balanced like


def test_half_of_the_pictures_are_mirrored_and_half_cut(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 64, 3)).copy()

    class Ramp(type(domains("."))):
        domains = ["a", "b"]

        def names_of(self, domain):
            return ["ramp"]

        def read(self, domain, name):
            return ramp

        def path(self, domain, name):
            return name

    dataset = Ramp(str(tmp_path), img_size=64)
    seen = np.array([dataset[SampleKey(0, epoch)]["x_src"][0, 0].numpy()[[0, -1]] for epoch in range(600)], int)
    mirrored, whole = seen[:, 0] > seen[:, 1], np.abs(seen[:, 0] - seen[:, 1]) == 255
    assert 0.42 < mirrored.mean() < 0.58 and 0.42 < whole.mean() < 0.62
    plain = Ramp(str(tmp_path), img_size=64, randcrop_prob=0.0, use_hflip=False)
    assert all(np.array_equal(plain[SampleKey(0, e)]["x_ref"].permute(1, 2, 0), ramp) for e in range(5))


def test_what_does_not_fit_gets_a_middle_part():
    crop = sample_resized_crop(np.random.default_rng(0), 10, 100, (0.9, 1.0), (0.9, 1.1))
    assert crop == Crop(0, 44, 10, 11)


def test_samples_do_not_depend_on_workers_or_on_a_resume(tree):
    def batches(workers: int, start: int = 0) -> list:
        loader = iter(training_loader(domains(tree), 4, num_workers=workers, seed=7, start_batch=start))
        return [next(loader) for _ in range(4 - start)]

    alone, together, resumed = batches(0), batches(2), batches(0, start=2)
    for one, other in [*zip(alone, together, strict=True), *zip(alone[2:], resumed, strict=True)]:
        assert one.y_ref.dtype == torch.int64
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]


def test_bad_pictures_are_passed_over_where_that_is_asked_for(tree):
    truncate(Path(tree) / "cat" / "cat1.png")
    stopping, skipping = domains(tree), domains(tree, on_bad_image="skip")
    with pytest.raises(DataError, match=r"cat1\.png.* or set datasets\.train\.on_bad_image: skip$"):
        [stopping[SampleKey(i, e)] for e in range(3) for i in range(15)]
    assert not any("cat1" in skipping[SampleKey(i, e)]["x_src_path"] for e in range(3) for i in range(15))
    with pytest.raises(DataError, match=r"cat1\.png"):  # a score over other pictures would be another score
        [skipping.pictures_of(0).load(SampleKey(i)) for i in range(2)]


def test_what_is_there_and_what_an_epoch_takes(tree):
    assert domains(tree).extent() == "10 pictures (an epoch takes 15)"
    assert domains(tree).contents() == "domains: 0 = cat (2 pictures), 1 = dog (5), 2 = wild (3)"
    even = build_dataset({"type": "SyntheticDomainDataset", "count": 3, "img_size": 32})
    assert even.extent() == "6 pictures" and even.facts() == {"domains": ["feminine", "masculine"]}


def test_too_few_domains_and_empty_ones_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no_folder.* does not exist"):
        len(domains(str(tmp_path / "no_folder")))
    folder(tmp_path / "faces" / "female", ["a"])
    with pytest.raises(DataError, match=r"one domain only \(female\)"):
        len(domains(str(tmp_path / "faces")))
    (tmp_path / "faces" / "male").mkdir()
    with pytest.raises(DataError, match=r"faces/male.* holds no picture"):
        len(domains(str(tmp_path / "faces")))
    folder(tmp_path / "faces" / "male", ["b"])
    assert len(domains(str(tmp_path / "faces"))) == 2


def test_reals_must_have_the_same_domains(tree, tmp_path):
    assert domains(tree).reals().domains == ["cat", "dog", "wild"]
    for name in ("cat", "dog"):
        folder(tmp_path / "other" / name, ["a"])
    with pytest.raises(DataError, match=r"holds the domains cat, dog, but .* holds cat, dog, wild"):
        domains(tree, dataroot_real=str(tmp_path / "other")).reals()


def test_evaluation_sees_whole_pictures_and_few_of_them_in_a_preflight(tree):
    few = domains(tree).first(6)
    assert [len(few.names_of(d)) for d in range(3)] == [2, 2, 2]
    pictures = few.pictures_of(1)
    assert len(pictures) == 2 and pictures.name(1).startswith("dog/")
    image = few.read(1, few.names_of(1)[0])
    expected = resized(image, Crop(0, 0, *image.shape[:2]), 32)
    assert np.array_equal(pictures.load(SampleKey(0))["picture"].permute(1, 2, 0), expected)


def test_a_flat_picture_stays_flat():
    picture = np.full((50, 70, 3), 93, np.uint8)
    assert (resized(picture, Crop(3, 5, 40, 44), 32) == 93).all()


def test_drawn_domains():
    dataset = build_dataset({"type": "SyntheticDomainDataset", "count": 3, "img_size": 32})
    assert dataset.domains == ["feminine", "masculine"] and len(dataset) == 6
    assert not set(dataset.names_of(0)) & set(dataset.names_of(1))
    sample = dataset[0]
    assert sample["x_src"].shape == (3, 32, 32) and sample["z_trg"].shape == (16,)
    assert dataset.picture_shapes() == dict.fromkeys(("x_src", "x_ref", "x_ref2"), (32, 32))
