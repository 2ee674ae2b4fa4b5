"""Large pictures in parts: restored tile by tile, the tiles blended where they overlap.

A network with a receptive field of radius r gives each pixel that lies r or more from its tile's inner edges the value that it
has in the whole picture.  A tile's outer quarter of the overlap is not used, so the result is the whole's, but for rounding,
where r is at most a quarter of the overlap.  Networks that look further (or at all of the picture: attention, normalisation
by the picture's own statistics) give every tile a view of its own; blending then hides the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.errors import OptionError

# Sides and overlaps are multiples of it, and so are the tiles' places: strides and unshuffled pixels meet as in the whole.  But
# the last tiles end with the picture: where its sides are no multiples, theirs are at other places.
STEP = 8
OVERLAP = 64  # where the option does not say it, and tiles are large enough


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Args:
        side: of a tile, in pixels of the input; a multiple of 8
        overlap: of neighbouring tiles at least, in pixels of the input; a multiple of 8, at most half of the side

    Raises:
        OptionError: these numbers make no tiling
    """

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if self.side < 1 or self.side % STEP:
            raise OptionError(f"a tile's side is a positive multiple of {STEP}, not {self.side}", ("tile",))
        if self.overlap < STEP or self.overlap % STEP or 2 * self.overlap > self.side:
            raise OptionError(
                f"tiles of {self.side} pixels overlap by a multiple of {STEP}, {STEP} to {self.side // 2}, not by "
                f"{self.overlap}",
                ("tile_overlap",),
            )

    def cuts(self, height: int, width: int) -> bool:
        """Whether a picture of this size is larger than one tile."""
        return max(height, width) > self.side

    def windows(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each tile: all of one size, the last ones moved back to end with the picture."""
        for top in self._starts(height):
            for left in self._starts(width):
                yield slice(top, min(top + self.side, height)), slice(left, min(left + self.side, width))

    def _starts(self, length: int) -> list[int]:
        last = max(length - self.side, 0)
        return [*range(0, last, self.side - self.overlap), last]


def tiling_of(side: int | None, overlap: int | None = None) -> Tiling | None:
    """What `tile` and `tile_overlap` say, both in pixels of the input: none without a side; by default tiles overlap by 64
    pixels, or by the largest multiple of 8 within half of the side."""
    if not side:
        return None
    return Tiling(side, min(OVERLAP, side // (2 * STEP) * STEP) if overlap is None else overlap)


def restore_in_tiles(
    restore: Callable[[slice, slice], Mapping[str, Tensor]], height: int, width: int, tiling: Tiling
) -> dict[str, Tensor]:
    """What `restore` makes of a picture, tile by tile; only one tile's pictures are on the device at a time.

    Args:
        restore: from rows and columns of the input to pictures (N, C, s h, s w) by name, s a whole number
        height: of the input
        width: of the input
        tiling: how it is cut

    Returns:
        the pictures (N, C, s H, s W) by name, on the CPU; those of `restore` itself where one tile holds all

    Raises:
        OptionError: the pictures are no whole number of times larger than their tiles
    """
    if not tiling.cuts(height, width):
        return {name: picture.cpu() for name, picture in restore(slice(0, height), slice(0, width)).items()}
    found: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for rows, columns in tiling.windows(height, width):
        for name, tile in restore(rows, columns).items():
            tile = tile.cpu()
            scale = _scale(tile, rows, columns)
            if name not in found:
                found[name] = tile.new_zeros((*tile.shape[:2], scale * height, scale * width))
                weights[name] = tile.new_zeros((scale * height, scale * width))
            down, across = (_profile(part, length, scale, tiling) for part, length in ((rows, height), (columns, width)))
            weight = down[:, None] * across
            place = (..., _times(rows, scale), _times(columns, scale))
            found[name][place] += weight * tile
            weights[name][place] += weight
    for name, weight in weights.items():
        found[name] /= weight
    return found


def _scale(tile: Tensor, rows: slice, columns: slice) -> int:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    scale = tile.shape[-1] // width
    if scale < 1 or tile.shape[-2:] != (scale * height, scale * width):
        raise OptionError(
            f"a network that makes {tile.shape[-1]}x{tile.shape[-2]} pixels of {width}x{height} cannot restore tiles: "
            "leave `tile` out",
            ("tile",),
        )
    return scale


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _profile(part: slice, length: int, scale: int, tiling: Tiling) -> Tensor:
    """Weights along one side of a tile, in output pixels: 0 in the outer quarter of the overlap at its inner edges, then
    rising linearly to 1 over half of the overlap."""
    place = torch.arange((part.stop - part.start) * scale) + 0.5
    weight = torch.ones_like(place)
    overlap = tiling.overlap * scale
    for distance, inner in ((place, part.start > 0), (len(place) - place, part.stop < length)):
        if inner:
            weight *= ((distance - overlap / 4) / (overlap / 2)).clamp(0, 1)
    return weight
