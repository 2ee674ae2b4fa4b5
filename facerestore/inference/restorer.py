"""From a checkpoint to a function of pictures: `Restorer("net_g_latest.pth")(image)`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.checkpoint import Checkpoint, load_weights, recognise
from facerestore.data.image_io import read_image, tensor_to_image
from facerestore.errors import CheckpointError, DataError, OptionError, listed
from facerestore.inference.tiles import restore_in_tiles, tiling_of

Precision = Literal["fp32", "bf16"]


class Restorer:
    """A trained generator as a function from picture to picture.

    Args:
        weights: this project's checkpoint, or a published one: the network is rebuilt from what the file holds; or a network
            that is filled already
        key: which weights of the file (`params`, `params_ema`); the averaged ones by default
        device: where it runs; a GPU by default where there is one
        tile: side of the parts in which larger pictures are restored, in pixels of the input, a multiple of 8; all at once
            by default
        tile_overlap: by how much such parts overlap; 64 by default, or half of `tile` where that is less
        precision: arithmetic of the forward pass
        channels_last: whether pictures lie in memory channel by channel within each pixel
        image_range: values of black and white, as the network was trained; by default as its file or its class says

    Raises:
        CheckpointError: the file is missing, damaged, of no known network, or of one that takes or makes something else
        OptionError: `tile` and `tile_overlap` do not go together
    """

    def __init__(
        self,
        weights: str | os.PathLike | nn.Module,
        key: str | None = None,
        device: str | torch.device | None = None,
        tile: int | None = None,
        tile_overlap: int | None = None,
        precision: Precision = "fp32",
        channels_last: bool = False,
        image_range: tuple[float, float] | None = None,
    ):
        self.tiling = tiling_of(tile, tile_overlap)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        told = image_range
        if isinstance(weights, nn.Module):
            self.network, self.source = weights, type(weights).__name__
        else:
            self.network, file = _rebuilt(weights, key)
            self.source, told = file.path, told or file.meta.get("image_range")
        self.low, self.high = _checked_range(told or self.network.input_range or (0.0, 1.0), self.source)
        self.network.to(self.device, torch.float32, memory_format=self.memory).eval()

    def __call__(self, image: np.ndarray | str | os.PathLike, w: float | None = None, adain: bool | None = None) -> np.ndarray:
        """Restore one picture.

        Args:
            image: uint8 (H, W, 3), RGB, or the name of a file
            w: as in :meth:`restore_batch`
            adain: likewise

        Returns:
            the restored picture, uint8 (H', W', 3), RGB
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_image(image)
        if not isinstance(image, np.ndarray):
            raise DataError(f"a picture is an array or the name of a file, not a {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(f"a picture must be uint8 (H, W, 3) RGB, not {image.dtype} {image.shape}")
        return self.restore_batch([image], w, adain)[0]

    def restore_batch(self, images: Sequence[np.ndarray], w: float | None = None, adain: bool | None = None) -> np.ndarray:
        """Restore pictures of one size at once.

        Args:
            images: uint8 (H, W, 3), RGB
            w: of a CodeFormer, how much of the input's own features is kept: 0 quality, 1 fidelity; the network's default (0)
                where nothing is said
            adain: of a CodeFormer, whether colours and light are the input's; false where nothing is said

        Returns:
            the restored pictures, uint8 (N, H', W', 3), RGB

        Raises:
            OptionError: w is not in [0, 1], or the network knows neither w nor adain
            DataError: the network takes no pictures of this size, or makes values of them that are no numbers
        """
        told = self._conditions(w, adain)
        self._refuse_other_size(images[0])
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        x = self.low + pixels.to(torch.float32, memory_format=self.memory) / 255 * (self.high - self.low)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            restored = self._restored(x, told).float()
        if not restored.isfinite().all():
            raise DataError(f"{self.source} makes values that are no numbers of it: are these weights those that were saved?")
        return tensor_to_image(restored, min_max=(self.low, self.high))

    def _conditions(self, w: float | None, adain: bool | None) -> dict[str, float | bool]:
        told = {name: value for name, value in (("w", w), ("adain", adain)) if value is not None}
        if told and not self.network.fuses_input:
            raise OptionError(f"{listed([f'`{name}`' for name in told])}: of a CodeFormer, but {self.source} is a {self.kind}")
        if w is not None and not 0 <= w <= 1:
            raise OptionError(f"w is {w}: it lies between 0 (quality) and 1 (fidelity)")
        return told

    def _refuse_other_size(self, image: np.ndarray) -> None:
        side = self.network.in_size
        height, width = image.shape[:2]
        if side is not None and self.tiling is None and (height, width) != (side, side):
            raise DataError(
                f"{self.source} takes pictures of {side}x{side}, and this one is {width}x{height}: resize it, or have "
                "scripts/restore.py do so"
            )

    @property
    def kind(self) -> str:
        """The network's type."""
        return type(self.network).__name__

    def _restored(self, x: Tensor, told: Mapping[str, float | bool]) -> Tensor:
        if self.tiling is None:
            return self.network(x, **told).image
        parts = restore_in_tiles(
            lambda rows, columns: {"": self.network(x[..., rows, columns], **told).image}, *x.shape[-2:], self.tiling
        )
        return parts[""]


def _rebuilt(weights: str | os.PathLike, key: str | None) -> tuple[nn.Module, Checkpoint]:
    """The network of a file, filled; CheckpointError where it is not one from picture to picture."""
    kind, keywords, file = recognise(weights)
    network = build_network({"type": kind, **keywords})
    if "image" not in network.offers:
        raise CheckpointError(f"{weights}: holds a {kind}, which makes no picture: give the generator's file")
    if network.takes != ("picture",):
        taken = listed([f"`{name}`" for name in network.takes])
        raise CheckpointError(f"{weights}: holds a {kind}, which takes {taken}: Restorer gives it a picture alone")
    load_weights(network, file, key)
    return network, file


def _checked_range(told: object, source: str) -> tuple[float, float]:
    """Black and white as numbers; CheckpointError where `told`, of a file, is no range."""
    try:
        low, high = map(float, told)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise CheckpointError(f"{source}: says that pictures lie in {told!r:.60}, which is no range")
    return low, high
