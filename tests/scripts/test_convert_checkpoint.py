"""convert_checkpoint.py: files in, files out, that load and draw the same."""

from __future__ import annotations

import importlib
import pickle

import pytest
import torch

from facerestore.archs import build_network
from facerestore.checkpoint import load_weights, read_checkpoint, recognise, save_checkpoint
from tests import parity
from tests.archs import small
from tests.archs.foreign import nvidia_discriminator, nvidia_generator, rosinality_generator

KEYWORDS = small.SMALL["GFPGANv1Clean"].keywords


def convert(*arguments: object) -> int:
    return importlib.import_module("scripts.convert_checkpoint").main([str(a) for a in arguments])


def test_a_published_clean_file_goes_there_and_back(tmp_path, capsys):
    """As GFPGANv1.3.pth and v1.4 are: `params_ema` alone, clean keys."""
    network = small.build("GFPGANv1Clean")
    torch.save({"params_ema": network.state_dict()}, tmp_path / "GFPGANv1.4.pth")
    assert convert(tmp_path / "GFPGANv1.4.pth", tmp_path / "original.pth", "--to", "original") == 0
    assert "GFPGANBilinear(" in capsys.readouterr().out
    assert convert(tmp_path / "original.pth", tmp_path / "again.safetensors", "--to", "clean") == 0
    assert "FIR" not in capsys.readouterr().err  # it is known to be the bilinear form's
    for name in ("GFPGANv1.4.pth", "again.safetensors"):
        kind, keywords, file = recognise(tmp_path / name)
        assert kind == "GFPGANv1Clean" and list(file.states) == ["params_ema"]
        rebuilt = build_network({"type": kind, **keywords}).eval()
        load_weights(rebuilt, file)
        expected = network(*small.inputs("GFPGANv1Clean")).image.detach()
        assert parity.relative_error(rebuilt(*small.inputs("GFPGANv1Clean")).image, expected.numpy()) < 1e-5


def test_weights_and_their_average_keep_what_the_file_says_of_them(tmp_path, capsys):
    states = {key: small.build("GFPGANv1").state_dict() for key in ("params", "params_ema")}
    states["params"] = {key: value + 1 for key, value in states["params"].items()}
    meta = {"type": "GFPGANv1", "keywords": {**KEYWORDS, "lr_mlp": 0.02, "fix_decoder": True}, "image_range": [-1, 1]}
    save_checkpoint(tmp_path / "net_g.pth", states, meta)
    assert convert(tmp_path / "net_g.pth", tmp_path / "same.safetensors") == 0
    same = read_checkpoint(tmp_path / "same.safetensors")
    assert same.meta == meta and list(same.states) == ["params", "params_ema"]
    torch.testing.assert_close(same.states, states, rtol=0, atol=0)
    assert convert(tmp_path / "net_g.pth", tmp_path / "clean.pth", "--to", "clean") == 0
    assert "will draw other pictures" in capsys.readouterr().err
    clean = read_checkpoint(tmp_path / "clean.pth")
    assert clean.meta["keywords"] == {**KEYWORDS, "fix_decoder": True} and clean.meta["image_range"] == [-1, 1]
    first = "stylegan_decoder.style_mlp.1.bias"
    torch.testing.assert_close(clean.states["params_ema"][first], states["params_ema"][first] * 0.02 * 2**0.5)


