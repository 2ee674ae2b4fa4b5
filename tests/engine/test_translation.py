"""Translations: measured, drawn, and used from a file; a training's checkpoint, and what the scripts say of what is wrong."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import resource
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerestore.archs import build_network
from facerestore.checkpoint import load_weights, read_checkpoint
from facerestore.data.image_io import read_image, write_image
from facerestore.engine.cli import test_main as run_test
from facerestore.engine.cli import train_main
from facerestore.engine.scores import DatasetScores
from facerestore.engine.translation import means_of_ways, sample_figures
from facerestore.errors import CheckpointError, DataError, UserError
from facerestore.inference.translator import Translator, mosaic, write_video
from facerestore.metrics.base import PictureMetric
from tests import parity
from tests.engine.runs import DEBUG, same, weights

script = importlib.import_module("scripts.translate")

SHORT = ["--set", "train.total_iter=2", "--set", "val.val_freq=~", "--set", "logger.use_tb_logger=false"]
PICTURES = {"img_size": 32, "base_dim": 8, "max_conv_dim": 16}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder in which a training and a test were run."""
    folder = tmp_path_factory.mktemp("translation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train_main(["-opt", str(DEBUG / "stargan2.yml"), *SHORT, "--set", "name=run"]) == 0
        models = [f"--set=path.pretrain_network_{n}=experiments/run/models/nets_ema_latest.pth"
                  for n in ("g", "mapping", "style_encoder")]  # fmt: skip
        metrics = ["--set=val.metrics.fid={type: calculate_fid, weights: random}", "--set=datasets.val.count_real=3",
                   "--set=val.metrics.agreement={type: calculate_domain_agreement, batches: 3}",
                   "--set=val.metrics.layout={type: calculate_layout}"]  # fmt: skip
        options = ["-opt", str(DEBUG / "stargan2.yml"), *models, *metrics, "--set=val.video_frames=2", "--set=name=run"]
        assert run_test(options) == 0
    return folder


def test_one_file_holds_all_averages(trained):
    file = read_checkpoint(trained / "experiments/run/models/nets_ema_latest.pth")
    assert file.states.keys() == {"generator", "mapping_network", "style_encoder"}
    own = weights(trained / "experiments/run", 2)["params_ema"]
    assert all(torch.equal(own[k], file.states["generator"][k]) for k in own)


def test_logs_say_who_has_which_number_and_what_begins(trained):
    training = (trained / "experiments/run/train_run.log").read_text()
    assert "domains: 0 = feminine (8 pictures), 1 = masculine (8)\n" in training
    assert "faces: 16 pictures, batches of 4" in training and "`train.ds_iter`" in training
    test = (trained / "results/run/test_run.log").read_text().splitlines()
    said = [line.split("INFO: ")[-1] for line in test]
    steps = [
        "held_out, domains: 0 = feminine (2 pictures), 1 = masculine (2)",
        "held_out: reading 6 real pictures, to know the domains by",
        "held_out: agreement: a classifier learns the domains from 6 real pictures",
        "held_out: fid: looking at 3 real pictures of feminine",
        "held_out: translating 2 pictures to feminine, x 2 by latent codes and references",
        "held_out: drawing grids and videos to feminine",
        "held_out: translating 2 pictures to masculine, x 2 by latent codes and references",
    ]
    assert [said.index(step) for step in steps] == sorted(said.index(step) for step in steps)
    assert not any("`train." in line for line in said)  # what a training's reader should know


def test_a_report_without_figures_has_no_table():
    timed = DatasetScores("faces", {"a": {"all": {}}}, seconds=0.5, own=["translations"])
    assert not any(timed.section().means.values()) and timed.section().note == "translations: 0.5000 s a picture"
    measured = DatasetScores("faces", {"a": {"all": {"lpips": 0.1}}}, seconds=0.5, own=["translations"])
    assert measured.section().means == {"all": {"lpips": 0.1}, "translations": {"seconds": 0.5}}


def test_a_test_measures_all_pairs_of_domains(trained):
    scores = json.loads((trained / "results/run/scores.json").read_text())["datasets"]["held_out"]
    labels = [f"{a} to {b}, {way}" for a, b in (("feminine", "masculine"), ("masculine", "feminine"))
              for way in ("latent", "reference")]  # fmt: skip
    assert scores["mean"].keys() == {*labels, "all, latent", "all, reference", "real pictures"}
    for label in labels:
        figures = scores["mean"][label]
        assert {"fid", "lpips"} <= figures.keys() and all(math.isfinite(v) for v in figures.values()), label
    assert len(scores["pictures"]) == 4  # every source into the other domain
    pair = [scores["mean"][f"{a}, latent"]["fid"] for a in ("feminine to masculine", "masculine to feminine")]
    assert scores["mean"]["all, latent"]["fid"] == pytest.approx(np.mean(pair))
    assert (trained / "results/run/report.html").stat().st_size > 10_000
    assert all(0 <= scores["mean"][label]["agreement"] <= 1 for label in labels)
    assert all(-1 <= scores["mean"][label]["layout"] <= 1 for label in labels)
    assert scores["mean"]["real pictures"].keys() == {"agreement", "layout"}
    assert 0 <= scores["mean"]["real pictures"]["agreement"] <= 1


def test_a_test_draws_grids_and_videos(trained):
    folder = trained / "results/run/visualization/held_out"
    names = {f"{way}_{a}_to_{b}_run.{kind}" for way in ("latent", "reference") for kind in ("png", "mp4")
             for a, b in (("feminine", "masculine"), ("masculine", "feminine"))}  # fmt: skip
    assert {p.name for p in folder.iterdir()} == names
    assert read_image(folder / "reference_feminine_to_masculine_run.png").shape == (96, 96, 3)
    assert read_image(folder / "latent_feminine_to_masculine_run.png").shape == (96, 64, 3)
    video = cv2.VideoCapture(str(folder / "reference_feminine_to_masculine_run.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FRAME_WIDTH)) == (5, 64)


@pytest.mark.slow
def test_a_resume_changes_nothing(trained, monkeypatch):
    monkeypatch.chdir(trained)
    common = ["-opt", str(DEBUG / "stargan2.yml"), "--set=val.val_freq=~", "--set=logger.use_tb_logger=false",
              "--set=logger.save_checkpoint_freq=2", "--set=val.report=false"]  # fmt: skip
    assert train_main([*common, "--set=name=whole", "--set=train.total_iter=8"]) == 0  # past the end of the diversity
    assert train_main([*common, "--set=name=halves", "--set=train.total_iter=4"]) == 0
    assert train_main([*common, "--set=name=halves", "--set=train.total_iter=8", "--auto_resume"]) == 0
    for net in ("net_g", "net_mapping", "net_style_encoder", "net_d"):
        assert same(*(weights(trained / "experiments" / name, 8, net) for name in ("whole", "halves")))


def tree(folder: Path, **domains: int) -> str:
    """A folder with so many pictures of each domain, as an option names it."""
    for domain, count in domains.items():
        (folder / domain).mkdir(parents=True)
        for i in range(count):
            write_image(folder / domain / f"{i}.png", np.full((40, 40, 3), 40 * i, np.uint8))
    return f"datasets.train={{type: DomainFolderDataset, dataroot: {folder}, img_size: 32, latent_dim: 4}}"


THREE = [f"network_{name}.num_domains=3" for name in ("mapping", "style_encoder", "d")]
NETS = "experiments/run/models/nets_ema_latest.pth"


@pytest.mark.parametrize(
    ("domains", "overrides", "said"),
    [
        ({"female": 2}, [], "one domain only (female)"),
        ({"female": 2, "male": 0}, [], "holds no picture"),
        ({"a": 1, "b": 1, "c": 1}, [], "has 3 domains (a, b, c), but the networks are built for 2"),
        ({"a": 1, "b": 1, "c": 1}, [], "--set " + " ".join(THREE)),
        ({"a": 1, "b": 1}, ["network_g.w_hpf=1"], "it needs network_fan"),
        ({"a": 1, "b": 1}, ["network_g.w_hpf=1", "network_fan={type: FAN}"], "needs weights"),
        ({"a": 1, "b": 1, "c": 1}, [*THREE, f"path.pretrain_network_mapping={NETS}"], "num_domains=2"),
        ({"a": 1, "b": 1}, ["path.pretrain_network_mapping=none.ckpt"], "none.ckpt"),
    ],
)
def test_bad_input_is_told_in_a_sentence(trained, tmp_path, monkeypatch, capsys, domains, overrides, said):
    monkeypatch.chdir(trained)
    changes = [tree(tmp_path / "faces", **domains), *overrides, "name=bad"]
    assert train_main(["-opt", str(DEBUG / "stargan2.yml"), *SHORT, *(w for c in changes for w in ("--set", c))]) == 2
    err = capsys.readouterr().err
    assert said in err and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert not (trained / "experiments/bad").exists()


def test_a_batch_of_one_trains(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    changes = [tree(tmp_path / "faces", a=1, b=2), "datasets.train.batch_size_per_gpu=1", "name=one"]
    assert train_main(["-opt", str(DEBUG / "stargan2.yml"), *SHORT, *(w for c in changes for w in ("--set", c))]) == 0


def test_metrics_of_translations_need_domains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = ["--set=network_g.weights=random", "--set=val.metrics={agreement: {type: calculate_domain_agreement}}"]
    assert run_test(["-opt", str(DEBUG / "sr.yml"), *overrides]) == 2
    assert (
        "agreement measures translations between domains, of which SyntheticFaceDataset knows none" in capsys.readouterr().err
    )


class Apart(PictureMetric):
    """Mean difference."""

    def forward(self, image, target=None):
        return (image - target).abs().flatten(1).mean(1).double()

    def protocol(self):
        return {}


def test_diversity_is_the_mean_over_all_pairs():
    samples = torch.tensor([0.0, 0.1, 0.4])[:, None, None, None].expand(3, 3, 4, 4)
    functional = {"apart": lambda a, b: (a - b).abs().mean()}
    for metrics in ({"apart": Apart()}, functional):
        assert sample_figures(metrics, samples, samples[0], 0)["apart"] == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert sample_figures({"apart": Apart()}, samples[:1], samples[0], 0) == {}
    means = {"a to b, latent": {"fid": 1.0}, "b to a, latent": {"fid": 2.0}, "a to b, reference": {"fid": 5.0}}
    assert means_of_ways(means) == {"all, latent": {"fid": 1.5}, "all, reference": {"fid": 5.0}}


def networks(w_hpf: float = 0, domains: int = 2) -> dict[str, torch.nn.Module]:
    said = {
        "generator": {"type": "StarGANv2Generator", **PICTURES, "style_dim": 8, "w_hpf": w_hpf},
        "mapping_network": {"type": "StarGANv2MappingNetwork", "latent_dim": 4, "hidden_dim": 16, "style_dim": 8},
        "style_encoder": {"type": "StarGANv2StyleEncoder", **PICTURES, "style_dim": 8},
        "fan": {"type": "FAN", "num_features": 8},
    }
    for name in ("mapping_network", "style_encoder"):
        said[name]["num_domains"] = domains
    return {name: parity.fill_(build_network(options), seed) for seed, (name, options) in enumerate(said.items())}


def parts_of(nets: dict[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    return {"generator": nets["generator"], "mapping": nets["mapping_network"], "style_encoder": nets["style_encoder"]}


def published(path: Path, *left_out: str, w_hpf: float = 0) -> Path:
    """A file as the published ones are: parts side by side, each with DataParallel's prefixes."""
    content = {n: {f"module.{k}": v for k, v in net.state_dict().items()} for n, net in networks(w_hpf).items()}
    torch.save({name: state for name, state in content.items() if name not in left_out}, path)
    return path


def test_a_published_file_is_enough(tmp_path):
    translator = Translator.from_file(published(tmp_path / "nets_ema.ckpt", w_hpf=1))
    parts, x = networks(w_hpf=1), parity.draw((2, 3, 32, 32), 5, low=-1, high=1)
    assert translator.num_domains == 2 and translator.img_size == 32 and not translator.fan.training
    styles = translator.styles_of_references(x, 1)
    y = torch.tensor([1, 1])
    for network in parts.values():
        network.eval()
    with torch.no_grad():
        expected = parts["style_encoder"](x, y).embedding
        image = parts["generator"](x, expected, parts["fan"].get_heatmap(x)).image
        by_latent = parts["mapping_network"](torch.ones(2, 4), y).embedding
    torch.testing.assert_close(styles, expected)
    torch.testing.assert_close(translator.styles_of_latents(torch.ones(2, 4), 1), by_latent)
    torch.testing.assert_close(translator.translate(x, styles[:, None])[:, 0], image)


@pytest.mark.parametrize(
    ("left_out", "w_hpf", "said"),
    [("style_encoder", 0, "holds no style_encoder"), ("fan", 1, "asks for a FAN, of which it holds no weights")],
)
def test_a_file_that_lacks_a_network_is_refused(tmp_path, left_out, w_hpf, said):
    with pytest.raises(CheckpointError, match=said):
        Translator.from_file(published(tmp_path / "nets_ema.ckpt", left_out, w_hpf=w_hpf))


@pytest.mark.parametrize(
    ("part", "others", "said"),
    [
        ("style_encoder", {"style_dim": 9}, "style_encoder has `style_dim` 9, but its mapping 8"),
        ("generator", {"style_dim": 9}, "generator has `style_dim` 9, but its mapping 8"),
        ("style_encoder", {"num_domains": 3}, "style_encoder has `num_domains` 3, but its mapping 2"),
        ("generator", {}, r"its generator\.\S+ holds values that are no numbers"),
    ],
)
def test_networks_that_do_not_belong_together_are_refused(tmp_path, part, others, said):
    content = torch.load(published(tmp_path / "nets.ckpt"))
    kind = {"generator": "StarGANv2Generator", "style_encoder": "StarGANv2StyleEncoder"}[part]
    no_masks = {"w_hpf": 0} if part == "generator" else {}
    content[part] = build_network({"type": kind, **PICTURES, "style_dim": 8, **no_masks, **others}).state_dict()
    if not others:
        content[part]["from_rgb.bias"][0] = math.nan
    torch.save(content, tmp_path / "mixed.ckpt")
    with pytest.raises(CheckpointError, match=said):
        Translator.from_file(tmp_path / "mixed.ckpt")


def test_a_domain_that_does_not_exist_is_no_other_domain(tmp_path):
    translator = Translator.from_file(published(tmp_path / "nets.ckpt"))
    for domain in (2, -1):
        with pytest.raises(RuntimeError, match="out of bounds"):
            translator.styles_of_latents(torch.ones(1, 4), domain)
        with pytest.raises(RuntimeError, match="out of bounds"):
            translator.styles_of_references(torch.ones(1, 3, 32, 32), domain)


def test_grids_and_the_way_from_style_to_style(tmp_path):
    translator = Translator.from_file(published(tmp_path / "nets_ema.ckpt"))
    sources, references = (parity.draw((n, 3, 32, 32), n, low=-1, high=1) for n in (2, 3))
    styles = translator.styles_of_references(references, 0)
    grid = translator.reference_grid(sources, references, styles)
    assert grid.shape == (4 * 32, 3 * 32, 3) and (grid[:32, :32] == 255).all()
    assert np.array_equal(grid[:32, 32:], mosaic([list(sources)]))
    one = translator.translate(sources[1:], styles[None, 2:])[0, 0]
    assert np.array_equal(grid[96:, 64:], mosaic([[one]]))
    assert np.array_equal(translator.style_grid(sources, styles)[32:], grid[32:, 32:])
    frames = list(translator.interpolation(sources, styles, 3))
    assert len(frames) == 7 and not any(np.array_equal(*pair) for pair in itertools.pairwise(frames))  # it never stands still
    assert np.array_equal(frames[-1][32:, 32:], mosaic([[one]]))


def test_a_generator_keeps_of_its_sources_what_the_options_say():
    own, other = (build_network({"type": "StarGANv2Generator", **PICTURES, "w_hpf": w}) for w in (1, 0.25))
    with pytest.raises(CheckpointError, match=r"with `w_hpf: 1`, and 0\.25 is asked"):
        load_weights(other, own.state_dict())
    load_weights(own, own.state_dict())


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    def broken():
        yield np.zeros((32, 32, 3), np.uint8)
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        write_video(tmp_path / "a.mp4", broken())
    with pytest.raises(DataError, match="one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(DataError, match=r"end with \.mp4"):
        write_video(tmp_path / "a.avi", [np.zeros((32, 32, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file/a.mp4", "a" * 250 + ".mp4"])
def test_a_video_that_cannot_be_written_is_told(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="writ"):
        write_video(tmp_path / name, [np.zeros((32, 32, 3), np.uint8)])


def test_a_full_disk_leaves_the_old_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    write_video(tmp_path / "a.mp4", frames[:3])
    old = (tmp_path / "a.mp4").read_bytes()
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        with pytest.raises(UserError, match="is it full"):
            write_video(tmp_path / "a.mp4", frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == old


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "nets.ckpt")
    for domain in ("a", "b"):
        for i in range(2):
            picture = parity.draw((40, 50, 3), i, domain, 0, 255).numpy().astype(np.uint8)
            write_image(tmp_path / domain / f"{i}.png", picture)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["picture", "nets.ckpt", "a/0.png", "--reference", "b/1.png"], (32, 32, 3)),
        (["picture", "nets.ckpt", "a/0.png"], (32, 32, 3)),
        (["grid", "nets.ckpt", "a", "b"], (96, 96, 3)),
        (["latents", "nets.ckpt", "a", "--count", "3"], (128, 64, 3)),
    ],
)
def test_the_script_translates(here, arguments, shape, capsys):
    assert script.main([*arguments, "--domain", "1", "--output", "out.png"]) == 0
    assert capsys.readouterr().out == "out.png\n"
    assert read_image("out.png").shape == shape


def test_the_script_makes_videos(here):
    assert script.main(["video", "nets.ckpt", "a", "b", "--domain", "0", "--output", "out.mp4", "--frames", "4"]) == 0
    assert cv2.VideoCapture("out.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_the_script_refuses_an_output_before_it_works(here, monkeypatch, capsys):
    monkeypatch.setattr(script, "read_image", lambda file: pytest.fail("it works"))
    for output in ("a/0.png/deeper/out.png", "/proc/out.png"):
        assert script.main(["grid", "nets.ckpt", "a", "b", "--domain", "1", "--output", output]) == 2
        assert f"{output}: cannot be written: " in capsys.readouterr().err


def test_the_script_takes_pictures_of_one_name(here):
    (here / "a/0.jpg").write_bytes((here / "a/0.png").read_bytes())
    (here / "a/deeper").mkdir()
    (here / "a/deeper/0.png").write_bytes((here / "a/0.png").read_bytes())
    assert script.main(["latents", "nets.ckpt", "a", "--domain", "1", "--count", "2", "--output", "new/out.png"]) == 0
    assert read_image("new/out.png").shape == (3 * 32, 4 * 32, 3)


def test_a_domain_goes_by_its_name(trained, tmp_path, capsys):
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    nets, made = str(trained / NETS), []
    for domain in ("masculine", "1", "feminine"):
        out = tmp_path / f"{domain}.png"
        assert script.main(["latents", nets, str(tmp_path / "a.png"), "--domain", domain, "--output", str(out)]) == 0
        made.append(read_image(out))
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    assert script.main(["latents", nets, str(tmp_path / "a.png"), "--domain", "cats", "--output", str(tmp_path / "b.png")]) == 2
    assert "there is no domain cats, only 0 to 1: 0 = feminine, 1 = masculine" in capsys.readouterr().err


def test_a_name_of_digits_goes_before_a_number():
    named = Translator(**parts_of(networks()), domains=["1", "0"])
    assert [named.number_of(domain) for domain in ("0", "1")] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grid", "nets.ckpt", "a", "b", "--domain", "2"], "there is no domain 2, only 0 to 1\n"),
        (["grid", "nets.ckpt", "a", "b", "--domain", "dogs"], "there is no domain dogs, only 0 to 1\n"),
        (["grid", "none.ckpt", "a", "b", "--domain", "1"], "none.ckpt: this file does not exist"),
        (["grid", "nets.ckpt", "a", "none", "--domain", "1"], "none: no such picture or folder"),
        (["grid", "nets.ckpt", "none", "b", "--domain", "1"], "none: no such picture or folder"),
        (["grid", "nets.ckpt", "empty", "b", "--domain", "1"], "folder empty holds no picture"),
        (["grid", "nets.ckpt", "a/0.png", "b", "--domain", "1", "--output", "a/0.png/out.png"], "Not a directory"),
        (["grid", "nets.ckpt", "a/0.png", "b", "--domain", "1", "--output", "a"], "a: cannot be written: it is a folder"),
        (["grid", "g.pth", "a", "b", "--domain", "1"], "(a training leaves models/nets_ema_latest.pth)"),
        (["video", "nets.ckpt", "a", "b", "--domain", "1"], "a video's name ends with .mp4"),
        (["video", "nets.ckpt", "a", "b/0.png", "--domain", "1", "--output", "out.mp4"], "two or more"),
        (["grid", "nets.ckpt", "a", "", "--domain", "1"], "'': no such picture or folder"),
        (["picture", "nets.ckpt", "a/0.png", "--domain", "1", "--reference", ""], "'': no such picture or folder"),
        (["picture", "nets.ckpt", "a/0.png", "--domain", "1", "--reference", "b"], "b: a folder, but one picture"),
        (["picture", "nets.ckpt", "a/0.png", "--domain", "1", "--fan", "wing.ckpt"], "no place for the FAN of wing.ckpt"),
    ],
)
def test_the_script_says_what_is_wrong(here, arguments, said, capsys):
    (here / "empty").mkdir()
    published(here / "g.pth", "mapping_network")
    assert script.main([*arguments[:2], "--output", "out.png", *arguments[2:]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("translate.py: ") and said in err and err.count("\n") == 1
    assert not (here / "out.png").exists()
