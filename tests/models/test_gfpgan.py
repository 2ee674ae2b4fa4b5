"""GFPGANModel beyond the published figures: what is left out, when, and what is refused."""

from __future__ import annotations

import pytest
import torch

from facerestore.config import load_options
from facerestore.data.loader import training_loader
from facerestore.engine import build_model
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.trainer import open_data
from facerestore.errors import CheckpointError, DataError, OptionError
from facerestore.models.gfpgan import crop_side, pyramid_names
from tests.engine.runs import DEBUG

NO_FEATURES = "train.perceptual_opt=~"
WHOLE = DEBUG / "gfpgan_v1.yml"


def batch_of(options):
    section = options.datasets["train"]
    return next(iter(training_loader(dataset_of(section, options), section.batch_size_per_gpu)))


def terms(its, *overrides, file=WHOLE):
    options = load_options(file, [NO_FEATURES, *overrides])
    model, batch = build_model(options), batch_of(options)
    return [model.step(batch, it) for it in its], model, batch


def test_every_published_term_has_its_name():
    (found, regularised), *_ = terms((1, 2))
    parts = ("left_eye", "right_eye", "mouth")
    assert found.keys() == {
        "l_g_pix", "l_p_8", "l_p_16", "l_p_32", "l_p_64", "l_g_gan", *(f"l_g_gan_{p}" for p in parts), "l_g_comp_style_loss",
        "l_identity", "l_d", "real_score", "fake_score", *(f"l_d_{p}" for p in parts),
    }  # fmt: skip
    assert regularised.keys() - found.keys() == {"l_d_r1"}


def test_the_pyramid_is_dropped_for_good():
    (last, after), model, _ = terms((3, 4), "train.net_d_reg_every=100")
    assert last["l_p_8"] > 0 and all(after[name] == 0 for name in pyramid_names(64))
    layers = model.networks["net_g"].toRGB
    before = [p.clone() for p in layers.parameters()]
    options = load_options(WHOLE, [NO_FEATURES])
    model.step(batch_of(options), 5)
    assert all(torch.equal(a, b) for a, b in zip(before, layers.parameters(), strict=True)), "nothing moves them any more"


def test_the_generator_waits_for_the_discriminators():
    (first,), model, batch = terms((1,), "train.net_d_init_iters=1")
    assert "l_g_gan" not in first and {"l_d", "l_d_mouth"} <= first.keys()
    assert "l_g_gan" in model.step(batch, 2)


def test_one_part_alone():
    options = load_options(WHOLE, [NO_FEATURES])
    data = {k: v for k, v in options.raw.items() if k not in ("network_d_left_eye", "network_d_right_eye")}
    options = load_options(data)
    found = build_model(options).step(batch_of(options), 1)
    assert {"l_g_gan_mouth", "l_g_comp_style_loss", "l_d_mouth"} <= found.keys() and "l_d_left_eye" not in found


@pytest.mark.parametrize(("face", "eye", "mouth"), [(512, 80, 120), (1024, 160, 240), (256, 40, 60), (64, 8, 16), (32, 8, 8)])
def test_crops_follow_the_size_of_the_face(face, eye, mouth):
    assert (crop_side("left_eye", face), crop_side("right_eye", face), crop_side("mouth", face)) == (eye, eye, mouth)


def test_two_restorations_are_the_same_and_training_draws_noise():
    _, model, batch = terms((1,))
    method = model.method
    for g in (model.networks["net_g"], model.ema["net_g"]):
        for layer in g.stylegan_decoder.style_convs:  # at 0, where they start, noise would show nowhere
            torch.nn.init.constant_(layer.weight, 1.0)
    for ema in (True, False):
        assert torch.equal(model.restore(batch, ema), model.restore(batch, ema))
    lq = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(method.generate(lq, False).image, method.generate(lq, False).image)
        method.randomize_noise = False
        assert torch.equal(method.generate(lq, False).image, method.generate(lq, False).image)


def test_the_published_betas_are_the_default_and_yours_win():
    model = build_model(load_options(WHOLE, [NO_FEATURES, "train.net_d_reg_every=16", "train.optim_g.betas=[0.5, 0.9]"]))
    betas = {key: o.param_groups[0]["betas"] for key, o in model.optimizers.items()}
    assert betas == {"optim_g": (0.5, 0.9), "optim_d": (0.0, 0.99 ** (16 / 17)), "optim_component": (0.9, 0.99)}


