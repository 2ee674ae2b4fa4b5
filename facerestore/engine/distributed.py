"""Several processes as one: who I am, what is summed, what is agreed.

Gradients are exchanged by the engine at the end of each phase, in one flat tensor, and not by DistributedDataParallel: phases
freeze networks, differentiate twice and skip networks, none of which its hooks allow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from facerestore.engine.rendezvous import meet
from facerestore.errors import UserError

TIMEOUT = timedelta(minutes=30)  # until a process that hears nothing of the others ends


@dataclass(frozen=True)
class World:
    """This process among all, and the device it works on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = None  # a CPU group, for what the host must know without waiting for the device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(launcher: str = "none", backend: str | None = None, num_gpu: int | str = "auto") -> World:
    """Join the other processes that torchrun (or slurm) started; alone where nobody did."""
    if launcher == "slurm":
        _slurm_to_torchrun()
    local = int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = torch.cuda.is_available() and num_gpu != 0
    if on_gpu and local >= torch.cuda.device_count():
        raise UserError(f"process {local} of this machine has no GPU of its own ({torch.cuda.device_count()} are there)")
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return World(device=device)
    if backend == "nccl" and not on_gpu:
        backend = "gloo"
    store, rank, size = meet(TIMEOUT)
    dist.init_process_group(backend or ("nccl" if on_gpu else "gloo"), store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return World(rank, size, device, control=dist.new_group(backend="gloo"))


def stop() -> None:
    """Leave the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def exchange_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Average gradients over all processes.  A parameter that took part on any of them has a gradient on all.

    They lie in memory as their parameters do (channels last, say): fused optimizers walk both as plain memory.
    """
    if world.size == 1:
        return
    took_part = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    dist.all_reduce(took_part, dist.ReduceOp.MAX, group=world.control)
    shared = [p for p, yes in zip(parameters, took_part.tolist(), strict=True) if yes]
    if not shared:
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in shared]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= world.size
    for p, g in zip(shared, flat.split([g.numel() for g in grads]), strict=True):
        p.grad = g.view_as(p) if p.is_contiguous() else torch.empty_like(p).copy_(g.view_as(p))


def share_buffers(networks: Iterable[nn.Module], world: World) -> None:
    """Give all processes the first one's running statistics, so that their networks stay the same."""
    if world.size == 1:
        return
    buffers = [b for n in networks for b in n.buffers() if b.is_floating_point()]
    if buffers:
        flat = torch.cat([b.flatten() for b in buffers])
        dist.broadcast(flat, src=0)
        for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def average(values: dict[str, Tensor], world: World) -> dict[str, float]:
    """Scalars averaged over all processes, as numbers: one exchange and one wait for the device for all of them."""
    if not values:
        return {}
    names = sorted(values)
    stacked = torch.stack([values[n].detach().float().mean() for n in names])
    if world.size > 1:
        dist.all_reduce(stacked)
        stacked /= world.size
    return dict(zip(names, stacked.tolist(), strict=True))


def mean(value: Tensor, world: World) -> Tensor:
    """A tensor averaged over all processes, without a graph."""
    value = value.detach().clone()
    if world.size > 1:
        dist.all_reduce(value)
        value /= world.size
    return value


def rows_of_all(value: Tensor, world: World) -> Tensor:
    """The rows of all processes, in their order; each has as many."""
    if world.size == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(world.size)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def any_process(flag: bool, world: World) -> bool:
    """Whether `flag` is set on any process."""
    if world.size == 1:
        return flag
    value = torch.tensor([flag], dtype=torch.uint8)
    dist.all_reduce(value, dist.ReduceOp.MAX, group=world.control)
    return bool(value)


def gather(value: object, world: World) -> list:
    """One Python object of each process, on all processes."""
    if world.size == 1:
        return [value]
    values: list = [None] * world.size
    dist.all_gather_object(values, value, group=world.control)
    return values


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier(group=world.control)


def _slurm_to_torchrun() -> None:
    """Slurm's variables under torchrun's names."""
    try:
        env = {"RANK": os.environ["SLURM_PROCID"], "WORLD_SIZE": os.environ["SLURM_NTASKS"],
               "LOCAL_RANK": os.environ["SLURM_LOCALID"]}  # fmt: skip
    except KeyError as error:
        raise UserError(f"--launcher slurm: {error.args[0]} is not set; start it with srun") from None
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST") or "localhost"
    os.environ.setdefault("MASTER_ADDR", first_host(nodes))
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ.update(env)


def first_host(nodes: str) -> str:
    """The first host of slurm's list: `gpu-a01` of 'gpu-a[01-04,07],gpu-b2'."""
    name, number = re.match(r"([^\[,]*)(?:\[(\d+))?", nodes).groups()
    return name + (number or "")
