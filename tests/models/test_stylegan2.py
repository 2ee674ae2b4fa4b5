"""StyleGAN2Model beyond the published figures: what it remembers, its rates, and the pictures to look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facerestore.config import load_options
from facerestore.data.image_io import read_image
from facerestore.engine import build_model
from facerestore.engine.cli import test_main as run_test
from facerestore.engine.cli import train_main
from facerestore.engine.evaluation import tiled
from facerestore.errors import OptionError
from facerestore.losses.regularizers import path_length_penalty
from facerestore.models import stylegan2
from tests.engine.runs import DEBUG

FILE = DEBUG / "stylegan2_ffhq_512.yml"
TRUTH = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def built(*overrides):
    return build_model(load_options(FILE, overrides))


def test_lazy_terms_come_when_they_are_due():
    model = built()
    found = [model.step({"gt": TRUTH}, it).keys() for it in (1, 2, 3)]
    assert found[0] == {"l_d", "real_score", "fake_score", "l_g"}
    assert found[1] - found[0] == {"l_g_path", "path_length"} and found[2] - found[0] == {"l_d_r1"}
    assert {label: tuple(turn) for label, turn in model.method.turning_points().items()} == {
        "generator is updated": (1, 1), "R1": (3, 3), "path length": (2, 2),
    }  # fmt: skip


def test_the_mean_path_length_is_remembered_and_comes_back():
    model = built("train.randomize_noise=false")
    model.step({"gt": TRUTH}, 2)
    held = model.method.state()["mean_path_length"]
    assert held > 0
    fresh = built()
    fresh.method.load_state(model.method.state())
    assert fresh.method.mean_path_length == held


def test_slices_of_a_batch_agree_on_the_mean_path_length(monkeypatch):
    means = []

    def noted(*arguments):
        found = path_length_penalty(*arguments)
        means.append(found[-1])
        return found

    monkeypatch.setattr(stylegan2, "path_length_penalty", noted)
    model = built("train.accumulate=2")
    model.step({"gt": TRUTH}, 2)
    assert len(means) == 2 and means[0] != means[1]
    torch.testing.assert_close(model.method.mean_path_length, torch.stack(means).mean())


@pytest.mark.parametrize(("correction", "g", "d"), [("false", 2e-3, 2e-3), ("true", 2e-3 * 2 / 3, 2e-3 * 3 / 4)])
def test_learning_rates_follow_lazy_regularisation_where_that_is_asked_for(correction, g, d):
    optimizers = built(f"train.lazy_lr_correction={correction}").optimizers
    assert optimizers["optim_g"].param_groups[0]["lr"] == pytest.approx(g)
    assert optimizers["optim_d"].param_groups[0]["lr"] == pytest.approx(d)
    assert optimizers["optim_g"].param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (2 / 3)))


def test_plain_layers_learn_at_the_rates_of_equalized_ones():
    model = built("network_g={type: StyleGAN2GeneratorClean, out_size: 32, num_style_feat: 32, num_mlp: 2, narrow: 0.0625}")
    rates = {id(p): group["initial_lr"] for group in model.optimizers["optim_g"].param_groups for p in group["params"]}
    found = {name: rates[id(p)] / 2e-3 for name, p in model.networks["net_g"].named_parameters()}
    assert found["style_mlp.1.weight"] == pytest.approx(0.01)
    assert found["style_conv1.modulated_conv.weight"] == found["to_rgb1.modulated_conv.weight"] == pytest.approx(1 / 3)
    assert found["style_conv1.modulated_conv.modulation.weight"] == found["constant_input.weight"] == pytest.approx(1)
    assert all(group["initial_lr"] == pytest.approx(2e-3) for group in built().optimizers["optim_g"].param_groups)


def test_networks_of_different_sizes_are_refused_when_options_are_read():
    with pytest.raises(OptionError, match="network_d judges pictures of 16 x 16 pixels, and network_g makes 32 x 32"):
        load_options(DEBUG / "stylegan2_ffhq_512.yml", ["network_d.out_size=16"])
    with pytest.raises(OptionError, match="network_d judges pictures of 32 x 32 pixels, and network_g makes 64 x 64"):
        load_options(DEBUG / "gfpgan_v1_simple.yml", ["network_d.out_size=32"])


def test_styles_are_mixed_from_one_layer_on():
    method = built("train.mixing_prob=1", "train.randomize_noise=false").method
    with torch.no_grad():
        mixed = [method.draw_faces("x", 3, it).latents for it in range(1, 6)]
        plain = built("train.mixing_prob=0").method.draw_faces("x", 3, 1).latents
    for latents in mixed:
        changes = (latents[:, 1:] != latents[:, :-1]).any(-1).sum(1)
        assert changes.tolist() == [1, 1, 1], "coarse layers take one code, fine ones the other"
    assert (plain == plain[:, :1]).all()


def test_the_same_codes_make_the_same_faces_one_by_one_or_together():
    model = built()
    sheet = model.samples()
    assert sheet.shape == (5, 3, 32, 32) and sheet.min() >= 0 and sheet.max() <= 1
    assert torch.equal(sheet, model.samples())
    restored = model.restore({"gt": TRUTH[:2], "index": torch.tensor([3, 1])})
    assert torch.allclose((restored.clamp(-1, 1) + 1) / 2, sheet[[3, 1]], atol=1e-6)


def test_a_sheet_has_as_many_rows_as_it_needs():
    pictures = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 3, 2, 2).float()
    sheet = tiled(pictures)
    assert sheet.shape == (3, 4, 6)
    assert sheet[0, ::2, ::2].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_training_shows_samples_and_measures_sets(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    val = "datasets.val={type: SyntheticFaceDataset, count: 3, size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
    short = ["name=run", "train.total_iter=2", "val.val_freq=2", "logger.use_tb_logger=false", val]
    arguments = [word for override in short for word in ("--set", override)]
    assert train_main(["-opt", str(FILE), *arguments]) == 0
    folder = Path("experiments/run/visualization")
    assert read_image(str(folder / "samples_2.png")).shape == (64, 96, 3)
    assert len(list((folder / "synthetic").rglob("*.png"))) == 3
    assert "samples" in Path("experiments/run/report.html").read_text()
    weights = "path.pretrain_network_g=experiments/run/models/net_g_latest.pth"
    assert run_test(["-opt", str(FILE), "--set", "name=run", "--set", weights]) == 0, capsys.readouterr().err
    assert (read_image("results/run/visualization/samples_run.png") == read_image(str(folder / "samples_2.png"))).all()
