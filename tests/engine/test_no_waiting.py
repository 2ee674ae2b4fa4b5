"""A step never waits for the device: nothing in it asks for a tensor's value."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from facerestore.config import load_options
from facerestore.data.loader import training_loader
from facerestore.engine import build_model
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.training import TrainingModel
from tests.engine.runs import DEBUG

aten = torch.ops.aten
WAITS = {  # what the host cannot go on without, or cannot know the shape of
    aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Notes operations for which the host would wait.  Optimizers that are not fused count their steps on the host, which waits
    for nobody."""

    def __init__(self, model: TrainingModel):
        super().__init__()
        self.model, self.seen = model, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS and not self._counts_steps(args[0]):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))

    def _counts_steps(self, tensor: torch.Tensor) -> bool:
        return any(s.get("step") is tensor for o in self.model.optimizers.values() for s in o.state.values())


NO_FEATURES = "train.perceptual_opt=~"  # float16 convolutions of VGG are slow on a CPU
CASES = [
    *((path.stem, "train.clip_grad_norm=1") for path in sorted(DEBUG.glob("*.yml"))),
    *((name, f"train.precision={kind}", NO_FEATURES) for name in ("sr", "srgan") for kind in ("bf16", "fp16")),
    ("srgan", "train.accumulate=2", "train.ema_start_iter=1", NO_FEATURES),
    ("sr", "train.precision=fp16", "train.optim_g={type: RAdam, lr: 1e-3}", NO_FEATURES),
    ("sr", "train.optim_g={type: AdamW, lr: 1e-3, fused: true}", "train.channels_last=true"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case[:2]))
def test_no_step_waits(case):
    name, *overrides = case
    options = load_options(DEBUG / f"{name}.yml", overrides)
    section = options.datasets["train"]
    batch = next(iter(training_loader(dataset_of(section, options), section.batch_size_per_gpu)))
    model = build_model(options)
    with Waits(model) as waits:
        for it in (1, 2):
            model.step(batch, it)
    assert waits.seen == []


def test_a_method_that_waits_would_be_seen():
    model = build_model(load_options(DEBUG / "sr.yml"))
    with Waits(model) as waits:
        torch.ones(3).sum().item()
        torch.nonzero(torch.ones(3))
    assert len(waits.seen) == 2
