"""StarGAN v2's iterations: what they compute and what they leave out, schedules, and what is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from facerestore.archs import build_network
from facerestore.checkpoint import load_weights, read_checkpoint
from facerestore.config import load_options
from facerestore.data import build_dataset
from facerestore.engine import build_model
from facerestore.engine.resume import save_bundle
from facerestore.engine.training import TrainingModel
from facerestore.errors import CheckpointError, DataError, OptionError
from facerestore.inference.translator import Translator
from facerestore.models.base import Terms
from facerestore.models.stargan2 import weigh
from tests import parity
from tests.engine.runs import DEBUG, ROOT


def tiny(**overrides) -> dict:
    """The debug options; keys as `network_g.w_hpf`."""
    options = copy.deepcopy(dict(load_options(DEBUG / "stargan2.yml").raw))
    for path, value in overrides.items():
        *above, last = path.split("__")
        place = options
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return options


def build(**overrides) -> TrainingModel:
    return build_model(load_options(tiny(**overrides)))


def batch(rows: int = 4, sources=None, targets=None, side: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    pictures = {k: torch.rand((rows, 3, side, side), generator=generator) * 2 - 1 for k in ("x_src", "x_ref", "x_ref2")}
    latents = {k: torch.randn((rows, 4), generator=generator) for k in ("z_trg", "z_trg2")}
    mixed = [i % 2 for i in range(rows)]
    return {**pictures, **latents, "y_src": torch.tensor(sources or mixed), "y_ref": torch.tensor(targets or mixed[::-1])}


def passes(model: TrainingModel, it: int) -> tuple[Counter, list[bool], dict[str, set[int]]]:
    """Of an iteration: how often each network is asked, which translations have a graph, and how often the parameters of each
    network are given a gradient."""
    asked, graphs, given = Counter(), [], {}
    for name in ("net_mapping", "net_style_encoder", "net_d"):
        model.networks[name].register_forward_pre_hook(lambda *_, name=name: asked.update([name]))
    g = model.networks["net_g"]
    encoded, decoded = g.encoded, g.decoded

    def counted_encoded(x, masks=None):
        asked["encoded"] += 1
        return encoded(x, masks)

    def counted_decoded(content, s):
        image = decoded(content, s)
        graphs.append(image.requires_grad)
        return image

    g.encoded, g.decoded = counted_encoded, counted_decoded
    counts = {name: Counter() for name in model.networks}
    for name, network in model.networks.items():
        for key, parameter in network.named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, name=name, key=key: counts[name].update([key]))
    model.step(batch(), it)
    for name, count in counts.items():
        given[name] = {count[key] for key, p in model.networks[name].named_parameters() if p.requires_grad}
    return asked, graphs, given


def test_no_pass_is_made_twice():
    asked, graphs, given = passes(build(), 1)
    # The published procedure encodes and decodes 8 times, builds 6 of the graphs, and asks F 3 times; E and D as often.
    assert asked == {"encoded": 4, "net_mapping": 2, "net_style_encoder": 7, "net_d": 6}
    assert graphs == [True, False, False, True, True, False, True]
    # D learns of real and fake pictures in two updates, G in two, F and E in one: nobody's gradients are thrown away.
    assert given == {"net_g": {2}, "net_mapping": {1}, "net_style_encoder": {1}, "net_d": {4}}


def test_without_diversity_there_is_no_second_picture():
    asked, graphs, _ = passes(build(train__ds_iter=6), 7)
    assert asked == {"encoded": 4, "net_mapping": 1, "net_style_encoder": 6, "net_d": 6}
    assert graphs == [True, False, True, True, True]


def test_style_encoder_learns_by_references_where_that_is_asked_for():
    *_, given = passes(build(train__styles_by_reference=True), 1)
    assert given == {"net_g": {2}, "net_mapping": {1}, "net_style_encoder": {2}, "net_d": {4}}


def test_diversity_falls_linearly_to_nothing():
    method = build(train__lambda_ds=2.0, train__ds_iter=4).method
    assert [method.diversity_weight(it) for it in range(1, 7)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    assert [turn.first for turn in method.turning_points().values()] == [5]
    assert build(train__lambda_ds=0.0).method.turning_points() == {}


def test_terms_are_reported_without_their_weights():
    one, other = (build(**{f"train__lambda_{k}": w for k in ("sty", "cyc", "reg", "ds")}) for w in (1.0, 3.0))
    first, second = one.step(batch(), 1), other.step(batch(), 1)
    for name in ("D/latent_reg", "G/latent_sty", "G/latent_ds", "G/latent_cyc"):
        assert first[name] > 0
        torch.testing.assert_close(second[name], first[name], rtol=1e-2, atol=0)


def test_terms_are_minimised_with_their_weights():
    loss, x = Terms(), torch.tensor(2.0, requires_grad=True)
    weigh(loss, "G/latent_ds", -3.0, x.square())
    loss.backward()
    assert x.grad == -12 and loss.log["G/latent_ds"] == 4


def test_every_weight_reaches_its_own_term(monkeypatch):
    seen = {}
    monkeypatch.setattr("facerestore.models.stargan2.weigh", lambda loss, name, weight, term: seen.update({name: weight}))
    model = build(train__lambda_reg=2, train__lambda_sty=3, train__lambda_ds=4, train__lambda_cyc=5, train__ds_iter=2)
    model.step(batch(), 2)
    weights = {"reg": 2, "sty": 3, "ds": -2, "cyc": 5}  # that of the diversity is half of what it was
    assert seen == {
        f"{'D' if term == 'reg' else 'G'}/{way}_{term}": w for term, w in weights.items() for way in ("latent", "ref")
    }


def test_heads_that_were_not_asked_are_moved_by_the_decay_alone():
    """Their gradients are 0, not missing: then Adam moves every weight towards 0, as published."""
    model = build()
    heads = [model.networks[n].unshared[1] for n in ("net_mapping", "net_style_encoder")]
    before = [copy.deepcopy(head) for head in heads]
    model.step(batch(sources=[0] * 4, targets=[0] * 4), 1)
    for old, new in zip(before, heads, strict=True):
        for a, b in zip(old.parameters(), new.parameters(), strict=True):
            if a.dim() == 2:
                assert ((b - a).sign() == -a.sign()).all()


def descending(**overrides) -> TrainingModel:
    """In double precision and by plain gradient descent.  In float32 what rounding leaves is magnified by instance norms of few
    pixels, by a thousand in three iterations, and Adam without momentum makes a step of its sign."""
    parts = ("g", "d", "mapping", "style_encoder")
    model = build(**{f"train__optim_{part}": {"type": "SGD", "lr": 1e-2} for part in parts}, **overrides)
    for network in (*model.networks.values(), *model.ema.values()):
        network.double()
    return model


def doubled(rows: slice = slice(None)) -> dict[str, torch.Tensor]:
    return {k: v[rows].double() if v.is_floating_point() else v[rows] for k, v in batch().items()}


def test_slices_are_the_whole():
    whole, cut = descending(), descending(train__accumulate=2)
    for it in (1, 2, 3):
        one, other = whole.step(doubled(), it), cut.step(doubled(), it)
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-6, atol=1e-7)  # terms are float32
    assert not torch.equal(*(next(m.networks["net_g"].parameters()) for m in (whole, descending())))
    for name, network in whole.networks.items():
        torch.testing.assert_close(cut.networks[name].state_dict(), network.state_dict(), rtol=0, atol=1e-12)


ON_TWO = """
import sys
import torch
from facerestore.engine import distributed
from tests.models.test_stargan2 import batch, build, descending, doubled
folder, double, accumulate = sys.argv[1], sys.argv[2] == "double", int(sys.argv[3])
world = distributed.start(num_gpu=0)
model = descending(train__accumulate=accumulate) if double else build(train__precision="bf16", train__accumulate=accumulate)
model.world = world
rows = slice(2 * world.rank, 2 * world.rank + 2) if world.size > 1 else slice(None)
for it in (1, 2, 3):
    model.step(doubled(rows) if double else {k: v[rows] for k, v in batch().items()}, it)
