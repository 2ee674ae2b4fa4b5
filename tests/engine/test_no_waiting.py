"""A step never waits for the device: nothing in it asks for a tensor's value."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from facerestore.config import load_options
from facerestore.data.loader import training_loader
from facerestore.engine import build_model
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.training import TrainingModel
from tests.engine.runs import DEBUG, TRAININGS

aten = torch.ops.aten
WAITS = {  # what the host cannot go on without, or cannot know the shape of
    aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
BY_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
FROM_HOST = {aten.lift_fresh.default}  # torch.tensor, new_tensor: copying the host's numbers to a device waits for it


class Waits(TorchDispatchMode):
    """Notes operations for which the host would wait.  Optimizers that are not fused count their steps on the host, which waits
    for nobody.  What is sent `once`, when the first iteration needs it, is no matter either."""

    def __init__(self, model: TrainingModel, once: bool = False):
        super().__init__()
        self.model, self.seen, self.counting = model, [], False
        self.waits = WAITS if once else WAITS | FROM_HOST
        for optimizer in model.optimizers.values():
            optimizer.register_step_pre_hook(lambda *_: setattr(self, "counting", True))
            optimizer.register_step_post_hook(lambda *_: setattr(self, "counting", False))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in self.waits and not self._counts_steps(func, args[0]):
            self.seen.append(str(func))
        if func in BY_INDICES and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.seen.append(f"{func} by a mask")
        return func(*args, **(kwargs or {}))

    def _counts_steps(self, func, tensor: torch.Tensor) -> bool:
        begins = self.counting and func in FROM_HOST and tensor.dim() == 0
        return begins or any(s.get("step") is tensor for o in self.model.optimizers.values() for s in o.state.values())


NO_FEATURES = "train.perceptual_opt=~"  # float16 convolutions of VGG are slow on a CPU
CASES = [
    *((path.stem, "train.clip_grad_norm=1") for path in TRAININGS),
    *((name, f"train.precision={kind}", NO_FEATURES) for name in ("sr", "srgan") for kind in ("bf16", "fp16")),
    ("srgan", "train.accumulate=2", "train.ema_start_iter=1", NO_FEATURES),
    ("sr", "train.precision=fp16", "train.optim_g={type: RAdam, lr: 1e-3}", NO_FEATURES),
    ("sr", "train.optim_g={type: AdamW, lr: 1e-3, fused: true}", "train.channels_last=true"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case[:2]))
def test_no_step_waits(case):
    model, batch = model_and_batch(*case)
    for it in (1, 2):
        with Waits(model, once=it == 1) as waits:
            model.step(batch, it)
        assert waits.seen == []


def model_and_batch(name: str, *overrides: str, world: World | None = None):
    options = load_options(DEBUG / f"{name}.yml", overrides)
    section = options.datasets["train"]
    batch = next(iter(training_loader(dataset_of(section, options), section.batch_size_per_gpu)))
    return build_model(options, world), batch


def test_a_method_that_waits_would_be_seen():
    model = build_model(load_options(DEBUG / "sr.yml"))
    x, mask = torch.ones(3), torch.tensor([True, False, True])
    with Waits(model) as waits:
        x.sum().item()
        torch.nonzero(x)
        x[mask]
        x[mask] = torch.zeros(2)
        x.repeat_interleave(torch.ones_like(mask, dtype=torch.int64))
        x.new_tensor(0.5)
    for what in ("_local_scalar", "nonzero", "index.Tensor by a mask", "index_put", "repeat_interleave", "lift_fresh"):
        assert any(what in seen for seen in waits.seen), what
    with Waits(model, once=True) as waits:
        x[torch.tensor([0, 2])] = x.new_full((), 0.5)
    assert waits.seen == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: whether the driver sees a wait is told by one alone")
@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case[:2]))
def test_no_step_waits_on_a_gpu(case):
    model, batch = model_and_batch(*case, world=World(device=torch.device("cuda")))
    batch = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    model.step(batch, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.step(batch, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
