"""Where the parts of a face are, from its landmarks; files of landmarks as they are published.

Of 68 points (Sagonas et al., 300 Faces In-The-Wild, ICCVW 2013) a part is the mean of its own points and half of their
greater extent, which is how GFPGAN's file of boxes was made; CodeFormer's nose is its points 29 to 35.  Of five points, sizes
are shares of the face's: of the distance between the eyes, or 0.9 of that from the eyes to the mouth, whichever is greater (a
turned head brings the eyes together).  The shares are means over the 68 points of CelebA-HQ's faces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facerestore.data.components import BEYOND, LARGEST, NEEDED, Parts, read_components
from facerestore.data.image_io import PictureError
from facerestore.data.tables import match_names, shown
from facerestore.errors import DataError, listed

FIVE = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left as seen in the picture
OF_68 = {"left_eye": slice(36, 42), "right_eye": slice(42, 48), "nose": slice(29, 36), "mouth": slice(48, 68)}
SMALLEST = 1 / 32  # half length of a part, of the picture's side: 16 of 512 pixels, as published
EYES_TO_MOUTH = 0.9
EYE, NOSE = 0.21, 0.22  # half lengths, of the face's size
MOUTH = 0.5  # half length, of the distance between its corners
SYNTHETIC_SIZE = "settings.json"  # beside labels.jsonl: what size the faces were drawn at


def parts_of(points: np.ndarray, side: float) -> dict[str, tuple[float, float, float]]:
    """x, y and half length of eyes, nose and mouth, in the points' pixels.

    Args:
        points: (5, 2) in the order of `FIVE`, or (68, 2)
        side: of the picture that they lie in; no part is smaller than 1/32 of it
    """
    if len(points) == 68:
        own = {part: points[which] for part, which in OF_68.items()}
        found = {part: (p.mean(axis=0), np.ptp(p, axis=0).max() / 2) for part, p in own.items()}
    else:
        left, right, nose, *corners = points
        mouth = np.mean(corners, axis=0)
        size = max(np.linalg.norm(right - left), EYES_TO_MOUTH * np.linalg.norm(mouth - (left + right) / 2))
        width = np.linalg.norm(corners[1] - corners[0])
        found = {
            "left_eye": (left, EYE * size),
            "right_eye": (right, EYE * size),
            "nose": (nose, NOSE * size),
            "mouth": (mouth, MOUTH * width),
        }
    return {part: (float(x), float(y), float(max(half, SMALLEST * side))) for part, ((x, y), half) in found.items()}


def resized(parts: Parts, factor: float) -> dict[str, tuple[float, float, float]]:
    """The parts in the same picture, `factor` times larger: those whose boxes are `factor` times the boxes of `parts`."""
    return {
        part: (factor * (x + 0.5) - 0.5, factor * (y + 0.5) - 0.5, (factor * (2 * half - 1) + 1) / 2)
        for part, (x, y, half) in parts.items()
    }


def refuse_outside(parts: Parts, side: int, where: str) -> None:
    """PictureError where a part lies so far outside of its picture that no reader would take it."""
    for part, (x, y, half) in parts.items():
        if min(x, y) < -BEYOND * side or max(x, y) > (1 + BEYOND) * side or half > side:
            raise PictureError(
                f"{where} has its {part.replace('_', ' ')} at {x:.6g}, {y:.6g}, outside of a picture of {side}x{side}: "
                "correct it, or say with --measured-on how large the pictures were"
            )


def refuse_implausible(parts: Parts, side: int, where: str) -> None:
    """PictureError where parts cannot be those of a face that fills its picture."""
    left, right = parts["left_eye"][0], parts["right_eye"][0]
    if left >= right:
        raise PictureError(
            f"{where} has its left eye at x = {left:.6g}, not left of the right one at {right:.6g} (left is as seen in the "
            "picture): correct it, or leave it out"
        )
    if all(max(x, y) < side / 2 for x, y, _ in parts.values()):
        raise PictureError(
            f"{where} has all parts of its face in the upper left quarter of a picture of {side}x{side}: say with "
            "--measured-on how large the pictures were, or leave it out"
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """Landmarks or parts of many pictures.

    Attributes:
        source: the file and what named it, for errors
        entries: points (5, 2) or (68, 2), or parts, by name
        size: side of the pictures that they were measured on; None where the file does not say
    """

    source: str
    entries: Mapping[str, np.ndarray | Parts]
    size: int | None = None

    def parts(self, name: str, side: int) -> dict[str, tuple[float, float, float]]:
        """The parts of entry `name` in its picture, whose side is `side`; PictureError where they cannot be there."""
        measured = self.size or side
        entry = self.entries[name]
        found = parts_of(entry, measured) if isinstance(entry, np.ndarray) else entry
        found = resized(found, side / measured)
        where = f"{self.source}: {name!r:.80}"
        refuse_outside(found, side, where)
        refuse_implausible(found, side, where)
        return found

    def match(self, pictures: list[str]) -> dict[str, str]:
        """Each picture's entry; DataError where one has none."""
        found = match_names(self.entries, pictures)
        if lacking := [name for name in pictures if name not in found]:
            raise DataError(
                f"{self.source}, has no landmarks of {len(lacking)} of the {len(pictures)} pictures: {listed(lacking, 5)} (it "
                f"holds {listed(list(self.entries), 3)}): leave those pictures out, or name the right file"
            )
        return found


