"""CodeFormer's stages II and III: where codes come from, which iterations do what, what learns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facerestore.config import load_options
from facerestore.data.latents import write_latents
from facerestore.engine import build_model
from facerestore.engine.cli import train_main
from facerestore.engine.resume import save_network
from facerestore.errors import CheckpointError, OptionError
from facerestore.metrics.base import TRUTH
from facerestore.registry import MODELS
from tests import parity
from tests.engine.runs import DEBUG, QUICK, ROOT, processes, program, weights

STAGE2, STAGE3, INPAINT = (DEBUG / f"codeformer_{name}.yml" for name in ("stage2", "stage3", "inpaint"))
PLAIN = ["train.perceptual_opt=~"]


def model(file: Path, *overrides: str):
    return build_model(load_options(file, [*([] if file == STAGE2 else PLAIN), *overrides]))


def batch(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {k: parity.draw((2, 3, 32, 32), 1, k, -1, 1) for k in ("lq", "lq_large", "gt")} | more


def changed(trained, **step) -> set[str]:
    """The parts of net_g that a step changes."""
    before = {k: v.clone() for k, v in trained.networks["net_g"].named_parameters()}
    trained.step(**step)
    return {k.split(".")[0] for k, v in trained.networks["net_g"].named_parameters() if not torch.equal(v, before[k])}


def test_codes_are_the_vqgans_or_those_of_the_batch():
    found = model(STAGE2)
    codes = found.networks["net_vqgan"](batch()["gt"], code_only=True).codes
    given = model(STAGE2, "datasets.train.latent_gt_path=codes.pth")
    assert "net_vqgan" not in given.networks
    terms = found.step(batch(), 1)
    again = given.step(batch(latent_gt=codes), 1)
    assert terms.keys() == again.keys() == {"l_feat_encoder", "cross_entropy_loss", "code_accuracy"}
    assert all(torch.equal(terms[k], again[k]) for k in terms)


def test_stage_two_decodes_nothing_and_leaves_the_vqgan_alone():
    stage2 = model(STAGE2)
    decoded = []
    for name in ("net_g", "net_vqgan"):
        stage2.networks[name].generator.register_forward_hook(lambda *_: decoded.append(1))
    assert changed(stage2, batch=batch(), it=1) == {"encoder", "position_emb", "feat_emb", "ft_layers", "idx_pred_layer"}
    assert not decoded
    assert not any(p.requires_grad or p.grad is not None for p in stage2.networks["net_vqgan"].parameters())


def test_codes_are_told_with_those_that_the_vqgan_looks_up():
    trained = model(STAGE2, "val.compare_lookup=true")
    given, net, vqgan = batch(), trained.ema["net_g"].eval(), trained.networks["net_vqgan"]
    found = trained.codes(given)
    assert set(found) == {"restored", "lookup", TRUTH} and all(codes.size == 16 for codes in found.values())
    with torch.no_grad():
        assert torch.equal(found["restored"].indices, net(given["lq"]).codes)
        assert torch.equal(found["lookup"].indices, vqgan(given["lq"]).codes)
        assert torch.equal(found[TRUTH].indices, vqgan(given["gt"]).codes)
        assert torch.equal(trained.restorations(given)["lookup"], vqgan(given["lq"]).image)
    assert torch.equal(trained.codes(given, ema=False)["restored"].indices, trained.networks["net_g"](given["lq"]).codes)
    told = trained.codes({"lq": given["lq"], "latent_gt": found["lookup"].indices})
    assert torch.equal(told[TRUTH].indices, found["lookup"].indices)
    assert set(model(STAGE2).codes({"lq": given["lq"]})) == {"restored"}
    assert set(model(STAGE2, "network_g.predictor=none").codes(given)) == {TRUTH}, "its pictures do not come of codes"


def test_looking_up_leaves_what_is_not_masked():
    trained, given = model(INPAINT, "val.compare_lookup=true"), batch(mask=torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    assert torch.equal(trained.restorations(given)["lookup"], given["lq"])


def test_looking_up_without_a_vqgan_is_refused():
    options = load_options(STAGE2, ["val.compare_lookup=true", "datasets.train.latent_gt_path=codes.pth"]).raw
    del options["network_vqgan"]
    with pytest.raises(OptionError, match="`compare_lookup` needs `network_vqgan`"):
        build_model(load_options(options))


def test_the_vqgan_that_tells_codes_has_its_averaged_weights(tmp_path):
    """Stage II's codebook is of the averaged VQGAN: codes of another would mean something else."""
    vqgan = model(STAGE2).networks["net_vqgan"]
    average = {name: value + 1 for name, value in vqgan.state_dict().items()}
    torch.save({"params": vqgan.state_dict(), "params_ema": average}, tmp_path / "net_g.pth")
    named = ["network_g.vqgan_path=random", f"path.pretrain_network_vqgan={tmp_path / 'net_g.pth'}"]
    assert torch.equal(model(STAGE2, *named).networks["net_vqgan"].codebook, average["quantize.embedding.weight"])
    found = model(STAGE2, f"network_g.vqgan_path={tmp_path / 'net_g.pth'}").networks
    assert torch.equal(found["net_g"].codebook, found["net_vqgan"].codebook)


