"""Pictures, scores and curves to one self-contained HTML file.

Python decides everything that can be decided beforehand (how numbers are rounded, which is best, how a picture is stored);
`page.js` only arranges it.  Each picture is stored once, in base64, in a `<script>` of its own that the page turns into an
image when it comes into view.  The page's content security policy lets it run its own script and nothing else: it can
neither load anything nor be talked into running what a picture is called.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Literal

import cv2
import numpy as np

from facerestore.files import atomic_write

Scores = Mapping[str, Mapping[str, float]]  # method -> metric -> value
Points = Sequence[tuple[int, float]]  # (iteration, value)
Better = Literal["higher", "lower"]

BETTER: dict[str, Better] = {
    "psnr": "higher", "ssim": "higher", "msssim": "higher", "identity": "higher", "ids": "higher", "musiq": "higher",
    "lpips": "lower", "dists": "lower", "niqe": "lower", "fid": "lower", "kid": "lower", "deg": "lower", "lmd": "lower",
    "l1": "lower", "mae": "lower", "mse": "lower", "rmse": "lower", "seconds": "lower",
    "agreement": "higher", "layout": "higher",
    "similarity": "higher", "accuracy": "higher", "usage": "higher", "distance": "lower", "error": "lower", "loss": "lower",
}  # fmt: skip
INPUTS, TRUTHS, INTERPOLATIONS = {"lr", "lq", "input"}, {"hr", "gt", "truth"}, {"nearest", "bilinear", "bicubic"}
LOSSLESS_SIDE = 1024  # pixels; a larger picture is stored as JPEG, or a page would hold hundreds of megabytes
JPEG_QUALITY = 95
DASH = "–"


@dataclass
class Picture:
    """One picture as every method shows it.

    Args:
        name: how it is called
        images: column label ("LR", a method, "HR") -> uint8 RGB (H, W, 3), in the order in which they are shown; the input
            may be smaller than the rest; none at all: the picture is in the table of scores alone
        scores: method -> metric -> value; infinite and NaN values are shown as such
        facts: what else to say of it, e.g. the parameters of its degradation
    """

    name: str
    images: dict[str, np.ndarray]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class DataSection:
    """One data set.

    Args:
        name: how it is called
        pictures: those that are shown
        means: method -> metric -> mean over all pictures of the set, of which more may have been measured than are shown
        note: a sentence under its heading
    """

    name: str
    pictures: list[Picture]
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    sections: Sequence[DataSection],
    curves: Mapping[str, Mapping[str, Points]] | None = None,
    facts: Mapping[str, str] | None = None,
    better: Mapping[str, Better] | None = None,
    protocols: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the page to `path`, atomically, and return the path.

    Args:
        path: the HTML file
        title: the page's heading
        sections: the data sets
        curves: chart title -> series label -> points (iteration, value)
        facts: a small table under the heading
        better: metric -> "higher" or "lower"; goes before what is known of common metrics (`psnr_y` counts as `psnr`).
            Of a metric whose direction is unknown no value is called best.
        protocols: metric -> how it was measured, in keys and values; two figures can be compared where these are the same

    Raises:
        ValueError: an image is not uint8 (H, W, 3).
    """
    metrics = _metrics(sections, BETTER | dict(better or {}))
    images = _Images()
    data = {
        "metrics": [{"name": m.name, "better": m.better} for m in metrics.values()],
        "sections": [_section(s, metrics, images) for s in sections],
        "curves": [
            {"title": str(chart), "series": _chart(series)} for chart, series in (curves or {}).items() if any(series.values())
        ],
    }
    script = _resource("page.js")
    page = Template(_resource("page.html")).substitute(
        title=html.escape(str(title)),
        css=_resource("page.css"),
        js=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=_facts_table(facts or {}),
        means=_means_table(sections, metrics),
        protocols=_protocols(protocols or {}),
        data=_json(data),
        images="\n".join(images.tags),
    )
    # A file name that is no UTF-8 comes as lone surrogates; it must not cost the report.
    atomic_write(path, page.encode("utf-8", "replace"))
    return Path(path)


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that may stand inside <script>: neither `</script>` nor `<!--` can occur."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# Numbers