networks = {n: net.state_dict() for n, net in model.networks.items()}
networks |= {f"ema_{n}": net.state_dict() for n, net in model.ema.items()}
torch.save(networks, f"{folder}/{world.size}_{world.rank}.pth")
distributed.stop()
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", ["1", "2"])
@pytest.mark.parametrize("precision", ["double", "bf16"])
def test_two_processes_are_one(tmp_path, precision, accumulate):
    (tmp_path / "run.py").write_text(ON_TWO)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for start, slices in ((torchrun, accumulate), ([sys.executable], "1")):
        command = [*start, str(tmp_path / "run.py"), str(tmp_path), precision, slices]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    whole, first, second = (torch.load(tmp_path / f"{n}.pth") for n in ("1_0", "2_0", "2_1"))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    if precision == "double":
        torch.testing.assert_close(first, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"train__precision": "bf16", "train__channels_last": True}])
def test_a_batch_of_one(changes):
    terms = build(**changes).step(batch(rows=1), 1)
    assert len(terms) == 14 and all(term.isfinite() for term in terms.values())


def test_masks_come_from_the_network_that_finds_faces():
    fan = {"type": "FAN", "num_features": 8, "weights": "random"}
    model = build(network_g__w_hpf=1, network_fan=fan)
    seen = []
    model.networks["net_fan"].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    terms = model.step(batch(), 1)
    assert all(term.isfinite() for term in terms.values())
    assert seen == 3 * [(4, 3, 256, 256)]  # of the sources once, and of each translation for its way back
    assert not any(p.requires_grad for p in model.networks["net_fan"].parameters())


