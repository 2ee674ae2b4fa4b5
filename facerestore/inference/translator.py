"""Translation of pictures between domains with trained networks of StarGAN v2, and grids and videos that show it.

Choi et al., StarGAN v2, CVPR 2020: styles of a domain come from latent codes (its mapping network) or from a reference
picture (its style encoder).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.checkpoint import Checkpoint, load_declared_weights, load_weights, read_checkpoint, recognise_state
from facerestore.data.image_io import tensor_to_image
from facerestore.errors import CheckpointError, DataError, OptionError, UserError
from facerestore.files import refuse_device

RANGE = (-1.0, 1.0)  # of all pictures here
KINDS = {
    "StarGANv2Generator": "generator",
    "StarGANv2MappingNetwork": "mapping",
    "StarGANv2StyleEncoder": "style_encoder",
    "FAN": "fan",
}


class Translator:
    """The three networks that translate, and the one that finds faces where the generator asks for it.

    Args:
        generator: pictures and styles to pictures
        mapping: latent codes to styles
        style_encoder: pictures to styles
        fan: the face alignment network, for a generator with `w_hpf` above 0
        domains: the domains' names in the order of their numbers, where they are known
    """

    def __init__(
        self,
        generator: nn.Module,
        mapping: nn.Module,
        style_encoder: nn.Module,
        fan: nn.Module | None = None,
        domains: Sequence[str] = (),
    ):
        self.generator, self.mapping, self.style_encoder, self.fan = generator, mapping, style_encoder, fan
        self.domains = list(domains)

    @classmethod
    def from_file(
        cls, weights: str | os.PathLike, fan: str | os.PathLike | None = None, device: str | torch.device = "cpu"
    ) -> Translator:
        """The networks of one file: this project's nets_ema_latest.pth, or a published nets_ema.ckpt.

        Args:
            weights: the file
            fan: file of the face alignment network, where the first one holds none
            device: where they run

        Raises:
            CheckpointError: a network is missing, does not fit the others or has no use, or a file is damaged
        """
        networks = {}
        file = read_checkpoint(weights)
        for name in file.states:
            found = recognise_state(file.state(name))
            if found and found[0] in KINDS:
                networks[KINDS[found[0]]] = filled(found, file, name)
        if missing := [kind for kind in list(KINDS.values())[:3] if kind not in networks]:
            raise CheckpointError(
                f"{weights}: holds no {missing[0]} of StarGAN v2: give a file with all of its networks "
                "(a training leaves models/nets_ema_latest.pth)"
            )
        refuse_unlike(weights, networks)
        if networks["generator"].hpf is None:
            networks.pop("fan", None)
            if fan is not None:
                raise CheckpointError(f"{weights}: its generator has no place for the FAN of {fan}: leave that file out")
        elif fan is not None:
            networks["fan"] = build_network({"type": "FAN"})
            declared = type(networks["fan"]).weight_files["fname_pretrained"]
            load_declared_weights(networks["fan"], "fname_pretrained", declared, str(fan))
        elif "fan" not in networks:
            raise CheckpointError(f"{weights}: its generator asks for a FAN, of which it holds no weights: name their file")
        said = file.meta.get("domains")
        known = (
            isinstance(said, list) and len(said) == networks["mapping"].num_domains and all(isinstance(d, str) for d in said)
        )
        return cls(**{kind: network.to(device).eval() for kind, network in networks.items()}, domains=said if known else ())

    @property
    def num_domains(self) -> int:
        return self.mapping.num_domains

    def number_of(self, domain: str) -> int:
        """The number of a domain that is given by its name or number; a name goes first where both are digits.

        Raises:
            OptionError: there is none
        """
        if domain in self.domains:
            return self.domains.index(domain)
        if domain.isdecimal() and int(domain) < self.num_domains:
            return int(domain)
        names = f": {', '.join(f'{i} = {name}' for i, name in enumerate(self.domains))}" if self.domains else ""
        raise OptionError(f"there is no domain {domain}, only 0 to {self.num_domains - 1}{names}")

    @property
    def img_size(self) -> int:
        """Side of the pictures that the style encoder takes."""
        return self.style_encoder.img_size

    @torch.no_grad()
    def styles_of_latents(self, z: Tensor, domain: int) -> Tensor:
        """Styles (N, style_dim) of latent codes (N, latent_dim)."""
        return self.mapping(z, z.new_full((len(z),), domain, dtype=torch.long)).embedding

    @torch.no_grad()
    def styles_of_references(self, x: Tensor, domain: int) -> Tensor:
        """Styles (N, style_dim) of pictures (N, 3, img_size, img_size) of a domain, in [-1, 1]."""
        return self.style_encoder(x, torch.full((len(x),), domain, device=x.device)).embedding

    @torch.no_grad()
    def translate(self, x: Tensor, styles: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [-1, 1], each in K styles (N, K, style_dim): (N, K, 3, H, W)."""
        content = self.generator.encoded(x, self.fan.get_heatmap(x) if self.fan else None)
        return torch.stack([self.generator.decoded(content, styles[:, k]) for k in range(styles.shape[1])], dim=1)

    def _in_all(self, x: Tensor, styles: Tensor) -> Tensor:
        """Every picture in every style: (N, K, 3, H, W)."""
        return self.translate(x, styles.expand(len(x), *styles.shape))

    def reference_grid(self, sources: Tensor, references: Tensor, styles: Tensor) -> np.ndarray:
        """uint8 (H, W, 3): above the sources, on the left the references, where they meet the translation into their style."""
        pictures = self._in_all(sources, styles)
        rows = [[None, *sources]]
        rows += [[reference, *pictures[:, k]] for k, reference in enumerate(references)]
        return mosaic(rows)

    def style_grid(self, sources: Tensor, styles: Tensor) -> np.ndarray:
        """uint8 (H, W, 3): above the sources, below them their translations into each of the styles (K, style_dim)."""
        pictures = self._in_all(sources, styles)
        return mosaic([list(sources), *(list(pictures[:, k]) for k in range(len(styles)))])

    def interpolation(self, sources: Tensor, styles: Tensor, frames: int) -> Iterator[np.ndarray]:
        """Frames uint8 (H, W, 3): the sources, and below them their translations, on the way from style to style.

        Args:
            sources: pictures (N, 3, H, W)
            styles: (K, style_dim), two or more
            frames: from one style to the next
        """
        with torch.no_grad():
            content = self.generator.encoded(sources, self.fan.get_heatmap(sources) if self.fan else None)
            ways = [torch.lerp(start, end, step / frames) for start, end in pairwise(styles) for step in range(frames)]
            for style in (*ways, styles[-1]):
                yield mosaic([list(sources), list(self.generator.decoded(content, style.expand(len(sources), -1)))])


