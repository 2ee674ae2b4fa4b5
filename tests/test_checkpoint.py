"""Weights on disk: told by their content, written whole or not at all, refused in one sentence."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from facerestore.archs import build_network
from facerestore.checkpoint import (
    load_declared_weights,
    load_weights,
    recognise,
    recognise_state,
    save_checkpoint,
    write_torch,
)
from facerestore.errors import CheckpointError, UserError
from facerestore.registry import WeightFile

SMALL = {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 2}


def network(seed: int = 0, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(SMALL | changes)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (lambda a, b: a, "a"),
        (lambda a, b: {"params": a}, "a"),
        (lambda a, b: {"params": a, "params_ema": b}, "b"),
        (lambda a, b: {"params_ema": {f"module.{k}": v for k, v in b.items()}}, "b"),
        (lambda a, b: {"state_dict": a, "epoch": 3}, "a"),
    ],
)
def test_published_layouts_are_told_by_their_content(tmp_path, content, taken):
    a, b, fresh = network(1), network(2), network(3)
    torch.save(content(a.state_dict(), b.state_dict()), tmp_path / "x.pth")
    load_weights(fresh, tmp_path / "x.pth")
    assert equal(fresh, {"a": a, "b": b}[taken])


def test_a_key_may_be_asked_for(tmp_path):
    a, b, fresh = network(1), network(2), network(3)
    save_checkpoint(tmp_path / "x.pth", {"params": a.state_dict(), "params_ema": b.state_dict()}, {})
    load_weights(fresh, tmp_path / "x.pth", key="params")
    assert equal(fresh, a)
    with pytest.raises(CheckpointError, match=r"holds no 'other', only params, params_ema"):
        load_weights(fresh, tmp_path / "x.pth", key="other")


def refusal(network: nn.Module, source, **keywords) -> str:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, source, **keywords)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items()), "a refused file changed the network"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_networks_weights_are_named(tmp_path):
    other = build_network({"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 2, "upscale": 2})
    torch.save(other.state_dict(), tmp_path / "other.pth")
    message = refusal(network(), tmp_path / "other.pth")
    assert "other.pth: these are weights of SRVGGNetCompact(" in message
    assert "do not fit this MSRResNet" in message


def test_another_size_is_named_even_when_not_strict(tmp_path):
    torch.save(network(num_feat=8).state_dict(), tmp_path / "wide.pth")
    assert "num_feat=8" in refusal(network(), tmp_path / "wide.pth", strict=False)


def test_missing_and_unknown_keys_are_refused_unless_told(tmp_path):
    state = network(1).state_dict()
    state.pop("conv_last.bias")
    state["extra"] = torch.zeros(1)
    message = refusal(network(), state)
    assert "1 missing (conv_last.bias)" in message and "1 unknown (extra)" in message
    fresh = network(2)
    load_weights(fresh, state, strict=False)
    assert torch.equal(fresh.conv_first.weight, state["conv_first.weight"])
    assert "do not fit" in refusal(network(), {"nothing.known": torch.zeros(1)}, strict=False)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.97])
def test_a_file_that_was_cut_off(tmp_path, kept):
    torch.save(network().state_dict(), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content[: int(kept * len(content))])
    assert "damaged or cut off" in refusal(network(), tmp_path / "x.pth")


class Payload:
    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, wrong):
    state = network(1).state_dict()
    state["conv_last.bias"][0] = wrong
    torch.save({"params": state}, tmp_path / "x.pth")
    assert r"x.pth: its conv_last.bias holds values that are no numbers" in refusal(network(), tmp_path / "x.pth")
    assert "its params.conv_last.bias holds" in refusal(network(), tmp_path / "x.pth", key="params")


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"type": ["x"]}, r"its `meta` says of itself what cannot be: there is no network called \['x'\]"),
        ({"type": "MSRResNets"}, "no network called 'MSRResNets' \\(did you mean 'MSRResNet'"),
        ({"type": "MSRResNet", "keywords": {"foo": 1}}, "MSRResNet has no option `foo`"),
        ({"type": "MSRResNet", "keywords": [1]}, r"has \[1\] as `keywords`, not a mapping"),
        ({"type": "MSRResNet", "keywords": {"num_feat": "a"}}, "`num_feat` must be a whole number, not 'a'"),
        ({"type": "MSRResNet", "keywords": {"num_feat": 8}}, "says MSRResNet, but these are weights of MSRResNet.*num_feat=4"),
        ({"type": "SRResNet"}, "its `meta` says SRResNet, but these are weights of MSRResNet"),
        ({"type": "StyleGAN2Generator", "keywords": {"out_size": 48}}, "cannot be.*out_size"),
        ({"type": "StyleGAN2Generator"}, "StyleGAN2Generator needs `out_size`"),
    ],
)
def test_what_a_file_says_of_itself_is_held_to_its_weights(tmp_path, meta, said):
    save_checkpoint(tmp_path / "x.pth", {"params": network().state_dict()}, meta)
    with pytest.raises(CheckpointError, match=f"x.pth: .*{said}"):
        recognise(tmp_path / "x.pth")


def test_a_meta_that_is_nested_deeply(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    safetensors.torch.save_file({"params.a": torch.zeros(1)}, tmp_path / "x.safetensors", {"meta": deep})
    assert "damaged or cut off" in refusal(network(), tmp_path / "x.safetensors")


def test_a_decoder_without_its_mapping_network_is_not_recognised():
    keywords = {"out_size": 16, "num_style_feat": 16, "num_mlp": 1, "narrow": 1 / 32}
    for kind in ("StyleGAN2Generator", "StyleGAN2GeneratorClean"):
        state = build_network({"type": kind, **keywords}).state_dict()
        assert recognise_state(state)[1]["num_mlp"] == 1
        assert recognise_state({k: v for k, v in state.items() if not k.startswith("style_mlp")}) is None


def test_code_in_a_file_is_not_run(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"params": Payload()}, protocol=2))
    torch.save({"params": Payload()}, tmp_path / "y.pth")
    for name in ("x.pth", "y.pth"):
        refusal(network(), tmp_path / name)
    assert not Payload.ran


def test_what_is_no_checkpoint(tmp_path):
    assert "does not exist" in refusal(network(), tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    assert refusal(network(), tmp_path / "text.pth").endswith("5 bytes, damaged or cut off, or no checkpoint at all")
    torch.save({}, tmp_path / "nothing.pth")
    assert refusal(network(), tmp_path / "nothing.pth").endswith("no weights in it (it is empty)")
    torch.save(network().state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-50])
    assert refusal(network(), tmp_path / "cut.pth").endswith("bytes, damaged or cut off, or no checkpoint at all")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "not weights by name" in refusal(network(), tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert "no weights in it" in refusal(network(), tmp_path / "empty.pth")
    assert refusal(network(), tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_torch(tmp_path / "x.pth", {"a": torch.ones(1)})

    class Unwritable:
        def __reduce__(self):
            raise OSError("the disk is full")

    with pytest.raises(UserError, match="full"):
        write_torch(tmp_path / "x.pth", {"a": Unwritable()})
    assert torch.equal(torch.load(tmp_path / "x.pth", weights_only=True)["a"], torch.ones(1))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_network_is_rebuilt_from_its_file(tmp_path):
    trained = network(1)
    meta = {"type": "MSRResNet", "keywords": {k: v for k, v in SMALL.items() if k != "type"}}
    save_checkpoint(tmp_path / "ours.pth", {"params": trained.state_dict()}, meta)
    torch.save({"params": trained.state_dict()}, tmp_path / "upstream.pth")
    for name in ("ours.pth", "upstream.pth"):
        kind, keywords, file = recognise(tmp_path / name)
        rebuilt = build_network({"type": kind, **keywords})
        load_weights(rebuilt, file.state())
        assert equal(rebuilt, trained)
    assert recognise_state({"x": torch.zeros(1)}) is None
    torch.save({"x": torch.zeros(1)}, tmp_path / "unknown.pth")
    with pytest.raises(CheckpointError, match="no network known here"):
        recognise(tmp_path / "unknown.pth")


def test_declared_files_fill_their_part_and_may_hold_more(tmp_path):
    component = nn.ModuleDict({"part": nn.Linear(2, 2)})
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2), "more": torch.ones(1)}, tmp_path / "x.pth")
    declared = WeightFile(module="part", required=True, extra_keys=True, doc="a file")
    load_declared_weights(component, "weights", declared, str(tmp_path / "x.pth"))
    assert torch.equal(component["part"].weight, torch.ones(2, 2))
    with pytest.raises(CheckpointError, match="needs `weights`: a file"):
        load_declared_weights(component, "weights", declared, None)
    with pytest.raises(CheckpointError, match="1 unknown"):
        load_declared_weights(component, "weights", WeightFile(module="part"), str(tmp_path / "x.pth"))
    torch.save({"other": torch.ones(1)}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match="none of the weights"):
        load_declared_weights(component, "weights", declared, str(tmp_path / "y.pth"))
    made = WeightFile(module="part", made_by="a training makes it")
    with pytest.raises(CheckpointError, match=r"^weights: none\.pth: this file does not exist: a training makes it$"):
        load_declared_weights(component, "weights", made, "none.pth")


def test_torchvision_weights_are_looked_for_in_the_cache_and_asked_for_by_name(tmp_path, monkeypatch):
    from facerestore.losses import build_loss

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*args, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(CheckpointError) as caught:
        build_loss({"type": "PerceptualLoss", "layer_weights": {"relu1_1": 1}})
    message = str(caught.value)
    assert "vgg19-dcbb9e9d.pth is needed" in message and "download.pytorch.org" in message and str(tmp_path) in message


def test_each_network_finds_its_part_of_a_file_that_holds_several(tmp_path):
    """StarGAN v2's nets_ema.ckpt: parts by name, each as DataParallel wrote it."""
    sizes = {"img_size": 32, "base_dim": 4, "style_dim": 4, "max_conv_dim": 8}
    options = {
        "generator": {"type": "StarGANv2Generator", **sizes},
        "mapping_network": {"type": "StarGANv2MappingNetwork", "style_dim": 4, "hidden_dim": 8},
        "style_encoder": {"type": "StarGANv2StyleEncoder", **sizes},
        "fan": {"type": "FAN", "num_features": 8},
    }
    parts = {name: build_network(component) for name, component in options.items()}
    stored = {name: {f"module.{k}": v for k, v in part.state_dict().items()} for name, part in parts.items()}
    torch.save(stored, tmp_path / "nets_ema.ckpt")
    for name, component in options.items():
        for key in (None, name):
            fresh = build_network(component)
            load_weights(fresh, tmp_path / "nets_ema.ckpt", key=key)
            assert equal(fresh, parts[name])
    by_keyword = build_network(options["fan"] | {"fname_pretrained": str(tmp_path / "nets_ema.ckpt")})
    assert equal(by_keyword, parts["fan"])
    message = refusal(parts["style_encoder"], tmp_path / "nets_ema.ckpt", key="mapping_network")
    assert "these are weights of StarGANv2MappingNetwork(" in message
    assert "do not fit this MSRResNet" in refusal(network(), tmp_path / "nets_ema.ckpt")
