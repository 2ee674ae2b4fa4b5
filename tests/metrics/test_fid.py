"""FID, KID, the statistics that they keep, and the network that they look through."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from facerestore.archs.fid_inception import FIDInception
from facerestore.errors import CheckpointError, DataError
from facerestore.metrics import FID, KID, build_metric
from facerestore.metrics.fid import read_statistics
from facerestore.metrics.frechet import Moments, Samples, factor, frechet_distance, kernel_distance
from tests import parity

CASE, STORED = parity.load("metric_frechet")


def drawn(call: dict) -> tuple[np.ndarray, np.ndarray]:
    """The two sets of features of a call of the case."""
    state, shape = np.random.RandomState(call["seed"]), (call["samples"], call["dim"])
    a = state.standard_normal(shape)
    b = state.standard_normal(shape) * call["scale"] + call["shift"]
    return a, b @ (np.eye(call["dim"]) + 0.3 * state.standard_normal((call["dim"],) * 2) / call["dim"] ** 0.5)


def moments(features: np.ndarray, *sizes: int) -> Moments:
    """Of features that come in batches of these sizes, and then the rest."""
    found = Moments()
    for part in np.split(features, np.cumsum(sizes)):
        found.add(torch.from_numpy(part))
    return found


@pytest.mark.parametrize("call", CASE["config"]["calls"], ids=lambda call: call["name"])
def test_parity(call):
    a, b = (moments(x, 1, 2, 7).gaussian() for x in drawn(call))
    name = call["name"]
    traces = np.array([a.covariance.trace(), b.covariance.trace(), (a.mean - b.mean).square().sum()])
    assert parity.relative_error(traces, STORED[f"trace.{name}"]) <= CASE["tolerance"][f"trace.{name}"]
    assert parity.relative_error(np.array(frechet_distance(a, b)), STORED[f"fid.{name}"]) <= CASE["tolerance"][f"fid.{name}"]


def test_equal_sets_have_no_distance():
    x = moments(drawn(CASE["config"]["calls"][2])[0]).gaussian()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (30, 100), (199,)])
def test_moments_do_not_depend_on_how_features_come(sizes):
    features = drawn(CASE["config"]["calls"][0])[1] + 1e4  # far from 0, where sums of squares would lose digits
    whole = moments(features, *sizes).gaussian()
    assert np.allclose(whole.mean, features.mean(0), rtol=1e-13)
    assert np.allclose(whole.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-12)


def test_moments_of_several_processes():
    features = drawn(CASE["config"]["calls"][0])[1]
    together = Moments()
    for part in (features[:0], features[:50], features[:0], features[50:51], features[51:]):
        together.merge(moments(part) if len(part) else Moments())
    alone = moments(features)
    assert together.count == alone.count == len(features)
    for mine, other in zip(together.gaussian(), alone.gaussian(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-13)


def test_kernel_distance_is_its_definition():
    x, y = (torch.from_numpy(a[:7]) for a in drawn(CASE["config"]["calls"][0]))

    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7)]
    expected = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / 42
    expected -= 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 49
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_has_no_bias():
    """Its mean over sets of one distribution is 0, even of few."""
    torch.manual_seed(0)
    values = torch.tensor([kernel_distance(*torch.randn(2, 5, 3, dtype=torch.float64)) for _ in range(4000)])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5


def test_samples_merge():
    one, other = Samples(), Samples()
    one.add(torch.ones(2, 3))
    other.merge(one)
    other.add(torch.zeros(1, 3))
    assert other.stacked().tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3] and one.stacked().shape == (2, 3)


@pytest.fixture(scope="module")
def network() -> FIDInception:
    return parity.fill_(FIDInception(), seed=3)


@pytest.mark.slow
def test_the_network_is_torchvisions_with_other_pooling(network, monkeypatch):
    """Borders do not count in averages; the last block pools by maximum.  So pytorch-fid patches it."""
    theirs = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False).eval()
    theirs.fc = nn.Identity()
    own = network.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict(own)
    average, maximum = torch.nn.functional.avg_pool2d, torch.nn.functional.max_pool2d
    calls = []

    def pool(x, kernel_size, stride, padding):
        calls.append(x.shape)
        if len(calls) == 9:  # three blocks of kind A, four of C, two of E
            return maximum(x, kernel_size, stride, padding)
        return average(x, kernel_size, stride, padding, count_include_pad=False)

    monkeypatch.setattr("torchvision.models.inception.F.avg_pool2d", pool)
    image = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(2 * image - 1)
    monkeypatch.undo()
    assert len(calls) == 9
    assert parity.relative_error(network(image), expected.numpy().ravel()) < 1e-5


def test_pictures_of_any_size_are_brought_to_the_networks(network, monkeypatch):
    seen = []
    monkeypatch.setattr(network.Conv2d_1a_3x3, "forward", lambda x: seen.append(x) or torch.zeros(len(x), 32, 149, 149))
    network(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 40, 70))
    assert seen[0].shape == (2, 3, 299, 299)
    assert torch.equal(seen[0][0], torch.full((3, 299, 299), -1.0)) and torch.equal(seen[0][1], torch.ones(3, 299, 299))


def test_the_published_file_fills_it(network, tmp_path):
    """It holds the classifier too."""
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "i.pth")
    metric = build_metric({"type": "calculate_fid", "weights": str(tmp_path / "i.pth")})
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in metric.network.state_dict().items())
    torch.save({k: v for k, v in network.state_dict().items() if "7c" not in k}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="missing"):
        build_metric({"type": "calculate_fid", "weights": str(tmp_path / "cut.pth")})


@pytest.fixture
def bare(monkeypatch):
    """Metrics of three features, without a network."""
    monkeypatch.setattr("facerestore.metrics.fid.FIDInception", partial(nn.Linear, 3, 3))
    monkeypatch.setattr("facerestore.metrics.fid.FEATURES", 3)


def test_fid_against_truths_and_against_a_file(bare, tmp_path):
    restored, truth = (torch.from_numpy(x[:, :3].copy()) for x in drawn(CASE["config"]["calls"][0]))
    np.savez(tmp_path / "ours.npz", mu=truth.mean(0), sigma=truth.T.cov())
    np.savez(tmp_path / "basicsr.npz", mean=truth.mean(0), cov=truth.T.cov())
    plain = FID()
    seen, wanted = plain.statistics(), plain.statistics()
    seen.add(restored)
    wanted.add(truth)
    expected = plain.compute(seen, wanted)
    assert plain.needs_truth and expected > 0
    for name in ("ours", "basicsr"):
        stored = FID(reference=str(tmp_path / f"{name}.npz"))
        stored.open()
        assert not stored.needs_truth
        assert stored.compute(seen, None) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [FID, KID])
def test_a_single_picture_has_no_figure(bare, kind):
    metric = kind()
    one, two = metric.statistics(), metric.statistics()
    one.add(torch.rand(1, 3))
    two.add(torch.rand(2, 3))
    assert math.isnan(metric.compute(one, two)) and math.isnan(metric.compute(two, one))
    assert math.isfinite(metric.compute(two, two))
    assert math.isnan(metric.compute(metric.statistics(), metric.statistics()))


def test_kid_is_multiplied(bare):
    metric = KID(scale=1000.0)
    x, y = metric.statistics(), metric.statistics()
    x.add(torch.rand(5, 3))
    y.add(torch.rand(5, 3) + 1)
    assert metric.compute(x, y) == pytest.approx(1000 * KID().compute(x, y), rel=1e-12)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "needs `mu` and `sigma`"),
        ({"x": np.zeros(3)}, "it holds x"),
        ({"mu": np.zeros(64), "sigma": np.zeros((64, 64))}, "statistics of 2048 features are needed"),
        ({"mu": np.array([{}])}, "no file of statistics"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_statistics(str(tmp_path / "x.npz"))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:500])
    np.save(tmp_path / "bare.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("mu")
    faults = {"cut.npz": "damaged", "bare.npy": "holds nothing", "text.npz": "damaged", "no.npz": "does not exist"}
    for name, message in faults.items():
        with pytest.raises(DataError, match=message):
            read_statistics(str(tmp_path / name))


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_covariance_is_factored_whatever_its_rank(count):
    torch.manual_seed(0)
    rows = torch.randn(count, 20, dtype=torch.float64) * torch.logspace(-3, 3, 20, dtype=torch.float64)
    covariance = rows.T @ rows
    half = factor(covariance)
    assert half.shape == (20, min(count, 20))
    assert torch.allclose(half @ half.T, covariance, rtol=1e-9, atol=1e-9 * float(covariance.max()))