def filled(found: tuple[str, Mapping[str, object]], file: Checkpoint, name: str) -> nn.Module:
    """The network that a part of a file was recognised as, with its weights."""
    network = build_network({"type": found[0], **found[1]})
    load_weights(network, file, name)
    return network


def refuse_unlike(weights: str | os.PathLike, networks: Mapping[str, nn.Module]) -> None:
    """CheckpointError where the networks of a file were not trained together."""
    for kind, said in (("generator", "style_dim"), ("style_encoder", "style_dim"), ("style_encoder", "num_domains")):
        own, others = getattr(networks[kind], said), getattr(networks["mapping"], said)
        if own != others:
            raise CheckpointError(
                f"{weights}: its {kind} has `{said}` {own}, but its mapping {others}: they do not fit together"
            )


def mosaic(rows: Sequence[Sequence[Tensor | None]]) -> np.ndarray:
    """uint8 (H, W, 3): pictures (3, h, w) in [-1, 1], of one size, side by side; white where there is none."""
    blank = torch.ones_like(next(picture for row in rows for picture in row if picture is not None))
    lines = [torch.cat([blank if picture is None else picture for picture in row], dim=2) for row in rows]
    return tensor_to_image(torch.cat(lines, dim=1).float().cpu(), min_max=RANGE)


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: int = 30) -> None:
    """Write frames uint8 (H, W, 3) RGB of one size as an MP4 file; whole, or not at all.

    Raises:
        DataError: there is no frame, or the name does not end with .mp4
        UserError: the file cannot be written
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise DataError(f"video {path}: let its name end with .mp4")
    part = path.with_name(f".{path.stem}.part.mp4")
    writer, count = None, 0
    try:
        refuse_device(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            if writer is None:
                height, width = frame.shape[:2]
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
                if not writer.isOpened():
                    raise UserError(f"{path}: OpenCV cannot write this video (no encoder, or the folder is not writable)")
            writer.write(frame[..., ::-1].copy())
            count += 1
        if writer is None:
            raise DataError(f"{path}: a video needs one frame at least")
        writer.release()
        if frames_of(part) != count:  # OpenCV says nothing of a disk that is full
            raise UserError(f"{path}: cannot be written: not all frames reached the disk (is it full?)")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if writer is not None:
            writer.release()
        with suppress(OSError):
            part.unlink()


def frames_of(video: Path) -> int:
    """How many frames a video has as it is on the disk: read to the last one; 0 where it is none."""
    reader, count = cv2.VideoCapture(str(video)), 0
    while reader.grab():
        count += 1
    reader.release()
    return count
