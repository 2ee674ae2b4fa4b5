"""Samples of a data set drawn on one sheet: what goes into a network and what should come out, with what chance decided.

A card a sample: its pictures side by side, boxes and points drawn where a training will look for them, masks as a red veil,
and below the name what :meth:`FaceDataset.explain` says.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

PAPER, CARD, LINE = (244, 244, 241), (255, 255, 255), (222, 222, 216)
INK, FAINT, VEIL = (32, 33, 36), (120, 122, 126), (213, 0, 50)
EMPTY = (236, 236, 232)
# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = {"left_eye": (230, 159, 0), "right_eye": (86, 180, 233), "nose": (204, 121, 167), "mouth": (0, 190, 130)}
OTHER_COLOUR, POINT_COLOUR = (240, 228, 66), (255, 255, 255)

FIRST = ("lq", "lq_large", "gt")  # the order of pictures; others follow as the sample has them
TARGET = "gt"  # boxes, points and masks are in its pixels
MARGIN, GAP, PAD, PANEL_GAP, LEGEND_GAP = 28, 18, 14, 10, 6
TITLE, NAME, TEXT = 24, 15, 13  # sizes of type in pixels
LEADING = 1.4


@dataclass(frozen=True)
class Panel:
    """A picture of a sample, uint8 (H, W, 3) RGB, with what is marked in it, in its pixels; `label` and `note` go above it."""

    label: str
    image: np.ndarray
    note: str
    boxes: dict[str, Sequence[float]] = field(default_factory=dict)
    points: np.ndarray | None = None


@dataclass(frozen=True)
class Card:
    """A sample: its name, how it came about, its pictures, and what is said of it in words."""

    name: str
    origin: str
    panels: list[Panel]
    facts: list[tuple[str, str]]


def panels(sample: Mapping[str, Any]) -> list[Panel]:
    """The pictures of a sample as data sets give it: tensors (3, H, W) uint8, boxes `loc_PART`, points (N, 2), a `mask`."""
    pictures = {key: value for key, value in sample.items() if _is_picture(value)}
    order = [key for key in FIRST if key in pictures] + [key for key in pictures if key not in FIRST]
    found = [_panel(key, pictures[key]) for key in order]
    marked = next((i for i, panel in enumerate(found) if panel.label == TARGET), None)
    if marked is not None:
        boxes = {key.removeprefix("loc_"): v.tolist() for key, v in sample.items() if _is_box(key, v)}
        points = [value.numpy() for value in sample.values() if _is_points(value)]
        if "mask" in sample:
            found.append(_veiled(found[marked], sample["mask"]))
        found[marked] = replace(found[marked], boxes=boxes, points=np.concatenate(points) if points else None)
    return found


def facts(explained: Mapping[str, Any], sample: Mapping[str, Any]) -> list[tuple[str, str]]:
    """In short, what chance decided (without seeds, lists of points, and what is merely true), and the sample's numbers."""
    said = {key: value for key, value in explained.items() if not isinstance(value, bool)}
    said |= {key: value for key, value in sample.items() if isinstance(value, (int, float))}
    return [(key, text) for key, value in said.items() if (text := _words(value, "; "))]


