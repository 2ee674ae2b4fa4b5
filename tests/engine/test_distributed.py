"""Two processes with half the batch each are one with the whole."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn

from facerestore.engine import distributed
from facerestore.errors import UserError
from tests.engine.runs import DEBUG, processes, program, weights

SETTINGS = ["--set", "train.total_iter=5", "--set", "val.report=false", "--set", "logger.use_tb_logger=false"]


RRDBNET = "network_g={type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, num_grow_ch: 4}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "more", "accumulate"),
    [("sr.yml", [], 1), ("srgan.yml", [], 1), ("sr.yml", [RRDBNET], 1), ("sr.yml", [RRDBNET, "train.clip_grad_norm=0.1"], 2),
     ("sr.yml", [RRDBNET, "train.channels_last=true", "train.optim_g.fused=true"], 1)],
    ids=["MSRResNet", "SRGAN", "RRDBNet", "RRDBNet in slices, clipped", "RRDBNet, channels last, fused"],
)  # fmt: skip
def test_two_processes_are_one(tmp_path, options, more, accumulate):
    settings = [*SETTINGS, *(word for override in more for word in ("--set", override))]
    one = program("train.py", "-opt", DEBUG / options, *settings, "--set", "name=one", cwd=tmp_path)
    two = processes(2, "-opt", DEBUG / options, *settings, "--set", "name=two", "--launcher", "pytorch",
                    "--set", "datasets.train.batch_size_per_gpu=2", "--set", f"train.accumulate={accumulate}",
                    cwd=tmp_path)  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    alone, together = (weights(tmp_path / "experiments" / n, 5) for n in ("one", "two"))
    for kind in alone:
        for key, tensor in alone[kind].items():
            assert (tensor - together[kind][key]).abs().max() <= 1e-5, key


def test_exchanged_gradients_lie_in_memory_as_their_parameters_do(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: None)  # the other process has nothing but zeros
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=torch.channels_last)
    weight = network[0].weight
    weight.grad = torch.randn_like(weight)
    expected = weight.grad / 2
    distributed.exchange_gradients([weight, network[0].bias], distributed.World(0, 2))
    assert network[0].bias.grad is None
    assert weight.grad.stride() == weight.stride() and not weight.grad.is_contiguous()
    assert torch.equal(weight.grad, expected)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[01-04]", "node01"), ("gpu-a[01-04,07],gpu-b2", "gpu-a01"), ("host1,host2", "host1"), ("gpu-1-2", "gpu-1-2"),
     ("localhost", "localhost"), ("n[7]", "n7")],
)  # fmt: skip
def test_the_first_host_of_a_slurm_list(nodes, first):
    assert distributed.first_host(nodes) == first


def test_slurm_is_understood_and_its_absence_told(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NODELIST", "SLURM_NODELIST"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what the launcher sets
        monkeypatch.delenv(name)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UserError, match="SLURM_PROCID is not set; start it with srun"):
        distributed.start("slurm", num_gpu=0)
    for name, value in {"PROCID": "0", "NTASKS": "1", "LOCALID": "0", "NODELIST": "node[03-04]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed.start("slurm", num_gpu=0) == distributed.World()
    assert (os.environ["MASTER_ADDR"], os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("node03", "0", "1")