def test_one_file_holds_the_network_that_finds_faces_too(tmp_path):
    """It is enough to translate, and for every `pretrain_network_X`."""
    fan = {"type": "FAN", "num_features": 8}
    model = build(network_g__w_hpf=1, network_fan={**fan, "weights": "random"})
    own = parity.fill_(model.networks["net_fan"], 1).state_dict()
    save_bundle(tmp_path / "nets.pth", model, 1)
    stored = read_checkpoint(tmp_path / "nets.pth").states
    assert stored.keys() == {"generator", "mapping_network", "style_encoder", "fan"}
    files = {f"path__pretrain_network_{n}": str(tmp_path / "nets.pth") for n in ("g", "mapping", "style_encoder", "fan")}
    again = build(network_g__w_hpf=1, network_fan=fan, **files)
    for found in (stored["fan"], Translator.from_file(tmp_path / "nets.pth").fan.state_dict(),
                  again.networks["net_fan"].state_dict()):  # fmt: skip
        assert found.keys() == own.keys() and all(torch.equal(found[k], own[k]) for k in own)  # its norms' statistics too


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network_g__w_hpf": 1}, r"network_g has `w_hpf` above 0, so it needs network_fan"),
        ({"network_g__w_hpf": 1, "network_fan": {"type": "FAN"}}, r"FAN is never trained here, so it needs weights"),
        ({"network_fan": {"type": "FAN", "weights": "random"}}, r"network_fan has nothing to do"),
        ({"network_d__num_domains": 3}, r"network_d is built for 3 domains and network_mapping for 2"),
        ({"network_style_encoder__style_dim": 4}, r"styles of network_style_encoder have 4 numbers"),
        ({"network_g__style_dim": 4}, r"styles of network_g have 4 numbers"),
    ],
)
def test_networks_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(OptionError, match=said):
        build(**changes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "SyntheticFaceDataset", "count": 2}, "SyntheticFaceDataset knows none"),
        ({"type": "SyntheticDomainDataset", "count": 2, "latent_dim": 5}, "latent codes of 5 numbers, .* takes 4"),
    ],
)
def test_data_that_does_not_fit_is_refused(options, said):
    with pytest.raises(DataError, match=said):
        build().method.check_data(build_dataset(options))


def test_another_number_of_domains_is_refused():
    changes = {f"{n}__num_domains": 3 for n in ("network_mapping", "network_style_encoder", "network_d")}
    with pytest.raises(DataError, match=r"has 2 domains \(feminine, masculine\), but the networks are built for 3"):
        build(**changes).method.check_data(build_dataset({"type": "SyntheticDomainDataset", "count": 2, "latent_dim": 4}))


def test_a_checkpoint_of_another_number_of_domains_is_refused():
    three, two = (build_network({"type": "StarGANv2MappingNetwork", "hidden_dim": 8, "num_domains": n}) for n in (3, 2))
    with pytest.raises(CheckpointError, match=r"StarGANv2MappingNetwork\(.*num_domains=3"):
        load_weights(two, three.state_dict())
