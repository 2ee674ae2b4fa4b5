"""Options are refused in one sentence that names the file, the line, the key's path and the nearest right name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from facerestore.config import load_options
from facerestore.config.schema import Warned
from facerestore.config.tree import from_file, to_yaml
from facerestore.errors import OptionError

GOOD = """\
name: run
model_type: SRModel
scale: 4
datasets:
  train:
    type: SyntheticFaceDataset
    count: 4
    size: 32
    batch_size_per_gpu: 2
network_g:
  type: MSRResNet
  num_feat: 8
  num_block: 1
train:
  total_iter: 10
  optim_g:
    type: Adam
    lr: 1e-4
  pixel_opt:
    type: L1Loss
"""


def written(folder: Path, text: str, name: str = "run.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(OptionError) as caught:
        load_options(written(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_good_options_load(tmp_path):
    options = load_options(written(tmp_path, GOOD))
    assert options.train.optimizers["optim_g"].lr == 1e-4
    assert options.datasets["train"].component == {"type": "SyntheticFaceDataset", "count": 4, "size": 32}
    assert options.train.method == {"pixel_opt": {"type": "L1Loss"}}


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "+1e-4", "0.0001", "!!float 1e-4", ".1e-3"])
def test_exponents_are_numbers(tmp_path, number):
    assert load_options(written(tmp_path, GOOD.replace("1e-4", number))).train.optimizers["optim_g"].lr == 1e-4


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "hint"),
    [
        ("num_feat: 8", "num_feet: 8", 12, "network_g.num_feet", "'num_feat'"),
        ("num_feat: 8", "num_feat: many", 12, "network_g.num_feat", "number"),
        ("type: MSRResNet", "type: MSRResnet", 11, "network_g.type", "'MSRResNet'"),
        ("type: L1Loss", "type: L1", 20, "train.pixel_opt.type", "L1Loss"),
        ("type: L1Loss", "type: L1Loss\n    loss_wait: 2", 21, "train.pixel_opt.loss_wait", "'loss_weight'"),
        ("total_iter: 10", "total_iters: 10", 15, "train.total_iters", "total_iter"),
        ("total_iter: 10", "total_iter: 0", 15, "train.total_iter", ">= 1"),
        ("total_iter: 10", "total_iter: .nan", 15, "train.total_iter", "finite"),
        ("lr: 1e-4", "lr: fast", 18, "train.optim_g.lr", "number"),
        ("lr: 1e-4", "lr: -1", 18, "train.optim_g.lr", ">= 0"),
        ("lr: 1e-4", "lr: 1e-4\n    beta: [0, 1]", 19, "train.optim_g.beta", "betas"),
        ("type: Adam", "type: Adams", 17, "train.optim_g.type", "'Adam"),
        ("optim_g:", "optim_q:", 16, "train.optim_q", "'optim_g'"),
        ("model_type: SRModel", "model_type: SRModle", 2, "model_type", "'SRModel'"),
        ("model_type: SRModel", "model_typ: SRModel", 2, "model_typ", "'model_type'"),
        ("network_g:", "network_q:", 10, "network_q", "'network_g'"),
        ("count: 4", "cuont: 4", 7, "datasets.train.cuont", "'count'"),
        ("batch_size_per_gpu: 2", "batch_size_per_gpu: none", 9, "datasets.train.batch_size_per_gpu", "number"),
        ("scale: 4", "scale: 4\nscale: 4", 4, "scale", "twice"),
        ("  total_iter: 10", "\ttotal_iter: 10", 15, "", "not YAML"),
        ("name: run", "name: ../run", 1, "name", "slash"),
        ("name: run", 'name: !!python/object/apply:os.system ["x"]', 1, "", "not YAML"),
    ],
)
def test_refusals_name_line_path_and_the_right_name(tmp_path, old, new, line, path, hint):
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    assert f"run.yml:{line}" in message
    assert path in message
    assert hint in message


def test_a_missing_key_says_what_it_is_for(tmp_path):
    assert "`total_iter`: iterations in all" in refusal(tmp_path, GOOD.replace("  total_iter: 10\n", ""))
    assert "the optimizer of net_g" in refusal(tmp_path, GOOD[: GOOD.index("  optim_g")] + "  pixel_opt: {type: L1Loss}\n")
    assert "needs `network_d`: the discriminator" in refusal(tmp_path, GOOD.replace("SRModel", "SRGANModel"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "42\n", "null\n", "a: [1, 2\n", '"abc\n', "\x01\x02"])
def test_what_holds_no_options_is_refused(tmp_path, text):
    assert "run.yml" in refusal(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"nowhere\.yml: the option file does not exist"):
        load_options(tmp_path / "nowhere.yml")


def test_aliases_that_multiply_are_refused(tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    assert "too large" in refusal(tmp_path, bomb + GOOD)


def test_overrides(tmp_path):
    path = written(tmp_path, GOOD)
    options = load_options(path, ["train.optim_g.lr=2e-4", "train:total_iter=7", "val.metrics={}"])
    assert (options.train.optimizers["optim_g"].lr, options.train.total_iter) == (2e-4, 7)
    assert "--set train.totl_iter=7" in refusal(tmp_path, GOOD, "train.totl_iter=7")
    assert "section.key=value" in refusal(tmp_path, GOOD, "train.total_iter")


def test_base_files_merge_deeply(tmp_path):
    written(tmp_path, GOOD, "below.yml")
    above = written(tmp_path, "base: below.yml\nname: other\ntrain:\n  optim_g:\n    lr: 1e-3\n", "above.yml")
    options = load_options(above)
    assert (options.name, options.train.total_iter) == ("other", 10)
    assert options.train.optimizers["optim_g"].lr == 1e-3
    written(tmp_path, "base: below.yml\ntrain:\n  pixel_opt: {type: L1los}\n", "above.yml")
    with pytest.raises(OptionError, match=r"above\.yml:3: train\.pixel_opt\.type"):
        load_options(above)
    written(tmp_path, GOOD.replace("num_feat: 8", "num_feet: 8"), "below.yml")
    written(tmp_path, "base: below.yml\nname: other\n", "above.yml")
    with pytest.raises(OptionError, match=r"below\.yml:12: network_g\.num_feet"):
        load_options(above)


def test_betas_that_are_whole_numbers_are_numbers_to_torch(tmp_path):
    from facerestore.engine import build_model

    model = build_model(load_options(written(tmp_path, GOOD.replace("lr: 1e-4", "lr: 1e-4\n    betas: [0, 0.99]"))))
    betas = model.optimizers["optim_g"].param_groups[0]["betas"]
    assert betas == (0.0, 0.99) and all(isinstance(beta, float) for beta in betas)


def test_base_in_a_circle_and_nowhere(tmp_path):
    written(tmp_path, "base: b.yml\n", "a.yml")
    written(tmp_path, "base: a.yml\n", "b.yml")
    with pytest.raises(OptionError, match="in turn"):
        load_options(tmp_path / "a.yml")
    written(tmp_path, "base: c.yml\n", "a.yml")
    with pytest.raises(OptionError, match=r"a\.yml:1.*does not exist"):
        load_options(tmp_path / "a.yml")


def test_a_dict_is_as_good_as_a_file():
    with pytest.raises(OptionError, match=r"the options: train\.total_iter: "):
        load_options({"name": "x", "model_type": "SRModel", "network_g": {"type": "MSRResNet"}, "train": {"total_iter": "x"}})


def test_keys_without_meaning_are_named_once_and_do_nothing(tmp_path):
    text = GOOD.replace("batch_size_per_gpu: 2", "batch_size_per_gpu: 2\n    prefetch_mode: ~")
    text += "dist_params: {backend: nccl, port: 29500}\nfind_unused_parameters: true\n"
    notes = load_options(written(tmp_path, text)).notes
    for key in ("datasets.train.prefetch_mode", "dist_params.port", "find_unused_parameters"):
        assert sum(f"`{key}`" in note for note in notes) == 1


def test_a_frozen_or_short_network_is_told_before_building(tmp_path):
    text = GOOD.replace("type: MSRResNet", "type: VGGStyleDiscriminator\n  num_in_ch: 3").replace("  num_block: 1\n", "")
    assert "network_g.type: SRModel needs `image` of its network_g, which VGGStyleDiscriminator does not offer" in refusal(
        tmp_path, text
    )


@pytest.mark.parametrize(
    ("network", "taken"),
    [
        ("{type: StarGANv2Generator, img_size: 32}", "`picture`, `style`"),
        ("{type: StyleGAN2Generator, out_size: 32, narrow: 0.0625}", "`code`"),
        ("{type: StyleGAN2GeneratorSFT, out_size: 32, narrow: 0.0625}", "`code`, `conditions`"),
    ],
)
def test_a_network_that_takes_more_than_a_picture_is_refused(tmp_path, network, taken):
    kind = network[1:].replace(",", "").split()[1]
    message = refusal(tmp_path, GOOD, "scale=1", f"network_g={network}")
    assert f"network_g.type: SRModel gives its network_g `picture`, but {kind} takes {taken}" in message


def test_a_schedule_that_ends_early_is_noted(tmp_path):
    text = GOOD + "  scheduler: {type: CosineAnnealingRestartLR, periods: [4], restart_weights: [1]}\n"
    assert any("ends at iteration 4" in note for note in load_options(written(tmp_path, text)).notes)
    uneven = text.replace("restart_weights: [1]", "restart_weights: [1, 2]")
    assert "give one for each" in refusal(tmp_path, uneven)


def test_a_copy_must_be_of_a_network_that_is_alike(tmp_path):
    text = GOOD.replace("SRModel", "SRGANComparisonModel").replace(
        "train:\n  total", "network_srresnet: {type: MSRResNet, num_feat: 9, weights: network_g}\ntrain:\n  total"
    )
    assert "differ in their keywords" in refusal(tmp_path, text)
    assert "no other network" in refusal(tmp_path, text.replace("weights: network_g", "weights: network_x"))


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.pixel_opt={type: GANLoss}", "a pixel loss is one of CharbonnierLoss, L1Loss, MSELoss"),
        ("train.pixel_opt={type: L1Loss, reduction: none}", "mean or sum"),
        ("train.pixel_opt=~", "nothing to minimise: give `pixel_opt` or `perceptual_opt`"),
        ("network_g.upscale=2", "MSRResNet enlarges 2 times, but `scale` of this file is 4"),
        ("network_g.num_feat=1000000000", "must be a whole number <= 16384"),
        ("network_g.num_in_ch=1e30", "number"),
        ("datasets.train.gt_size=30", "must be a multiple of the scale"),
        ("datasets.train.mean=[.nan, 0, 0]", "finite"),
        ("datasets.tran={type: SyntheticFaceDataset, count: 1}", "'train'"),
        ("datasets.val={type: SyntheticFaceDataset, count: 1, name: ../out}", "cannot be a file's name"),
        ("datasets.train={type: SingleImageDataset, dataroot_lq: x}", "trains on `gt`, which SingleImageDataset does not give"),
        ("val.metrics={method: {type: calculate_psnr}}", "scores.csv has a column of that name"),
        ("val.num_samples=3", "has no option `num_samples`"),
        ("train.optim_g.type=LBFGS", "there is no optimizer 'LBFGS'"),
        ("train.optim_g={type: SGD, lr: 0.1, nesterov: true}", "SGD cannot be built with these keywords"),
        ("train.optim_g={type: Adam, lr: 0.1, foreach: true, fused: true}", "cannot be built with these keywords"),
        ("train={1: 2}", "`train`"),
        ("network_g={1: 2}", "`type`"),
        ("network_g=3", "section"),
        ("train=3", "section"),
        ("datasets.train=~", "section"),
        ("name=' '", "cannot be a file's name"),
        ("manual_seed=-1", ">= 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(tmp_path, override, hint):
    assert hint in refusal(tmp_path, GOOD, override)


def test_data_sets_with_one_name_are_refused(tmp_path):
    both = [
        "datasets.val={type: SyntheticFaceDataset, count: 1, name: a}",
        "datasets.val_2={type: SyntheticFaceDataset, count: 1, name: a}",
    ]
    assert "two data sets are called 'a'" in refusal(tmp_path, GOOD, *both)


def test_copies_of_copies_are_refused(tmp_path):
    text = GOOD.replace("model_type: SRModel", "model_type: SRGANComparisonModel").replace(
        "  num_block: 1\n", "  num_block: 1\n  weights: network_srresnet\n"
    )
    text += "network_srresnet: {type: MSRResNet, num_feat: 8, num_block: 1, weights: network_g}\n"
    assert "is a copy itself" in refusal(tmp_path, text)


@pytest.mark.parametrize("options", [None, 3, [], {1: 2}])
def test_what_are_no_options_at_all(options):
    with pytest.raises(OptionError):
        load_options(options)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.total_iter=1e30", "<= 1000000000"),
        ("network_g.num_block=100000", "<= 512"),
        ("datasets.train.batch_size_per_gpu=1000000000", "<= 65536"),
        ("datasets.train.count=1e30", "<= 1000000000"),
        ("datasets.train.mean=[127.5, 127.5, 127.5]", "<= 1"),
        ("train.ema_decay=1", "< 1"),
        ("train.optim_g.lr=1e30", "<= 100"),
        ("train.optim_g.weight_decay=-1", ">= 0"),
        ("train.pixel_opt.loss_weight=-1", ">= 0"),
        ("val.val_freq=0", ">= 1"),
        ("train.scheduler={type: CosineAnnealingRestartLR, periods: [], restart_weights: []}", "length >= 1"),
    ],
)
def test_numbers_that_are_plainly_a_mistake(tmp_path, override, hint):
    assert hint in refusal(tmp_path, GOOD, override)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "val.val_freq=5e10",
            "`val.val_freq` (iterations from one validation to the next; only after the last by default) is 50000000000",
        ),
        ("logger.print_freq=11", "`logger.print_freq`"),
        ("logger.print_freq=10", None),
        ("train.warmup_iter=10", "`train.warmup_iter`"),
        ("train.warmup_iter=9", None),
        ("train.scheduler={type: MultiStepLR, milestones: [5, 10]}", "milestone 10 never comes"),
        ("train.scheduler={type: MultiStepLR, milestones: [5, 9]}", None),
        (
            "train.scheduler={type: CosineAnnealingRestartLR, periods: [11]}",
            "ends at iteration 11, which the training does not",
        ),
        ("train.scheduler={type: LinearLR, total_iters: 10}", None),
    ],
)
def test_what_the_training_does_not_live_to_see_is_noted(tmp_path, override, told):
    notes = load_options(written(tmp_path, GOOD), [override]).notes
    assert len(notes) == (told is not None)
    assert all(told in note for note in notes)
    assert all("ends with" in note for note in notes)


def test_tiles_need_no_overlap_to_be_said(tmp_path):
    assert load_options(written(tmp_path, GOOD), ["val.tile=64"]).val.tile_overlap is None


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["val.tile_overlap=16"], "val.tile_overlap"),
        (["logger.wandb={resume_id: a}"], "logger.wandb.resume_id"),
        (["train.ema_start_iter=5", "train.ema_decay=0"], "train.ema_start_iter"),
        (["val.metrics={psnr: {type: calculate_psnr}}", "val.keep_best=[psnr]"], "val.keep_best"),
    ],
)
def test_keys_that_mean_nothing_alone_are_noted(tmp_path, overrides, key):
    (note,) = load_options(written(tmp_path, GOOD), overrides).notes
    assert note.startswith(f"`{key}` is not read")


@pytest.mark.parametrize(("end", "warned"), [(4, True), (5, False)])
def test_a_schedule_that_ends_long_before_the_training_is_warned_of(tmp_path, end, warned):
    (note,) = load_options(written(tmp_path, GOOD), [f"train.scheduler={{type: LinearLR, total_iters: {end}}}"]).notes
    assert "the rate stays at its last" in note and isinstance(note, Warned) == warned


def test_a_learning_rate_of_0_is_noted(tmp_path):
    assert load_options(written(tmp_path, GOOD.replace("1e-4", "0"))).notes == (
        "`train.optim_g.lr` is 0: what it steps stays as it is",
    )


def test_a_method_s_own_iterations_are_noted_too():
    options = load_options(Path(__file__).parents[2] / "options/debug/srgan.yml", ["train.net_d_init_iters=10"])
    assert any("`train.net_d_init_iters` (the generator is not updated up to this iteration) is 10" in n for n in options.notes)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        ("1:30", "not '1:30'"),
        ("0x10", "not '0x10'"),
        ("yes", "not 'yes'"),
        ("2024-01-01", "not '2024-01-01'"),
        ("!!int x", "YAML"),
    ],
)
def test_what_only_yaml_1_1_takes_for_a_number_is_none(tmp_path, number, hint):
    assert hint in refusal(tmp_path, GOOD.replace("total_iter: 10", f"total_iter: {number}"))


@pytest.mark.parametrize(("number", "value"), [("010", 10), ("08", 8), ("1_000", 1000), ("!!float 5e3", 5000), ("5e3", 5000)])
def test_numbers_are_what_they_seem(tmp_path, number, value):
    assert load_options(written(tmp_path, GOOD.replace("total_iter: 10", f"total_iter: {number}"))).train.total_iter == value


def test_yes_and_no_are_neither_true_nor_false(tmp_path):
    text = GOOD.replace("count: 4", "count: 4\n    use_hflip: {}")
    assert "must be true or false, not 'no'" in refusal(tmp_path, text.format("no"))
    assert load_options(written(tmp_path, text.format("True"))).datasets["train"].component["use_hflip"] is True
    assert load_options(written(tmp_path, GOOD.replace("name: run", "name: on"))).name == "on"
    assert "(in quotes it is text)" in refusal(tmp_path, GOOD.replace("name: run", "name: 001"))


@pytest.mark.parametrize(
    "value", ["yes", "010", "1e-4", "1:30", "a: b", "# x", "", "~", "é", None, True, 1.0, 1e-7, [1, {"a": "b"}]]
)
def test_yaml_that_is_written_loads_to_the_same(tmp_path, value):
    for inline in (True, False):
        text = f"a: {to_yaml(value, inline=True)}\n" if inline else to_yaml({"a": value})
        assert from_file(written(tmp_path, text)).data == {"a": value}
        assert yaml.safe_load(text) == {"a": value}, "other readers of YAML must understand it too"


def test_set_type_says_what_becomes_of_the_section_s_other_keys(tmp_path):
    message = refusal(tmp_path, GOOD, "network_g.type=SRVGGNetCompact")
    assert "run.yml:13: network_g.num_block: SRVGGNetCompact has no option `num_block`" in message
    assert "keeps the section's other keys: to replace it, --set 'network_g={type: ..., ...}'" in message
    assert "keeps" not in refusal(tmp_path, GOOD, "network_g.type=SRVGGNetCompact", "network_g.num_block=2")
    assert "keeps" not in refusal(tmp_path, GOOD, "network_g={type: SRVGGNetCompact, num_block: 2}")
    options = load_options(written(tmp_path, GOOD), ["train.optim_g.type=AdamW"])
    assert (options.train.optimizers["optim_g"].type, options.train.optimizers["optim_g"].lr) == ("AdamW", 1e-4)


def test_published_keys_that_would_change_the_training_say_what_to_write(tmp_path):
    assert "run.yml:16: train.use_grad_clip" in refusal(
        tmp_path, GOOD.replace("  total_iter: 10\n", "  total_iter: 10\n  use_grad_clip: true\n")
    )
    assert "`pretrain_network_g`" in refusal(tmp_path, GOOD + "path: {pretrain_model_g: x.pth}\n")


def test_path_keys_of_networks_that_the_file_has_not(tmp_path):
    """Published files carry them; one that names a file of weights, or a network that no method has, is a mistake."""
    path = "path: {{pretrain_network_d: {}, strict_load_d: true, param_key_d: params}}\n"
    notes = load_options(written(tmp_path, GOOD + path.format("~"))).notes
    assert [n for n in notes if "has no such network" in n] == list(notes) and len(notes) == 3
    assert "pretrain_network_d" in refusal(tmp_path, GOOD + path.format("net_d.pth"))
    assert "strict_load_q" in refusal(tmp_path, GOOD + "path: {strict_load_q: true}\n")


def test_a_method_that_is_not_here_is_told_before_its_keys(tmp_path):
    assert "run.yml:2: model_type" in refusal(tmp_path, GOOD.replace("SRModel", "RealESRGANModel\nl1_gt_usm: true"))


BASICSR = """\
name: 001_MSRResNet_x4
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/HR
    dataroot_lq: datasets/DIV2K/LR
    meta_info_file: basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt
    filename_tmpl: '{}'
    io_backend: {type: disk}
    gt_size: 128
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
    num_prefetch_queue: 4
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 4}
path: {pretrain_network_g: ~, param_key_g: params_ema, strict_load_g: true, strict_load_d: true, resume_state: ~}
train:
  ema_decay: 0.999
  optim_g: {type: Adam, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: CosineAnnealingRestartLR, periods: [250000, 250000], restart_weights: [1, 1], eta_min: !!float 1e-7}
  total_iter: 500000
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
  manual_seed: 0