def test_a_vqgan_with_a_codebook_of_another_size_is_refused(tmp_path):
    file = tmp_path / "net_g.pth"
    other = load_options(DEBUG / "codeformer_stage1.yml", ["train.perceptual_opt=~", "network_g.codebook_size=32"])
    torch.save({"params": build_model(other).networks["net_g"].state_dict()}, file)
    with pytest.raises(
        CheckpointError, match=r"net_g.pth: .*codebook_size=32\), .*quantize.embedding.weight is \(32, 8\), not \(16, 8\)"
    ):
        model(STAGE2, f"network_g.vqgan_path={file}")


PARTS = {1: (1.0, "lq"), 2: (1.0, "lq"), 3: (1.3, "lq"), 4: (None, "lq_large"), 5: (None, "lq_large"),
         6: (1.3, "lq"), 7: (None, "lq_large"), 8: (None, "lq_large"), 9: (1.3, "lq")}  # fmt: skip


def test_the_curriculum_of_stage_three():
    stage3 = model(STAGE3)
    seen = []
    g, given = stage3.networks["net_g"], batch()
    g.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args[0], kwargs)), with_kwargs=True)
    for it, (w, which) in PARTS.items():
        seen.clear()
        terms = stage3.step(given, it)
        assert torch.equal(seen[0][0], given[which]) and seen[0][1].get("w") == w, it
        assert ("l_g_pix" in terms) == ("l_g_gan" in terms and "l_d_real" in terms) or it == 1
        assert ("l_g_pix" in terms) == (w is not None)
    turns = stage3.method.turning_points()
    assert (turns["another w"].first, turns["codes alone"].first, turns["codes and pictures"].first) == (3, 4, 6)
    assert turns["pictures between codes"] == (6, 3)


def test_published_curriculum_is_the_default():
    method = MODELS.get("CodeFormerJointModel")(None)
    assert [method.restores(it) for it in (1, 80_000, 80_001, 120_000, 120_001, 120_015)] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert (method.w_early, method.w_late, method.w_late_start_iter) == (1.0, 1.3, 40_000)


def test_w_of_restored_pictures_and_what_a_mask_keeps():
    stage3 = model(STAGE3, "val.fidelity_weight=0.25")
    lq = batch()["lq"]
    found = stage3.restorations({"lq": lq})
    assert list(found) == ["w=0.25", "w=0", "w=0.5"]
    with torch.no_grad():
        assert torch.equal(found["w=0.5"], stage3.ema["net_g"].eval()(lq, w=0.5).image)
        assert torch.equal(found["w=0.25"], stage3.ema["net_g"](lq, w=0.25).image)
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    mask[..., :8] = 255
    kept = stage3.restore({"lq": lq, "mask": mask})
    assert torch.equal(kept[..., 8:], lq[..., 8:]) and not torch.equal(kept[..., :8], lq[..., :8])


@pytest.mark.parametrize(
    ("predictor", "learns"),
    [("cnn", {"encoder", "cnn"}), ("nearest", {"encoder"}), ("none", {"encoder"}), ("transformer", None)],
)
def test_predictors(predictor, learns):
    stage2 = model(STAGE2, f"network_g.predictor={predictor}", "network_g.dim_embd=32")
    found = changed(stage2, batch=batch(), it=1)
    assert learns is None or found == learns
    net, lq = stage2.networks["net_g"], batch()["lq"]
    out = net(lq)
    assert out.logits.shape == (2, 64, 16) and torch.equal(out.codes, out.logits.argmax(2))
    if predictor == "nearest":
        assert torch.equal(out.codes, net.quantize.codes_of(out.feat))
    straight = net.generator(out.feat)
    assert torch.equal(out.image, straight) == (predictor == "none")


def test_without_codes_the_picture_teaches_the_encoder_and_a_free_decoder():
    free = ["network_g.predictor=none", "network_g.fix_modules=[]", "train.fidelity_weight=0", "train.cross_entropy_loss=false",
            "train.use_hq_feat_loss=false"]  # fmt: skip
    assert changed(model(INPAINT, *free), batch=batch(), it=1) == {"encoder", "generator"}
    fixed = ["network_g.predictor=none", "train.fidelity_weight=0", "train.use_adaptive_weight=false"]
    assert changed(model(INPAINT, *fixed), batch=batch(), it=9) == {"encoder"}


