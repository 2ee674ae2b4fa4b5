"""From the phase on in which a loss or a gradient is no number, an iteration changes nothing, and the device is never asked.

Whether an iteration is sound is a flag that stays on the device and gates what the iteration writes.  Networks whose phase
was over by then have stepped; none steps after it.  What is written at the end, averages, statistics of batches and what the
method remembers, stays as it was before the iteration.  The host reads what was found when it prints, in one transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facerestore.engine import distributed
from facerestore.engine.distributed import World

SMALLEST_SCALE = 1.0  # of a loss: a gradient that overflows below it is too large by itself, not by its scale


@dataclass(frozen=True)
class Findings:
    """What was found since the last reading.  Terms and gradients come with the first iteration in which it happened."""

    skipped: int = 0  # iterations
    in_a_row: int = 0  # of these, up to and with the last iteration; counts on from one reading to the next
    longest: int = 0  # the longest row that was there
    not_finite: Mapping[str, int] = field(default_factory=dict)
    beyond: Mapping[str, int] = field(default_factory=dict)  # terms above the limit

    @property
    def first(self) -> int | None:
        """The iteration in which it began, where anything was found."""
        return min([*self.not_finite.values(), *self.beyond.values()], default=None)


class Guard:
    """Watches the iterations of one training.

    Args:
        device: where the training runs
        loss_limit: the absolute value that no term may exceed
    """

    def __init__(self, device: torch.device, loss_limit: float | None = None):
        self.device, self.loss_limit = device, float("inf") if loss_limit is None else loss_limit
        self.it = 0
        self.skipping = torch.zeros((), dtype=torch.bool, device=device)  # whether this iteration changes nothing any more
        self.unsound = self.skipping  # whether it counts as skipped: an overflow that only asks for a smaller scale does not
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)  # skipped, in a row, longest
        self._first: dict[tuple[str, ...], Tensor] = {}  # by names: (2, n), the first iterations; 0 where there was none

    def begin(self, it: int) -> None:
        """Iteration `it` starts, nothing against it yet."""
        self.it = it
        self.skipping = self.unsound = torch.zeros_like(self.skipping)

    def see_terms(self, terms: Mapping[str, Tensor], gradients: Sequence[Tensor]) -> None:
        """Look at the terms of a phase, before gradients are exchanged.

        A term that is not finite makes a gradient so: the sum over all processes then tells every one of them.
        """
        values = torch.stack([t.detach().float().mean() for t in terms.values()])
        wrong = ~values.isfinite()
        self._note(tuple(terms), wrong, values.abs() > self.loss_limit)
        self.unsound = self.unsound | wrong.any()
        if gradients:
            gradients[0].add_((values * 0).sum())

    def see_gradients(self, gradients: Mapping[str, Sequence[Tensor]], scale: Tensor | None = None) -> None:
        """Look at the gradients by network, the same on all processes; the iteration is skipped where the norm of one is not
        finite.

        Those of a loss that was multiplied by a `scale` may overflow now and then, which is no fault: the scale is lowered for
        it.  Where they still overflow when it is below `SMALLEST_SCALE`, they would for ever, and it is one.
        """
        norms = {n: torch.stack([v.float() for v in torch._foreach_norm(g)]).sum() for n, g in gradients.items() if g}
        if norms:
            wrong = ~torch.stack(list(norms.values())).isfinite()
            self.skipping = self.skipping | wrong.any()
            if scale is not None:
                wrong = wrong & (scale < SMALLEST_SCALE)
            self._note(tuple(f"gradient of {n}" for n in norms), wrong, torch.zeros_like(wrong))
            self.unsound = self.unsound | wrong.any()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, unless the iteration is skipped.

        Fused Adam looks at the flag itself.  Around any other optimizer the weights and the tensors in its `state` are kept for
        as long as the step takes, whether it changes them or puts others in their place.  What the device's flag does not reach
        goes on in a skipped step: counters on the host, and whatever else an optimizer of your own keeps (in its groups, say).
        """
        if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) and all(g.get("fused") for g in optimizer.param_groups):
            optimizer.grad_scale, optimizer.found_inf = None, self.skipping.float()
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for p in parameters:  # what an optimizer remembers from its first step on must start from numbers
            p.grad.masked_fill_(self.skipping, 0)
        states = [optimizer.state.get(p, {}) for p in parameters]
        remembered = [(s, key, v) for s in states for key, v in s.items() if isinstance(v, Tensor)]
        with self.protecting([*(p.detach() for p in parameters), *(v for _, _, v in remembered)]):
            optimizer.step()
        for state, key, before in remembered:
            now = state.get(key)
            if isinstance(now, Tensor) and now is not before and now.device == self.skipping.device:
                state[key] = torch.where(self.skipping, before, now)

    @contextmanager
    def protecting(self, tensors: Iterable[Tensor]) -> Iterator[None]:
        """What happens to `tensors` within is undone if the iteration is skipped at the end."""
        tensors = [t for t in tensors if t.device == self.skipping.device]
        before = [t.clone() for t in tensors]
        yield
        for tensor, old in zip(tensors, before, strict=True):
            torch.where(self.skipping, old, tensor, out=tensor)

    def end(self) -> None:
        """The iteration is over."""
        skipped, in_a_row, longest = self.counts.unbind()
        in_a_row = (in_a_row + 1) * self.unsound
        self.counts = torch.stack([skipped + self.unsound, in_a_row, torch.maximum(longest, in_a_row)])

    def read(self, world: World) -> Findings:
        """What was found since the last reading, on all processes.  Waits for the device; all processes must call it."""
        parts = distributed.gather(self._to_host(), world)
        counts = [max(values) for values in zip(*(part[0] for part in parts), strict=True)]
        found: tuple[dict[str, int], dict[str, int]] = {}, {}
        for _, firsts_by_names in parts:
            for names, kinds in firsts_by_names.items():
                for seen, firsts in zip(found, kinds, strict=True):
                    for name, it in zip(names, firsts, strict=True):
                        if it:
                            seen[name] = min(it, seen.get(name, it))
        self._first.clear()
        self.restart(counts[1])
        return Findings(*counts, *found)

    def _to_host(self) -> tuple[list[int], dict[tuple[str, ...], tuple[list[int], list[int]]]]:
        """Counts and first iterations as numbers, all in one transfer."""
        values = torch.cat([self.counts, *(first.flatten() for first in self._first.values())]).tolist()
        counts, rest, firsts = values[: len(self.counts)], values[len(self.counts) :], {}
        for names in self._first:
            n = len(names)
            firsts[names] = rest[:n], rest[n : 2 * n]
            rest = rest[2 * n :]
        return counts, firsts

    def restart(self, in_a_row: int = 0) -> None:
        """Forget what was found, but for the iterations that have been skipped `in_a_row`."""
        self.counts = torch.tensor([0, in_a_row, in_a_row], device=self.device)
        self._first.clear()

    def _note(self, names: tuple[str, ...], wrong: Tensor, beyond: Tensor) -> None:
        now = torch.stack([wrong, beyond & ~wrong])
        before = self._first.get(names)
        if before is None:
            before = torch.zeros(now.shape, dtype=torch.int64, device=now.device)
        self._first[names] = before.masked_fill((before == 0) & now, self.it)
