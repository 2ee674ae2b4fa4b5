"""From a checkpoint to a function of pictures: `Restorer("net_g_latest.pth")(image)`."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.checkpoint import Checkpoint, load_weights, recognise
from facerestore.data.image_io import read_image, tensor_to_image
from facerestore.errors import CheckpointError, DataError, OptionError, listed
from facerestore.inference.tiles import restore_in_tiles, tiling_of


class Restorer:
    """A trained generator as a function from picture to picture.

    Args:
        weights: this project's checkpoint, or a published one: the network is rebuilt from what the file holds
        key: which weights of the file (`params`, `params_ema`); the averaged ones by default
        device: where it runs; a GPU by default where there is one
        tile: side of the parts in which larger pictures are restored, in pixels of the input, a multiple of 8; all at once
            by default
        tile_overlap: by how much such parts overlap; 64 by default, or half of `tile` where that is less

    Raises:
        CheckpointError: the file is missing, damaged, of no known network, or of one that takes or makes something else
        OptionError: `tile` and `tile_overlap` do not go together
    """

    def __init__(
        self,
        weights: str | os.PathLike,
        key: str | None = None,
        device: str | torch.device | None = None,
        tile: int | None = None,
        tile_overlap: int | None = None,
    ):
        self.tiling = tiling_of(tile, tile_overlap)
        kind, keywords, file = recognise(weights)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self.network: nn.Module = build_network({"type": kind, **keywords})
        except OptionError as error:
            raise CheckpointError(f"{weights}: says of itself what cannot be: {error}") from None
        if "image" not in self.network.offers:
            raise CheckpointError(f"{weights}: holds a {kind}, which makes no picture: give the generator's file")
        if self.network.takes != ("picture",):
            taken = listed([f"`{name}`" for name in self.network.takes])
            raise CheckpointError(f"{weights}: holds a {kind}, which takes {taken}: Restorer gives it a picture alone")
        load_weights(self.network, file, key)
        self.network.to(self.device, torch.float32).eval()
        self.low, self.high = _image_range(file, self.network)

    def __call__(self, image: np.ndarray | str | os.PathLike) -> np.ndarray:
        """Restore one picture.

        Args:
            image: uint8 (H, W, 3), RGB, or the name of a file

        Returns:
            the restored picture, uint8 (H', W', 3), RGB
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_image(image)
        if not isinstance(image, np.ndarray):
            raise DataError(f"a picture is an array or the name of a file, not a {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(f"a picture must be uint8 (H, W, 3) RGB, not {image.dtype} {image.shape}")
        x = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)[None].float()
        x = self.low + x / 255 * (self.high - self.low)
        with torch.no_grad():
            restored = self._restored(x)
        return tensor_to_image(restored[0].float().cpu(), min_max=(self.low, self.high))

    def _restored(self, x: Tensor) -> Tensor:
        if self.tiling is None:
            return self.network(x).image
        parts = restore_in_tiles(
            lambda rows, columns: {"": self.network(x[..., rows, columns]).image}, *x.shape[-2:], self.tiling
        )
        return parts[""]


def _image_range(file: Checkpoint, network: nn.Module) -> tuple[float, float]:
    """The range of pictures that the network was trained on: as its file says, or as its class declares."""
    told = file.meta.get("image_range") or network.input_range or (0.0, 1.0)
    try:
        low, high = map(float, told)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise CheckpointError(f"{file.path}: says that pictures lie in {told!r:.60}, which is no range")
    return low, high
