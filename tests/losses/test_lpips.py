"""LPIPS against the authors' figures and CodeFormer's, and the files that fill it."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision

from facerestore.archs.lpips import BACKBONES, LPIPS, unit_length
from facerestore.checkpoint import read_checkpoint
from facerestore.errors import CheckpointError
from facerestore.losses import LPIPSLoss, build_loss
from facerestore.registry import PublishedFile
from tests import parity

CASE, STORED = parity.load("loss_lpips")
SEED = CASE["config"]["lpips_fill"]["seed"]
FILLED = [call for call in CASE["config"]["calls"] if call["linear"] == "filled"]


def linear_state(net: str) -> dict[str, torch.Tensor]:
    """The case's `filled` linear layers, as a file of the authors' holds them."""
    keys = {f"lin{k}.model.1.weight": [1, channels, 1, 1] for k, channels in enumerate(BACKBONES[net].channels)}
    return {key: torch.from_numpy(parity.weight(key, shape, SEED, False)).abs() for key, shape in keys.items()}


def filled(lpips: LPIPS) -> LPIPS:
    parity.fill_(lpips.backbone, **CASE["config"]["lpips_fill"])
    lpips.linear.load_state_dict(linear_state(lpips.net))
    return lpips


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    pred, target = (parity.draw(**CASE["config"]["inputs"][name]) for name in ("pred", "target"))
    return pred.requires_grad_(), target


def agrees(mine: torch.Tensor, key: str) -> bool:
    return parity.relative_error(mine, STORED[key]) <= CASE["tolerance"][key]


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_parity_of_the_distance(net):
    lpips, (pred, target) = filled(LPIPS(net)), pictures()
    distance = lpips(pred, target)
    assert agrees(distance, f"lpips.{net}.filled")
    (gradient,) = torch.autograd.grad(distance.mean(), pred)
    assert agrees(gradient, f"grad.lpips.{net}.filled")


@pytest.mark.parametrize("call", FILLED, ids=lambda call: call["name"])
def test_parity_of_the_loss(call):
    loss = build_loss({"type": "LPIPSLoss", **call["options"], "weights": "random", "lpips_weights": "random"})
    filled(loss.lpips)
    pred, target = pictures()
    term, style = loss(pred, target)
    assert style is None
    assert agrees(term, f"value.{call['name']}")
    (gradient,) = torch.autograd.grad(term, pred)
    assert agrees(gradient, f"grad.{call['name']}")


def test_pictures_are_taken_as_they_are_by_default():
    pred, target = pictures()
    loss = LPIPSLoss()
    assert torch.equal(loss(pred, target)[0], loss.lpips(pred, target).mean())


@pytest.mark.parametrize("net", list(BACKBONES))
def test_layers_and_keys_are_torchvisions(net):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(BACKBONES[net].name, weights=None).features
        mine = LPIPS(net).backbone.features
    kept = {k: v.shape for k, v in theirs.state_dict().items() if int(k.split(".")[0]) < len(mine)}
    assert {k: v.shape for k, v in mine.state_dict().items()} == kept
    assert str(mine).replace("inplace=True", "") == str(theirs[: len(mine)]).replace("inplace=True", "")
    x, found = torch.empty(1, 3, 64, 64, device="meta"), []
    for index, layer in enumerate(theirs[: len(mine)]):
        x = layer(x)
        if index in BACKBONES[net].taps:
            found.append(x.shape)
    assert tuple(shape[1] for shape in found) == BACKBONES[net].channels
    with torch.device("meta"):
        assert [f.shape for f in LPIPS(net).backbone(torch.empty(1, 3, 64, 64))] == found


def test_pictures_that_agree_cost_nothing():
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    term, _ = LPIPSLoss()(x, x.detach())
    term.backward()
    assert term == 0 and not x.grad.any()


def test_the_gradient_is_finite_where_no_channel_fires():
    """The authors' own is NaN there: the length's derivative at 0."""
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    with torch.no_grad():
        features[..., 0] = 3.0
    unit = unit_length(features)
    assert torch.allclose(unit[..., 0], torch.tensor(0.5)) and not unit[..., 1].any()
    (gradient,) = torch.autograd.grad(unit.square().sum(), features)
    assert gradient.isfinite().all()


def test_the_network_is_frozen_and_stays_in_eval_mode():
    loss = LPIPSLoss().train()
    assert not any(m.training for m in loss.modules()) and not any(p.requires_grad for p in loss.parameters())


def test_the_truth_is_a_constant():
    pred, target = pictures()
    target.requires_grad_()
    term, _ = LPIPSLoss()(pred, target)
    assert torch.autograd.grad(term, target, allow_unused=True) == (None,)


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Both files as they are published, for AlexNet: the whole classifier, and the linear layers."""
    backbone = parity.fill_(LPIPS("alex").backbone, seed=7).state_dict()
    torch.save({**backbone, "classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "alexnet.pth")
    torch.save(linear_state("alex"), tmp_path / "alex.pth")
    return {"weights": str(tmp_path / "alexnet.pth"), "lpips_weights": str(tmp_path / "alex.pth")}


def test_files_fill_both_parts(files):
    loss = build_loss({"type": "LPIPSLoss", "net": "alex", **files})
    for part, keyword in ((loss.lpips.backbone, "weights"), (loss.lpips.linear, "lpips_weights")):
        state = read_checkpoint(files[keyword]).state()
        assert part.state_dict().keys() <= state.keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in part.state_dict().items())


def test_another_networks_linear_layers_are_refused(files):
    with pytest.raises(CheckpointError, match=r"lin1.model.1.weight is \(1, 192, 1, 1\), not \(1, 128, 1, 1\)"):
        build_loss({"type": "LPIPSLoss", "net": "vgg", "weights": "random", "lpips_weights": files["lpips_weights"]})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's cache of published files, in a folder of its own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub/checkpoints"


def test_published_layers_are_fetched_once_and_checked(files, cache, monkeypatch):
    with open(files["lpips_weights"], "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    source = "file://" + files["lpips_weights"]
    wanted = {"type": "LPIPSLoss", "net": "alex", "weights": files["weights"]}
    entry = BACKBONES["alex"]
    monkeypatch.setattr("facerestore.archs.lpips.PublishedFile", lambda url, name, sha: PublishedFile(source, name, sha))
    with pytest.raises(CheckpointError, match="invalid hash value"):
        build_loss(wanted)
    assert not list(cache.iterdir()), "nothing that is not what was published stays"
    monkeypatch.setitem(BACKBONES, "alex", entry._replace(sha256=digest))
    loss = build_loss(wanted)
    assert [p.name for p in cache.iterdir()] == ["lpips_v0.1_alex.pth"]
    source = "file:///nowhere"
    again = build_loss(wanted)
    assert torch.equal(loss.lpips.linear.weights()[2], again.lpips.linear.weights()[2])


def test_layers_that_cannot_be_fetched_are_asked_for_by_name(files, cache, monkeypatch):
    def no_network(*args, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(CheckpointError) as caught:
        build_loss({"type": "LPIPSLoss", "net": "alex", "weights": files["weights"]})
    message = str(caught.value)
    assert "lpips_v0.1_alex.pth is needed" in message and "/v0.1/alex.pth" in message and "`lpips_weights`" in message