@dataclass(frozen=True)
class _Metric:
    """How one metric is written and compared.  `decimals` None: as 1.23e-05."""

    name: str
    better: Better | None
    decimals: int | None

    def text(self, value: float | None) -> str:
        if value is None:
            return DASH
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
        return (f"{value:.2e}" if self.decimals is None else f"{value:.{self.decimals}f}").replace("-", "−")

    def best(self, values: Iterable[float | None]) -> str | None:
        """The text of the best value: values that read the same are equally good.  None where nothing is compared."""
        known = [v for v in values if v is not None and not math.isnan(v)]
        if self.better is None or len(known) < 2:
            return None
        return self.text(max(known) if self.better == "higher" else min(known))

    def gain(self, value: float | None, baseline: float | None) -> tuple[str, str]:
        """What `value` gains on `baseline` ("+1.25"), and whether that is "good", "bad" or ""."""
        if value is None or baseline is None or not (math.isfinite(value) and math.isfinite(baseline)):
            return "", ""
        text = self.text(value - baseline)
        text = text if text.startswith("−") else f"+{text}"
        if self.better is None or not re.search("[1-9]", text):
            return text, ""
        return text, "good" if (value > baseline) == (self.better == "higher") else "bad"


def _metrics(sections: Sequence[DataSection], better: Mapping[str, Better]) -> dict[str, _Metric]:
    """All metrics of the page in the order of their appearance, each rounded alike everywhere."""
    values: dict[str, list[float]] = {}
    for section in sections:
        for scores in (section.means, *(p.scores for p in section.pictures)):
            for by_metric in scores.values():
                for metric, value in by_metric.items():
                    values.setdefault(metric, []).append(value)
    return {m: _Metric(m, direction(m, better), _decimals(v)) for m, v in values.items()}


def direction(metric: str, better: Mapping[str, Better] = BETTER) -> Better | None:
    """Which values are the better ones.  What is known of `metric` itself, or of the last of its words that is known:
    `calculate_psnr`, `psnr_y`, `identity_distance`."""
    words = re.findall(r"[a-z0-9]+", metric.lower())
    return next((better[w] for w in (metric, "".join(words), *reversed(words)) if w in better), None)


def _decimals(values: Iterable[float]) -> int | None:
    """Decimals that leave about four digits of the largest value: 31.25, 0.8732, 5.214."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0:
        return 2
    exponent = math.floor(math.log10(largest))
    return None if exponent < -3 or exponent > 6 else min(4, max(0, 3 - exponent))


# Tables that need no script


def _facts_table(facts: Mapping[str, str]) -> str:
    rows = (f"<div><dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{"".join(rows)}</dl>' if facts else ""


def _protocols(protocols: Mapping[str, Mapping[str, Any]]) -> str:
    """How each metric measured: what it is in a sentence, then its keywords, network and files."""
    if not protocols:
        return ""
    rows = []
    for name, protocol in protocols.items():
        said = "; ".join(f"{key} {_plain(value)}" for key, value in protocol.items() if key not in ("type", "measures"))
        what = " ".join(str(protocol[key]) for key in ("measures", "type") if key in protocol)
        rows.append(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(what)}<small>{html.escape(said)}</small></dd></div>")
    return f'<details id="protocols"><summary>How it was measured</summary><dl>{"".join(rows)}</dl></details>'


def _plain(value: Any) -> str:
    """Values without Python's quotes and braces."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return {"True": "yes", "False": "no", "None": "none"}.get(str(value), str(value))


def _means_table(sections: Sequence[DataSection], metrics: Mapping[str, _Metric]) -> str:
    measured = [s for s in sections if any(s.means.values())]
    used = [m for name, m in metrics.items() if any(name in values for s in measured for values in s.means.values())]
    if not used:
        return '<p class="empty">Nothing was measured: no metrics, or no truth to measure against.</p>'
    compared = any(len(s.means) > 1 for s in measured)
    beside = "<small></small>" if compared else ""  # holds the gains' place, so that the values stand in line
    heads = "".join(f'<th scope="col">{html.escape(m.name)}{_arrow(m)}{beside}</th>' for m in used)
    bodies = "".join(_means_of(section, used, beside) for section in measured)
    return f'<table class="means"><thead><tr><th scope="col">method</th>{heads}</tr></thead>{bodies}</table>'


def _arrow(metric: _Metric) -> str:
    arrow = {"higher": "↑", "lower": "↓", None: ""}[metric.better]
    return f' <abbr title="{metric.better} is better">{arrow}</abbr>' if arrow else ""


