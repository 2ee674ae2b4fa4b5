"""What a stage of a recipe must have reached before the next one begins: bounds on its figures."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerestore.config import Options
from facerestore.config.schema import DatasetOptions
from facerestore.data.domains import DomainDataset
from facerestore.engine.logs import LOSSES, Curves, read_curves
from facerestore.engine.memory import unallocated_model
from facerestore.engine.scores import BASELINES
from facerestore.errors import OptionError, UserError, listed, nearest
from facerestore.registry import DATASETS, METRICS

LAST = 10  # values of a curve that a gate looks at


@dataclass(frozen=True)
class Gate:
    """Bounds on a term of the training's curves, or on a figure of its last validation.

    Args:
        at_least: the smallest value that passes
        at_most: the largest value that passes
        on: the validation set on which it was measured; by default it is a term of the training
        of: the method of which it is the figure there; `restored` by default
        above: another method there, whose figure must be smaller
    """

    at_least: float | None = None
    at_most: float | None = None
    on: str | None = None
    of: str | None = None
    above: str | None = None

    def __post_init__(self) -> None:
        for key in ("of", "above"):
            if getattr(self, key) and not self.on:
                raise OptionError("methods are compared on a validation set: name it as `on`", (key,))
        if self.at_least is None and self.at_most is None and self.above is None:
            raise OptionError("a gate needs a bound: `at_least`, `at_most` or `above`")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise OptionError(f"no value is at least {self.at_least:g} and at most {self.at_most:g}", ("at_most",))
        if self.above == self.method:
            raise OptionError(f"the figure of {self.above!r} is not above itself: name another method", ("above",))

    @property
    def method(self) -> str:
        """Whose figure it is on a validation set."""
        return self.of or "restored"

    def check(self, term: str, options: Options) -> None:
        """OptionError for a set, metric or method that the training's `options` do not measure.  What a training logs is only
        known when it runs."""
        if self.on is None:
            return
        sets = {section.name: section for key, section in options.datasets.items() if key.startswith("val")}
        _refuse_unknown("validation set", self.on, sets, ("on",))
        _refuse_unknown("metric", term, options.val.metrics, ())
        methods = _methods_measured(options, sets[self.on], term)
        for key, method in (("of", self.method), ("above", self.above)):
            if methods and method:
                _refuse_unknown("method", method, methods, (key,))

    def why_not(self, value: float, other: float | None = None) -> str | None:
        """What is missing where `value` does not pass; `other` is what the method `above` has reached."""
        if self.at_least is not None and not value >= self.at_least:
            return f"at least {self.at_least:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"at most {self.at_most:g}"
        if other is not None and not value > other:
            return f"more than the {other:.4g} of {self.above}"
        return None


def _refuse_unknown(kind: str, name: str, known: Mapping[str, Any], path: tuple[str, ...]) -> None:
    if name not in known:
        hint = nearest(name, known) or (f" (there are {listed(list(known))})" if known else " (there are none)")
        raise OptionError(f"the stage's validations have no {kind} {name!r}{hint}", path)


def _methods_measured(options: Options, section: DatasetOptions, metric: str) -> dict[str, None]:
    """The methods that have a figure of `metric`; empty where the pictures tell them (the domains of translations)."""
    if issubclass(DATASETS.get(section.type), DomainDataset):
        return {}
    own = unallocated_model(options).method.restorers()
    kind = METRICS.get(options.val.metrics[metric].type)
    if inspect.isclass(kind) and kind.reads_codes:
        return dict.fromkeys(own)
    baselines = () if options.val.baseline == "none" else BASELINES
    return dict.fromkeys((*own, *baselines, *(section.others or {})))


def pass_gates(stage: str, folder: Path, gates: Mapping[str, Gate], say: Callable[[str], Any] = print) -> None:
    """Hold the curves of a finished training to its gates.

    Args:
        stage: what messages call it
        folder: where its curves are
        gates: by term or metric
        say: told what passes

    Raises:
        UserError: one ends out of its bounds, or was not logged or measured
    """
    charts = read_curves(folder)
    for term, gate in gates.items():
        what = f"{term} on {gate.on}" if gate.on else term
        value = _reached(stage, charts, term, gate, gate.method)
        other = _reached(stage, charts, term, gate, gate.above) if gate.above else None
        if missing := gate.why_not(value, other):
            raise UserError(
                f"stage {stage}: {what} ended at {value:.4g}, and the recipe asks for {missing}: the next stage would "
                "learn little from it; train it longer or otherwise, or change the gate"
            )
        say(f"stage {stage}: {what} {value:.4g} passes" + (f" ({gate.above} {other:.4g})" if gate.above else ""))


def _reached(stage: str, charts: Curves, term: str, gate: Gate, method: str) -> float:
    """Where a term of the training ended, or the figure of a method in the last validation."""
    if gate.on is None:
        curves = charts.get(LOSSES, {})
        if term not in curves:
            raise UserError(f"stage {stage}: its gate looks at {term!r}, which was not logged{nearest(term, curves)}")
        return statistics.fmean(value for _, value in curves[term][-LAST:])
    chart = f"{gate.on}: {term}"
    if method not in charts.get(chart, {}):
        known = listed(list(charts.get(chart, {}))) or "nothing"
        raise UserError(f"stage {stage}: its gate looks at {chart!r} of {method!r}: measured was {known}")
    return charts[chart][method][-1][1]