REFUSED = [
    (STAGE2, ["network_vqgan.codebook_size=32"], "network_vqgan has a codebook of 32 codes, network_g one of 16"),
    (STAGE2, ["network_g.connect_list=['16', '24']"], "no features of 24 pixels a side to connect, only of 32, 16, 8"),
    (STAGE2, ["val.fidelity_weight=1.5"], "`fidelity_weight` must be a number <= 1.0, not 1.5"),
    (STAGE3, ["val.compared_weights=[0, -1]"], "`compared_weights` must be a number >= 0.0"),
    (STAGE2, ["network_g.predictor=nearest", "network_g.fix_modules=[ft_layers]"], "there is no module 'ft_layers' to fix"),
    (STAGE2, ["network_g.vqgan_path=~"], "VQAutoEncoder is never trained here, so it needs weights"),
    (STAGE2, ["train.cross_entropy_loss=false", "train.use_hq_feat_loss=false"], "nothing is minimised"),
    (STAGE3, ["train.cross_entropy_loss=false", "train.use_hq_feat_loss=false"], "nothing is minimised where codes"),
    (INPAINT, ["train.fidelity_weight=0"], "is 0, and with a fixed decoder nothing learns from the restored picture"),
    (INPAINT, ["network_g.connect_list=[]"], "is empty, and with a fixed decoder nothing learns"),
    (INPAINT, ["network_g.predictor=none", "train.fidelity_weight=0"], "the last layer is fixed"),
    (STAGE3, ["network_d=~"], "network_d"),
]


@pytest.mark.parametrize(("file", "overrides", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_does_not_go_together_is_told_when_options_are_read(file, overrides, message):
    with pytest.raises(OptionError, match=message):
        load_options(file, overrides)


def test_stage_two_without_vqgan_or_codes_is_refused():
    options = load_options(STAGE2).raw
    del options["network_vqgan"]
    with pytest.raises(OptionError, match="CodeFormerIdxModel needs `network_vqgan`"):
        load_options(options)


NAMES = [f"{i:06d}" for i in range(8)]


@pytest.mark.parametrize(
    ("names", "shape", "largest", "message"),
    [
        (NAMES, 64, 16, "has a code 16, but network_g has a codebook of 16: they are another VQGAN's"),
        (NAMES, 16, 15, "has 16 codes a picture, but network_g predicts 64"),
        (["a", "b"], 64, 15, "000000"),
    ],
)
def test_codes_of_another_data_set_or_vqgan_end_the_training(names, shape, largest, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    codes = {name: torch.full((shape,), largest) for name in names}
    write_latents("codes.pth", codes, codes)
    assert train_main(["-opt", str(STAGE2), *QUICK, "--set", "datasets.train.latent_gt_path=codes.pth"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("error: ") == 1 and "Traceback" not in err


def test_pictures_of_another_size_end_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrong = ["--set", "datasets.train.io_backend.size=40"]
    assert train_main(["-opt", str(STAGE2), *QUICK, *wrong]) == 2
    assert "is 40x40, but this data set's pictures are 32x32" in capsys.readouterr().err


def test_the_papers_stages_measure_pictures_alike(monkeypatch):
    monkeypatch.chdir(ROOT)
    first, third = (load_options(f"options/codeformer_stage{n}_paper.yml").method["perceptual_opt"] for n in (1, 3))
    doubled = {"use_input_norm", "range_norm"}
    assert not any(section.get(key) for section in (first, third) for key in doubled)


def test_what_weights_do_not_show_is_what_their_file_says(tmp_path):
    trained = model(STAGE2)
    save_network(tmp_path / "g.pth", trained, "net_g", {})
    same = ["network_g.vqgan_path=random", f"path.pretrain_network_g={tmp_path}/g.pth"]
    model(STAGE2, *same)
    with pytest.raises(CheckpointError, match=r"g\.pth: these weights were trained with `n_head: 2`, and the options say 4"):
        model(STAGE2, *same, "network_g.n_head=4")


UPSTREAM = ["use_adaptive_weight", "net_g_start_iter", "net_d_iters", "net_d_start_iter"]


def test_keys_of_published_stage_two_files_that_mean_nothing_are_named():
    options = load_options(
        STAGE2, [f"train.{key}=1" if key != "use_adaptive_weight" else f"train.{key}=true" for key in UPSTREAM]
    )
    assert all(any(f"`train.{key}` is not read" in note for note in options.notes) for key in UPSTREAM)
    assert "`network_vqgan` has the weights of `network_g.vqgan_path`" in options.notes


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_two_processes(stage, tmp_path):
    """Stage II, whose loss is a mean over samples, ends with the weights of one process with the whole batch.

    By plain gradient descent: group norms of one channel each leave biases before them a gradient of rounding alone, of which
    Adam makes whole steps.
    """
    descent = "train.optim_g={type: SGD, lr: 1e-2}"
    file, short = DEBUG / f"codeformer_{stage}.yml", ["--set", "train.total_iter=4", descent, *QUICK]
    both = processes(2, "-opt", file, *short, "--set", "datasets.train.batch_size_per_gpu=2", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    folder = tmp_path / "experiments" / f"debug_codeformer_{stage}"
    if stage == "stage2":
        found = weights(folder, 4)["params"]
        one = program("train.py", "-opt", file, *short, cwd=tmp_path)
        assert one.returncode == 0, one.stderr
        expected = weights(folder, 4)["params"]
        assert all(torch.allclose(found[k], expected[k], atol=1e-6) for k in expected)