def _means_of(section: DataSection, metrics: Sequence[_Metric], beside: str) -> str:
    """One data set: a row for each method; the baseline is the interpolation, or else the first."""
    baseline = next((m for m in section.means if m.lower() in INTERPOLATIONS), next(iter(section.means)))
    best = {m.name: m.best(values.get(m.name) for values in section.means.values()) for m in metrics}
    rows = [f'<tr class="set"><th colspan="{len(metrics) + 1}" scope="rowgroup">{html.escape(section.name)}</th></tr>']
    for method, values in section.means.items():
        cells = [f'<th scope="row">{html.escape(method)}</th>']
        for metric in metrics:
            value = values.get(metric.name)
            text = metric.text(value)
            if text == best[metric.name]:
                text = f"<strong>{text}</strong>"
            gain, kind = "", ""
            if method != baseline:
                gain, kind = metric.gain(value, section.means[baseline].get(metric.name))
            against = f'<small class="{kind}" title="against {html.escape(baseline)}">{gain}</small>' if gain else beside
            cells.append(f"<td>{text}{against}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<tbody>{''.join(rows)}</tbody>"


# What the script arranges


def _section(section: DataSection, metrics: Mapping[str, _Metric], images: _Images) -> dict:
    pictures = [_picture(p, metrics, images) for p in section.pictures]
    return {"name": str(section.name), "note": str(section.note), "pictures": pictures}


def _picture(picture: Picture, metrics: Mapping[str, _Metric], images: _Images) -> dict:
    columns = []
    for label, image in picture.images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"picture {picture.name!r}, {label!r}: an image must be uint8 RGB (H, W, 3)")
        columns.append({"label": str(label), **images.add(image)})
    return {
        "name": str(picture.name),
        "columns": columns,
        "compared": _compared([c["label"] for c in columns]),
        "truth": next((c["label"] for c in columns if c["label"].lower() in TRUTHS), None),
        "scores": _scores(picture.scores, metrics),
        "facts": {str(k): str(v) for k, v in picture.facts.items()},
    }


def _compared(labels: Sequence[str]) -> list[str]:
    """The two columns that are compared at first: before (interpolated, or the input) and after (the first restoration)."""
    inputs = [x for x in labels if x.lower() in INPUTS]
    truths = [x for x in labels if x.lower() in TRUTHS]
    plain = [x for x in labels if x.lower() in INTERPOLATIONS]
    restored = [x for x in labels if x not in inputs + truths + plain]
    return list(dict.fromkeys([*(plain or inputs)[:1], *restored, *truths, *inputs]))[:2]


def _scores(scores: Scores, metrics: Mapping[str, _Metric]) -> dict:
    """method -> metric -> {value (see `_number`), text, best}."""
    best = {name: metric.best(values.get(name) for values in scores.values()) for name, metric in metrics.items()}
    return {
        method: {
            name: {"value": _number(v), "text": metrics[name].text(v), "best": metrics[name].text(v) == best[name]}
            for name, v in values.items()
        }
        for method, values in scores.items()
    }


def _number(value: float) -> float | str | None:
    """To six digits.  JSON knows no infinity (given as text that JavaScript's Number() reads) and no NaN (null)."""
    value = float(value)
    if math.isfinite(value):
        return float(f"{value:.6g}")
    return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _chart(series: Mapping[str, Points]) -> list[dict]:
    """The curves of a chart.  Of those that hide each other, each knows which of how many it is, to be drawn in turns."""
    curves = [_series(label, points) for label, points in series.items() if points]
    for curve in curves:
        alike = [other["label"] for other in curves if (other["x"], other["y"]) == (curve["x"], curve["y"])]
        if len(alike) > 1:
            curve["turn"] = [alike.index(curve["label"]), len(alike)]
    return curves


def _series(label: str, points: Points) -> dict:
    """A curve in the order of its iterations; it breaks (null) where a value is not finite."""
    ordered = sorted(points, key=lambda point: point[0])
    y = [_number(v) if math.isfinite(v) else None for _, v in ordered]
    return {"label": str(label), "x": [int(i) for i, _ in ordered], "y": y}


class _Images:
    """Pictures as <script> tags, equal ones once."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self._known: dict[bytes, dict] = {}

    def add(self, image: np.ndarray) -> dict:
        """Where the picture stands and how large it is: {"image", "width", "height", "lossy"}."""
        height, width = image.shape[:2]
        key = hashlib.sha256(np.ascontiguousarray(image)).digest() + bytes(str(image.shape), "ascii")
        if key not in self._known:
            lossy = max(height, width) > LOSSLESS_SIDE
            kind, data = _encode(image, lossy)
            identifier = len(self.tags)
            self.tags.append(
                f'<script type="text/plain" id="image-{identifier}" data-type="image/{kind}">'
                f"{base64.b64encode(data).decode()}</script>"
            )
            self._known[key] = {"image": identifier, "width": width, "height": height, "lossy": lossy}
        return self._known[key]


def _encode(image: np.ndarray, lossy: bool) -> tuple[str, bytes]:
    """PNG; or JPEG with full chroma, since halved chroma is what one would see first in a face."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not lossy:
        return "png", cv2.imencode(".png", bgr)[1].tobytes()
    chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return "jpeg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *chroma])[1].tobytes()