def all_facts(explained: Mapping[str, Any], sample: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Every number that chance decided, under its full name (`lq.kernel.sigma_x`); paths and numbers of the sample."""
    found = []
    for key, value in explained.items():
        if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            found += all_facts(value, {}, f"{above}{key}.")
        else:
            found.append((f"{above}{key}", _in_full(value)))
    for key, value in sample.items():
        if isinstance(value, (int, float, str)):
            found.append((key, _in_full(value)))
        elif isinstance(value, torch.Tensor) and value.ndim == 1:
            found.append((key, _in_full(value.tolist())))
    return found


def contact_sheet(title: str, subtitle: str, cards: Sequence[Card], side: int = 240, width: int = 1700) -> np.ndarray:
    """uint8 (H, W, 3) RGB: the cards in rows.

    Args:
        title: the first line
        subtitle: the second
        cards: at least one
        side: about how large a picture is drawn, in pixels; a size at which the pixels of small pictures are squares
        width: about how wide the sheet may be; one card always has its place
    """
    labels = list(dict.fromkeys(panel.label for card in cards for panel in card.panels))
    side = _even_side(side, cards)
    inner = max(1, len(labels)) * (side + PANEL_GAP) - PANEL_GAP
    columns = max(1, min(len(cards), (width - 2 * MARGIN + GAP) // (inner + 2 * PAD + GAP)))
    indent = _indent([name for card in cards for name, _ in card.facts])
    body = [_card(card, labels, side, inner, indent) for card in cards]
    rows = [body[i : i + columns] for i in range(0, len(body), columns)]
    total = 2 * MARGIN + columns * (inner + 2 * PAD + GAP) - GAP
    head = _head(title, subtitle, cards, total - 2 * MARGIN)
    height = 2 * MARGIN + head.height + sum(max(c.height for c in row) + GAP for row in rows)
    sheet = Image.new("RGB", (total, height), PAPER)
    sheet.paste(head, (MARGIN, MARGIN))
    top = MARGIN + head.height + GAP
    for row in rows:
        tall = max(card.height for card in row)
        for i, card in enumerate(row):
            left = MARGIN + i * (inner + 2 * PAD + GAP)
            sheet.paste(_framed(card, tall), (left, top))
        top += tall + GAP
    return np.asarray(sheet)


def _head(title: str, subtitle: str, cards: Sequence[Card], width: int) -> Image.Image:
    """Title, subtitle, and the colours of the boxes that are on the sheet."""
    parts = list(dict.fromkeys(part for card in cards for panel in card.panels for part in panel.boxes))
    lines = [*_wrapped(title, TITLE, width)], [*_wrapped(subtitle, NAME, width)]
    height = len(lines[0]) * _leading(TITLE) + len(lines[1]) * _leading(NAME) + (_leading(TEXT) + LEGEND_GAP if parts else 0)
    head = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(head)
    top = _write(draw, (0, 0), lines[0], TITLE, INK)
    top = _write(draw, (0, top), lines[1], NAME, FAINT) + LEGEND_GAP
    left = 0.0
    for part in parts:
        text = _drawable(part.replace("_", " "))
        draw.rectangle((left, top + 3, left + TEXT, top + 3 + TEXT), fill=COLOURS.get(part, OTHER_COLOUR), outline=LINE)
        draw.text((left + TEXT + 7, top), text, INK, _font(TEXT))
        left += TEXT + 25 + _font(TEXT).getlength(text)
    return head


def _card(card: Card, labels: Sequence[str], side: int, inner: int, indent: int) -> Image.Image:
    """Pictures, name, origin and facts, one below the other."""
    by_label = {panel.label: panel for panel in card.panels}
    names, origin = _wrapped(card.name, NAME, inner), _wrapped(card.origin, TEXT, inner)
    blocks = _columns(card.facts, inner, indent)
    height = 2 * PAD + _leading(TEXT) + side + 8 + len(names) * _leading(NAME) + len(origin) * _leading(TEXT)
    height += (6 + max(len(block) for block in blocks) * _leading(TEXT)) if blocks else 0
    image = Image.new("RGB", (inner + 2 * PAD, height), CARD)
    draw = ImageDraw.Draw(image)
    for i, label in enumerate(labels):
        left, top = PAD + i * (side + PANEL_GAP), PAD + _leading(TEXT)
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=EMPTY)
        if label in by_label:
            drawn = _drawn(by_label[label], side)
            image.paste(drawn, (left + (side - drawn.width) // 2, top + (side - drawn.height) // 2))
            _write(draw, (left, PAD - 3), _wrapped(f"{label}  {by_label[label].note}", TEXT, side)[:1], TEXT, FAINT)
    top = PAD + _leading(TEXT) + side + 8
    top = _write(draw, (PAD, top), names, NAME, INK)
    top = _write(draw, (PAD, top), origin, TEXT, FAINT) + 6
    for i, block in enumerate(blocks):
        left = PAD + i * (inner + PAD) // len(blocks)
        _write(draw, (left, top), [name for name, _ in block], TEXT, FAINT)
        _write(draw, (left + indent, top), [text for _, text in block], TEXT, INK)
    return image


def _framed(card: Image.Image, height: int) -> Image.Image:
    """The card as tall as its row, with a thin edge."""
    framed = Image.new("RGB", (card.width, height), CARD)
    framed.paste(card, (0, 0))
    ImageDraw.Draw(framed).rectangle((0, 0, card.width - 1, height - 1), outline=LINE)
    return framed


def _drawn(panel: Panel, side: int) -> Image.Image:
    """The picture as large as fits into a square of `side`, its marks drawn at that size."""
    h, w = panel.image.shape[:2]
    factor = side / max(h, w)
    size = (max(1, round(w * factor)), max(1, round(h * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    image = Image.fromarray(cv2.resize(np.ascontiguousarray(panel.image), size, interpolation=how))
    draw = ImageDraw.Draw(image)
    if panel.points is not None:
        r = max(1.0, side / 240)
        for x, y in (panel.points + 0.5) * factor:  # the middle of a pixel
            draw.ellipse((x - r - 1, y - r - 1, x + r + 1, y + r + 1), fill=INK)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=POINT_COLOUR)
    for part, box in panel.boxes.items():
        x1, y1, x2, y2 = (round(v * factor) for v in box)
        x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=INK)
        draw.rectangle((x1, y1, x2, y2), outline=COLOURS.get(part, OTHER_COLOUR), width=2)
    return image


def _even_side(side: int, cards: Sequence[Card]) -> int:
    """A size near `side` that is a multiple of the smallest picture's, where that is enlarged anyway."""
    smallest = min((max(panel.image.shape[:2]) for card in cards for panel in card.panels), default=side)
    return smallest * round(side / smallest) if smallest <= side else side


def _indent(names: Sequence[str]) -> int:
    """How far to the right the texts begin: past the longest name."""
    return 14 + max((math.ceil(_font(TEXT).getlength(_drawable(name))) for name in names), default=0)


def _columns(facts: Sequence[tuple[str, str]], inner: int, indent: int) -> list[list[tuple[str, str]]]:
    """Lines of (name, text) in as many columns as have room; the name only before the first line of its text."""
    count = max(1, min(3, inner // 440)) if len(facts) > 12 else 1
    width = max((inner + PAD) // count - PAD - indent, 60)
    lines: list[tuple[str, str]] = []
    for name, text in facts:
        wrapped = _wrapped(text, TEXT, width) or [""]
        lines += [(name if i == 0 else "", line) for i, line in enumerate(wrapped)]
    tall = math.ceil(len(lines) / count)
    return [lines[i : i + tall] for i in range(0, len(lines), tall)] if lines else []


def _wrapped(text: str, size: int, width: float) -> list[str]:
    """Lines no wider than `width`: broken at spaces, and within a word that is longer than a line."""
    font, lines, line = _font(size), [], ""
    for word in _drawable(text).split():
        if line and font.getlength(f"{line} {word}") <= width:
            line = f"{line} {word}"
            continue
        lines += [line] if line else []
        while font.getlength(word) > width and len(word) > 1:
            fits = bisect_right(range(1, len(word)), width, key=lambda n, word=word: font.getlength(word[:n]))
            lines, word = [*lines, word[: max(1, fits)]], word[max(1, fits) :]
        line = word
    return [*lines, line] if line else lines


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], lines: Sequence[str], size: int, colour: tuple) -> float:
    """Write lines below one another; where the next would stand."""
    left, top = at
    for line in lines:
        draw.text((left, top), _drawable(line), colour, _font(size))
        top += _leading(size)
    return top


def _leading(size: int) -> int:
    return round(size * LEADING)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _drawable(text: str) -> str:
    """The text with a question mark for each letter that Pillow's own font lacks."""
    return "".join(c if c.isspace() or _has_glyph(c) else "?" for c in text)


@functools.lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    """Whether the font draws something else than the box that stands for unknown letters."""
    return letter.isprintable() and bytes(_font(TEXT).getmask(letter)) != bytes(_font(TEXT).getmask("\uffff"))


def _words(value: Any, between: str = ", ") -> str:
    """A value in short: 'kernel type aniso, size 41, sigma_x 5.76; factor 3.1'."""
    if isinstance(value, Mapping):
        said = {key: _words(item) for key, item in value.items() if key != "seed"}
        return between.join(f"{key} {text}" for key, text in said.items() if text)
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str):  # a step and its number
            return f"{value[0]} {_words(value[1])}"
        if len(value) > 8 or any(isinstance(item, Mapping) for item in value):
            return str(len(value))
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _in_full(value: Any) -> str:
    """A value with all its digits; in a list, a step and its number as 'hue 0.1'."""
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str):
            return f"{value[0]} {_in_full(value[1])}"
        text = ", ".join(map(_in_full, value))
        return text if any(isinstance(item, (list, tuple)) for item in value) else f"[{text}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _is_picture(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.ndim == 3 and value.shape[0] == 3


def _is_box(key: str, value: Any) -> bool:
    return key.startswith("loc_") and isinstance(value, torch.Tensor) and value.shape == (4,)


def _is_points(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == 2 and value.shape[1] == 2


def _panel(key: str, picture: torch.Tensor) -> Panel:
    return Panel(key, picture.permute(1, 2, 0).numpy(), f"{picture.shape[2]}x{picture.shape[1]}")


def _veiled(panel: Panel, mask: torch.Tensor) -> Panel:
    """The picture with a red veil where `mask`, (1, H, W), is above 0."""
    share = (mask.reshape(mask.shape[-2:]).numpy() > 0)[..., None]
    veil = (0.45 * panel.image + 0.55 * np.array(VEIL)).round().astype(np.uint8)
    return Panel("mask", np.where(share, veil, panel.image), f"{share.mean():.0%} of {panel.label}")