def test_others_files(tmp_path):
    network = small.build("StyleGAN2Generator")
    rosinality = {
        "g": rosinality_generator(network),
        "g_ema": rosinality_generator(network),
        "d": {},
        "latent_avg": torch.zeros(16),
    }
    torch.save(rosinality, tmp_path / "rosinality.pt")
    judge = small.build("StyleGAN2Discriminator")
    torch.save({"G_ema": nvidia_generator(network), "D": nvidia_discriminator(judge)}, tmp_path / "nvidia.pth")
    for name, states in (("rosinality.pt", ["params", "params_ema"]), ("nvidia.pth", ["params_ema"])):
        assert convert(tmp_path / name, tmp_path / "prior.pth") == 0
        kind, _, file = recognise(tmp_path / "prior.pth")
        assert kind == "StyleGAN2Generator" and list(file.states) == states
        torch.testing.assert_close(file.state(), dict(network.state_dict()), rtol=0, atol=0)
    assert convert(tmp_path / "nvidia.pth", tmp_path / "d.pth", "--key", "D") == 0
    torch.testing.assert_close(read_checkpoint(tmp_path / "d.pth").state(), dict(judge.state_dict()), rtol=0, atol=0)


def test_no_code_is_run(tmp_path, capsys):
    class Code:
        def __reduce__(self):
            return print, ("ran",)

    (tmp_path / "ffhq.pkl").write_bytes(b"\x80\x04torch_utils.persistence" + pickle.dumps(Code()))
    assert convert(tmp_path / "ffhq.pkl", tmp_path / "out.pth") == 2
    said = capsys.readouterr()
    assert "NVIDIA's pickle, which runs code" in said.err and "torch.save" in said.err and "ran" not in said.out
    torch.save({"params": Code()}, tmp_path / "code.pth")
    assert convert(tmp_path / "code.pth", tmp_path / "out.pth") == 2
    said = capsys.readouterr()
    assert "which could run code" in said.err and "ran" not in said.out
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"params": {"a": torch.zeros(1)}}, [], "of no network known here"),
        ({"x": {"a": torch.zeros(1)}, "y": {"b": torch.zeros(1)}}, [], "holds x, y: say with --key"),
        ({"params": {"a": torch.zeros(1)}}, ["--key", "d"], "holds no 'd'"),
        (None, ["--to", "original"], "MSRResNet is not the clean form of anything"),
        (None, ["--to", "clean"], "MSRResNet has no clean form"),
    ],
)
def test_what_cannot_be_converted(tmp_path, content, arguments, message, capsys):
    torch.save(content or {"params": small.build("MSRResNet").state_dict()}, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("meta", "form", "message"),
    [
        ({"type": "GFPGANv1", "keywords": KEYWORDS}, "clean", "its `meta` says GFPGANv1, but these are weights of"),
        ({"type": "GFPGANv1Clean", "keywords": {**KEYWORDS, "out_size": 48}}, "original", "out_size"),
        ({"type": "GFPGANv1Clean", "keywords": {**KEYWORDS, "out_size": 32}}, "original", "its `meta` says GFPGANv1Clean, but"),
        ({"type": "GFPGANv1Clean"}, "original", "needs `out_size`"),
        ({"type": ["x"]}, "same", "no network called ['x']"),
        ({"type": "GFPGANv1", "keywords": {**KEYWORDS, "lr_mlp": "a"}}, "clean", "`lr_mlp` must be a number, not 'a'"),
    ],
)
def test_a_file_with_a_wrong_label_is_not_converted(tmp_path, meta, form, message, capsys):
    save_checkpoint(tmp_path / "in.pth", {"params": small.build("GFPGANv1Clean").state_dict()}, meta)
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth", "--to", form) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()


def test_weights_that_are_no_numbers_are_not_converted(tmp_path, capsys):
    state = small.build("MSRResNet").state_dict()
    state["conv_last.bias"][0] = float("nan")
    torch.save({"params": state}, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth") == 2
    assert "in.pth: its conv_last.bias holds values that are no numbers" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()


def test_weights_of_two_networks_are_not_written_as_one(tmp_path, capsys):
    states = {"params": small.build("MSRResNet").state_dict(), "params_ema": small.build("SRResNet").state_dict()}
    torch.save(states, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth") == 2
    assert "not those of one network (params_ema" in capsys.readouterr().err


def test_the_endings_name_be_known(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        convert(tmp_path / "a.pth", tmp_path / "b.ckpt")