val:
  val_freq: !!float 5e10
  save_img: false
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: false, better: higher}
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
find_unused_parameters: true
"""


def test_a_published_file_loads_as_it_is(tmp_path):
    options = load_options(written(tmp_path, BASICSR))
    assert options.logger.save_checkpoint_freq == 5000 and options.train.optimizers["optim_g"].betas == (0.9, 0.99)
    idle = ["find_unused_parameters", "datasets.train.prefetch_mode", "datasets.train.num_prefetch_queue", "dist_params.port",
            "train.manual_seed", "path.strict_load_d"]  # fmt: skip
    assert [note.split("`")[1] for note in options.notes] == [*idle, "val.val_freq"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("name='a\u202eb'", "cannot be a file's name"),
        ("val.suffix='../x'", "val.suffix: 'NAME_../x' cannot be a file's name"),
        ("path.experiments_root=''", "path.experiments_root"),
        ('path.resume_state="a\\0b"', "path.resume_state"),
        ("path.pretrain_network_g=''", "path.pretrain_network_g"),
        ("model_type=GFPGANModel2", "there is no method"),
        ("logger.wandb={projekt: x}", "logger.wandb"),
        ("val.tile=500", "val.tile"),
        ("val.tile=64 val.tile_overlap=40", "val.tile_overlap: is 40: tiles of 64 pixels overlap by at most 32"),
        ("train.ema_decay=0.9 train.ema_half_life_kimg=1", "give one (`ema_decay: ~` takes the other back)"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: {missing: skip}}}", "others.A: needs `folder`"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: {folder: a, missing: go}}}", "A.missing: must be stop or skip"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: {folder: a, mising: skip}}}", "(did you mean 'missing'?)"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: {folder: 3}}}", "must be text, not"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: ''}}", "cannot be a folder's path"),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: 3}}", "must be text or a mapping"),
        ("datasets.val={type: SyntheticFaceDataset, others: {'': a}}", "cannot be what a program is called"),
        ("train.ema_half_life_kimg=1e-9", "must be a number >= 0.001"),
        ("val.metrics={psnr: {type: calculate_psnr}} val.keep_best=[psnr, psnr]", "keep_best: names 'psnr' twice"),
        ("datasets.train.others={A: a}", "datasets.train.others: the training's pictures are not measured"),
        (
            "datasets.val={type: SyntheticFaceDataset, others: {restored: a}}",
            "datasets.val.others.restored: 'restored' is what the report calls",
        ),
        ("datasets.val={type: SyntheticFaceDataset, others: {A: 'a/{}/b'}}", "{} may stand once, in its last part"),
    ],
)
def test_names_and_paths_that_are_none(tmp_path, override, sentence):
    with pytest.raises(OptionError, match=re.escape(sentence)):
        load_options(written(tmp_path, GOOD), re.split(r" (?=val|train)", override))


def test_a_lone_surrogate_is_no_name(tmp_path):
    with pytest.raises(OptionError, match="cannot be a file's name"):
        load_options(from_file(written(tmp_path, GOOD)).data | {"name": chr(0xD800)})


def test_no_other_method_is_suggested_for_a_published_one_that_is_not_here(tmp_path):
    with pytest.raises(OptionError, match="RealESRGANModel is not here"):
        load_options(written(tmp_path, GOOD), ["model_type=RealESRGANModel"])


def test_networks_to_ignore_that_are_not_there_are_noted(tmp_path):
    notes = load_options(written(tmp_path, GOOD), ["path.ignore_resume_networks=[network_identity]"]).notes
    assert any("network_identity" in note for note in notes)


@pytest.mark.parametrize("lookup", [True, False])
def test_codes_of_a_file_keep_the_vqgan_that_a_lookup_needs(lookup):
    changes = ["datasets.train.latent_gt_path=codes.pth", f"val.compare_lookup={str(lookup).lower()}"]
    assert ("network_vqgan" in load_options("options/faces64_codeformer_stage2.yml", changes).networks) == lookup