def test_a_batch_of_one_is_judged():
    (found,), *_ = terms((2,), "datasets.train.batch_size_per_gpu=1")
    assert all(t.isfinite() for t in found.values())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["network_g.decoder_load_path=~"], "stylegan_decoder of GFPGANv1 is never trained here, so it needs weights: name"),
        (["network_g.out_size=60"], "`out_size` must be one of 8, 16, 32"),
        (["datasets.train.crop_components=false"], "network_d_left_eye looks at boxes, `loc_left_eye`, which this data set"),
        (["train.gan_component_opt=~"], "network_d_left_eye needs `gan_component_opt`"),
        (["network_g={type: RestoreFormer}"], "needs `rgbs`, which RestoreFormer, the network_g, does not offer"),
        (
            ["network_d_mouth={type: StyleGAN2Discriminator, out_size: 16, narrow: 0.1}"],
            "needs `feats`, which StyleGAN2Discriminator, the network_d_mouth, does not offer",
        ),
        (["network_identity.weights=~"], "ResNetArcFace is never trained here, so it needs weights"),
        (["datasets.train.io_backend={type: synthetic, count: 0}"], "drawn faces need a `count` of 1 or more"),
        (["datasets.train.component_path=parts.json"], "leave out `component_path`"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_sentence(overrides, sentence):
    with pytest.raises(OptionError) as error:
        load_options(WHOLE, overrides)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_term_without_its_network_is_told():
    given = ["train.identity_weight=10", "train.comp_style_weight=200"]
    notes = load_options(DEBUG / "gfpgan_v1_simple.yml", given).notes
    assert "`train.identity_weight` does nothing: there is no network_identity" in notes
    assert any(note.startswith("`train.comp_style_weight` does nothing: there is no network_d_left_eye") for note in notes)
    assert not any("does nothing" in note for note in load_options(WHOLE).notes)


def test_networks_can_be_left_out(tmp_path):
    """As a file with `base:` leaves out what the one below it has."""
    assert {"network_identity", "network_d_mouth"} <= load_options(WHOLE).networks.keys()
    more = "path: {pretrain_network_g: ~}\n"
    (tmp_path / "run.yml").write_text(f"base: {WHOLE.resolve()}\nnetwork_identity: ~\n{more}")
    for options in (
        load_options(tmp_path / "run.yml", ["path.pretrain_network_identity=face.pth"]),
        load_options(WHOLE, ["network_identity=~", "path.pretrain_network_identity=face.pth"]),
    ):
        assert "network_identity" not in options.networks and not options.path.pretrain
        assert "`path.pretrain_network_identity` is not read: this file has no such network" in options.notes
    with pytest.raises(OptionError, match="GFPGANModel needs `network_g`"):
        load_options(WHOLE, ["network_g=~"])
    with pytest.raises(OptionError, match="network_identiti: must be a section with a `type`, not None"):
        load_options(WHOLE, ["network_identiti=~"])


def test_a_decoder_of_another_size(tmp_path):
    small = ["network_g.out_size=32", "network_d.out_size=32", "datasets.train.out_size=32", "datasets.val.out_size=32"]
    decoder = build_model(load_options(WHOLE, [NO_FEATURES, *small])).networks["net_g"].stylegan_decoder
    torch.save({"params_ema": decoder.state_dict()}, tmp_path / "small.pth")
    with pytest.raises(CheckpointError) as error:
        build_model(load_options(WHOLE, [NO_FEATURES, f"network_g.decoder_load_path={tmp_path / 'small.pth'}"]))
    assert "small.pth" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path):
    missing = {
        "train.perceptual_opt.weights": "this file does not exist",
        "path.pretrain_network_g": "this file does not exist",
        "network_g.decoder_load_path": "this file does not exist: a training of StyleGAN2 makes it, such as options/styleg",
        "network_g.weights": "this file does not exist",
    }
    for key, reason in missing.items():
        without = [] if "perceptual" in key else [NO_FEATURES]
        with pytest.raises(CheckpointError) as error:
            build_model(load_options(WHOLE, [*without, f"{key}=none.pth"]))
        assert f"--set {key}=none.pth: {key}: none.pth: {reason}" in str(error.value)
    text = WHOLE.read_text().replace("base: ..", f"base: {WHOLE.resolve().parents[1]}")
    text = text.replace("decoder_load_path: random", "decoder_load_path: none.pth")
    (tmp_path / "run.yml").write_text(text)
    line = next(i for i, words in enumerate(text.splitlines(), 1) if "none.pth" in words)
    with pytest.raises(CheckpointError, match=rf"run\.yml:{line}: network_g\.decoder_load_path: none\.pth"):
        build_model(load_options(tmp_path / "run.yml"))
    nowhere = ["datasets.train.io_backend=~", "datasets.train.dataroot_gt=none", "datasets.train.component_path=none.pth"]
    with pytest.raises(DataError, match=r"gfpgan_v1\.yml:\d+: datasets\.train: folder none, named by `dataroot_gt`, does not"):
        open_data(load_options(WHOLE, nowhere))
    with pytest.raises(DataError, match=r"datasets\.val: folder none, named by `dataroot_gt`, does not exist"):
        open_data(load_options(WHOLE, ["datasets.val.io_backend=~", "datasets.val.dataroot_gt=none"]))
    options = load_options(
        WHOLE,
        ["datasets.train.io_backend=~", f"datasets.train.dataroot_gt={tmp_path}", "datasets.train.component_path=none.pth"],
    )
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none\.pth, named by `component_path`, does not exist: scripts/prepare_landmarks\.py makes"
    ):
        len(dataset_of(options.datasets["train"], options))