def read_labels(path: str, key: str, size: int | None = None) -> Labels:
    """Landmarks, whichever form they have; `size` is the side of their pictures where it is known better than by the file.

    - FFHQ's `ffhq-dataset-v2.json`: 68 points of the pictures of 1024 pixels;
    - JSON, {NAME: points}: 68 or five [x, y], or {"left_eye": [x, y], ... "mouth_right": [x, y]}, or one of these under
      `landmarks68`, `landmarks` or `points5`;
    - `labels.jsonl` of the synthetic faces;
    - what :func:`read_components` reads: parts, also upstream's .pth.

    Raises:
        DataError: it is missing, damaged or something else
    """
    labels = _read(path, key, f"file {path}, named by `{key}`")
    return replace(labels, size=size or labels.size)


def _read(path: str, key: str, source: str) -> Labels:
    if path.lower().endswith((".pth", ".pt")):
        return _parts(path, key, source)
    text = _read_text(path, source)
    if path.lower().endswith(".jsonl"):
        lines = [_json(line, f"{source}, line {i}") for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines or not all(isinstance(line, Mapping) and isinstance(line.get("file"), str) for line in lines):
            raise DataError(f"{source}, holds no labels: a line {{'file': NAME, 'landmarks68': [...]}} a picture is expected")
        return Labels(source, {line["file"]: _points(line, line["file"], source) for line in lines}, _drawn_size(path))
    content = _json(text, source)
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{source}, holds no landmarks: {{NAME: points, ...}} is expected")
    first = next(iter(content.values()))
    if "components" in content or (isinstance(first, Mapping) and set(NEEDED) <= set(first)):
        return _parts(path, key, source)
    if isinstance(first, Mapping) and isinstance(first.get("image"), Mapping):
        return _ffhq(content, source)
    return Labels(source, {name: _points(entry, name, source) for name, entry in content.items()})


def _ffhq(content: Mapping[str, Any], source: str) -> Labels:
    """Entries {"image": {"pixel_size": [1024, 1024], "face_landmarks": [...]}} by the picture's number."""
    sizes, entries = set(), {}
    for name, entry in content.items():
        image = entry.get("image") if isinstance(entry, Mapping) else None
        if not isinstance(image, Mapping) or "face_landmarks" not in image:
            raise DataError(f"{source}, has no `face_landmarks` for picture {name!r:.80}: take FFHQ's whole file")
        entries[name] = _points(image["face_landmarks"], name, source)
        size = image.get("pixel_size", [1024, 1024])
        if not isinstance(size, list) or len(size) != 2 or size[0] != size[1] or not _is_side(size[0]):
            raise DataError(
                f"{source}, has {shown(size)} as `pixel_size` of picture {name!r:.80}: squares of one size are expected, "
                "[SIDE, SIDE]"
            )
        sizes.add(size[0])
    if len(sizes) > 1:
        raise DataError(f"{source}, has pictures of the sizes {shown(sorted(sizes))}: squares of one size are expected")
    return Labels(source, entries, sizes.pop())


def _is_side(value: Any) -> bool:
    """Whether it can be the side of a picture, in pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _parts(path: str, key: str, source: str) -> Labels:
    components = read_components(path, key)
    return Labels(source, {name: components[name] for name in components.names}, components.size)


def _points(entry: Any, name: str, source: str) -> np.ndarray:
    """(5, 2) or (68, 2), float64."""
    while isinstance(entry, Mapping):
        inner = next((entry[k] for k in ("landmarks68", "landmarks", "points5") if k in entry), None)
        entry = [entry[k] for k in FIVE if k in entry] if inner is None else inner
    try:
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for point in entry for v in point)
        points = np.array(entry, np.float64) if numbers else np.empty(0)
    except (ValueError, TypeError, OverflowError):  # lists of several lengths, numbers of hundreds of digits
        points = np.empty(0)
    if points.shape not in ((5, 2), (68, 2)) or not np.isfinite(points).all():
        raise DataError(
            f"{source}, has no landmarks that are known here for picture {name!r:.80}: 68 or five [x, y] are expected, or "
            f"{', '.join(FIVE)} by name"
        )
    return points


def _drawn_size(path: str) -> int | None:
    """What size the synthetic faces beside `labels.jsonl` were drawn at; None where nothing says it."""
    file = Path(path).with_name(SYNTHETIC_SIZE)
    if not file.exists():
        return None
    source = f"file {file}, which stands beside the labels"
    settings = _json(_read_text(str(file), source), source)
    if not isinstance(settings, Mapping) or not _is_side(settings.get("size", 1)):
        raise DataError(
            f"{source}, does not say what `size` the faces were drawn at, a number of pixels from 1 to {LARGEST}: correct it, "
            "or move it away"
        )
    return settings.get("size")


def _read_text(path: str, source: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{source}, cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}, is no JSON, or cut off: {str(error) or 'nested too deeply'}") from None
