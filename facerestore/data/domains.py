"""Pictures of several domains: what StarGAN v2 translates from one to another.

A sample is a source picture, two references of one target domain, and two latent codes.  Every domain is the source, and the
target, as often as any other, however many pictures it has.  Chance as in clovaai/stargan-v2, core/data_loader.py; Choi et
al., StarGAN v2, CVPR 2020, appendix on training.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from PIL import Image

from facerestore.data.augment import Crop, apply_flips, sample_flips, sample_resized_crop
from facerestore.data.base import FaceDataset, Mean, OnBadImage, Share, Std
from facerestore.data.image_io import PictureError
from facerestore.data.storage import Pictures
from facerestore.data.synthetic import DOMAINS
from facerestore.data.synthetic_faces import CACHE, Number
from facerestore.errors import DataError, listed
from facerestore.registry import DATASETS

ImageSide = Annotated[int, Meta(ge=32, le=4096)]
LatentDim = Annotated[int, Meta(ge=1, le=65_536)]
Count = Annotated[int, Meta(ge=1, le=10**7)]

AREA, RATIO = (0.8, 1.0), (0.9, 1.1)  # of the part that is cut out: share of the picture, width / height
PICTURE_KEYS = ("x_src", "x_ref", "x_ref2")


class DomainDataset(FaceDataset):
    """`x_src`, `x_ref` and `x_ref2` (img_size, img_size, 3), uint8 RGB; the numbers `y_src` and `y_ref` of their domains;
    `z_trg` and `z_trg2` (latent_dim,), unit normal; `x_src_path`.

    An epoch takes every domain as often as the largest one has pictures.  Smaller ones come again as a whole, and what is
    then left is drawn from them.  The target domain is any, also that of the source, and its references are drawn.
    """

    mean = std = (0.5, 0.5, 0.5)
    provides = frozenset({*PICTURE_KEYS, "y_src", "y_ref", "z_trg", "z_trg2"})

    def __init__(
        self,
        img_size: int,
        latent_dim: int,
        randcrop_prob: float,
        use_hflip: bool,
        mean: Mean | None,
        std: Std | None,
        on_bad_image: OnBadImage = "stop",
    ):
        super().__init__(mean, std, on_bad_image)
        self.img_size, self.latent_dim = img_size, latent_dim
        self.randcrop_prob, self.use_hflip = randcrop_prob, use_hflip

    @property
    @abstractmethod
    def domains(self) -> list[str]:
        """The domains' names; a domain's number is its place among them."""

    @abstractmethod
    def names_of(self, domain: int) -> list[str]:
        """The pictures of a domain; at least one."""

    @abstractmethod
    def read(self, domain: int, name: str) -> np.ndarray:
        """A picture (H, W, 3) of a domain as it is stored, uint8 RGB; PictureError where it cannot be read."""

    @abstractmethod
    def path(self, domain: int, name: str) -> str:
        """What reports and errors call it."""

    def reals(self) -> DomainDataset:
        """The real pictures that translations are compared with: these, or others of the same domains."""
        return self

    def first(self, count: int) -> DomainDataset:
        """With few pictures: the first of every domain."""
        return FirstOfDomains(self, max(1, count // len(self.domains)))

    def pictures_of(self, domain: int) -> DomainPictures:
        """The pictures of one domain as a data set of its own, as they are evaluated: whole, and resized."""
        return DomainPictures(self, domain)

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(PICTURE_KEYS, (self.img_size, self.img_size))

    def label_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"y_src": (), "y_ref": (), "z_trg": (self.latent_dim,), "z_trg2": (self.latent_dim,)}

    def extent(self) -> str:
        there = sum(len(self.names_of(domain)) for domain in range(len(self.domains)))
        return f"{there} pictures" + (f" (an epoch takes {len(self)})" if there != len(self) else "")

    def contents(self) -> str:
        """Which domain has which number: `domains: 0 = cats (8 pictures), 1 = dogs (8)`."""
        counts = [f"{len(self.names_of(domain))}{'' if domain else ' pictures'}" for domain in range(len(self.domains))]
        numbered = enumerate(zip(self.domains, counts, strict=True))
        return "domains: " + ", ".join(f"{number} = {name} ({count})" for number, (name, count) in numbered)

    def facts(self) -> dict[str, Any]:
        return {"domains": self.domains}

    @cached_property
    def _largest(self) -> int:
        """How many pictures the largest domain has."""
        return max(len(self.names_of(domain)) for domain in range(len(self.domains)))

    def __len__(self) -> int:
        return len(self.domains) * self._largest

    def name(self, index: int) -> str:
        """The source's domain and name; `+1` and so on behind it where a smaller domain comes again."""
        place, domain = divmod(index, len(self.domains))
        names = self.names_of(domain)
        turn, place = divmod(place, len(names))
        return f"{self.domains[domain]}/{names[place]}" + (f"+{turn}" if turn else "")

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        place, source = divmod(index, len(self.domains))
        names = self.names_of(source)
        drawn = int(rng.integers(len(names)))  # in any case, so that what follows does not depend on the place
        turns = self._largest // len(names)
        place = place % len(names) if place < turns * len(names) else drawn
        target = int(rng.integers(len(self.domains)))
        references = rng.integers(len(self.names_of(target)), size=2).tolist()
        latents = rng.standard_normal((2, self.latent_dim)).astype(np.float32)
        x_src, path = self._augmented(source, place, rng)
        return {
            "x_src": x_src,
            "y_src": source,
            "x_ref": self._augmented(target, references[0], rng)[0],
            "x_ref2": self._augmented(target, references[1], rng)[0],
            "y_ref": target,
            "z_trg": latents[0],
            "z_trg2": latents[1],
            "x_src_path": path,
        }

    def _augmented(self, domain: int, place: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """A picture as training sees it, and its path: half of them cut to a part (`randcrop_prob`), half mirrored."""
        image, path = self._readable(domain, place)
        whole = Crop(0, 0, *image.shape[:2])
        crop = sample_resized_crop(rng, *image.shape[:2], AREA, RATIO) if rng.random() < self.randcrop_prob else whole
        flips = sample_flips(rng, self.use_hflip)
        return apply_flips(resized(image, crop, self.img_size), flips), path

    def _readable(self, domain: int, place: int) -> tuple[np.ndarray, str]:
        """A picture and its path; under `on_bad_image: skip`, the domain's next one that can be read."""
        names = self.names_of(domain)
        for name in (*names[place:], *names[:place]):
            try:
                return self.read(domain, name), self.path(domain, name)
            except PictureError as error:
                if self.on_bad_image == "stop":
                    raise
                self._passed_over(error)
        raise DataError(f"not one picture of the domain {self.domains[domain]!r} can be read; the log names each")


@DATASETS.register()
class DomainFolderDataset(DomainDataset):
    """A folder for each domain, with its pictures at any depth below.

    Domains are numbered by the alphabet, as published: `female` 0, `male` 1; `cat` 0, `dog` 1, `wild` 2.
    """

    def __init__(
        self,
        dataroot: str,
        img_size: ImageSide = 256,
        latent_dim: LatentDim = 16,
        randcrop_prob: Share = 0.5,
        use_hflip: bool = True,
        dataroot_real: str | None = None,
        mean: Mean | None = None,
        std: Std | None = None,
        on_bad_image: OnBadImage = "stop",
    ):
        """
        Args:
            dataroot: the folder that holds the domains' folders
            img_size: side of a sample's pictures in pixels, to which pictures of any size and shape are resized
            latent_dim: numbers in a latent code, as the mapping network takes them
            randcrop_prob: how many of the training's pictures are cut to a part (0.8 to 1 of the area), as a share
            use_hflip: whether half of the training's pictures are mirrored
            dataroot_real: a folder of the same domains whose pictures evaluation compares translations with (published:
                the training's); `dataroot` by default
            mean: value in [0, 1] that becomes 0, by channel; 0.5 by default
            std: width in [0, 1] that becomes 1, by channel; 0.5 by default
            on_bad_image: what training does where a picture cannot be read: stop, or skip it for another
        """
        super().__init__(img_size, latent_dim, randcrop_prob, use_hflip, mean, std, on_bad_image)
        self.dataroot, self.dataroot_real = dataroot, dataroot_real

    @cached_property
    def domains(self) -> list[str]:
        """The domains' names, by the alphabet; DataError where there are fewer than two, or one has no picture."""
        found = list(self._folders)
        for domain in range(len(found)):
            self.names_of(domain)
        return found

    @cached_property
    def _folders(self) -> dict[str, Pictures]:
        where = f"folder {self.dataroot}, named by `dataroot`,"
        if not os.path.isdir(self.dataroot):
            found = "is not a folder" if os.path.exists(self.dataroot) else "does not exist"
            raise DataError(f"{where} {found}: correct the path (from {os.getcwd()})")
        folders = sorted(entry.name for entry in os.scandir(self.dataroot) if entry.is_dir() and entry.name[0] != ".")
        if len(folders) < 2:
            has = f"one domain only ({folders[0]})" if folders else "no domain"
            raise DataError(f"{where} holds {has}: translation needs two or more, each a folder with its pictures")
        return {name: Pictures(os.path.join(self.dataroot, name), "dataroot") for name in folders}

    def _pictures(self, domain: int) -> Pictures:
        return list(self._folders.values())[domain]

    def names_of(self, domain: int) -> list[str]:
        return self._pictures(domain).names

    def read(self, domain: int, name: str) -> np.ndarray:
        return self._pictures(domain).read(name)

    def path(self, domain: int, name: str) -> str:
        return self._pictures(domain).path(name)

    def reals(self) -> DomainDataset:
        if self.dataroot_real is None:
            return self
        others = DomainFolderDataset(self.dataroot_real, self.img_size)
        if others.domains != self.domains:
            raise DataError(
                f"folder {self.dataroot_real}, named by `dataroot_real`, holds the domains {listed(others.domains)}, but "
                f"{self.dataroot} holds {listed(self.domains)}: they must be the same"
            )
        return others


@DATASETS.register()
class SyntheticDomainDataset(DomainDataset):
    """Drawn faces, feminine (0) and masculine (1) ones: translation without a download.

    They are drawn when they are first asked for (0.05 s at 64 pixels) and kept in memory.  No person is in both domains.
    """

    def __init__(
        self,
        count: Count,
        img_size: ImageSide = 64,
        seed: Number = 0,
        start: Number = 0,
        latent_dim: LatentDim = 16,
        randcrop_prob: Share = 0.5,
        use_hflip: bool = True,
        count_real: Count | None = None,
        start_real: Number = 0,
        mean: Mean | None = None,
        std: Std | None = None,
    ):
        """
        Args:
            count: how many pictures of each domain
            img_size: side of a picture in pixels
            seed: which people and pictures; not the run's `manual_seed`
            start: number of the first picture, so that one set can follow another (training and validation)
            latent_dim: numbers in a latent code, as the mapping network takes them
            randcrop_prob: how many of the training's pictures are cut to a part (0.8 to 1 of the area), as a share
            use_hflip: whether half of the training's pictures are mirrored
            count_real: how many pictures of each domain evaluation compares translations with (published: the training's);
                this set's own by default
            start_real: number of the first of these
            mean: value in [0, 1] that becomes 0, by channel; 0.5 by default
            std: width in [0, 1] that becomes 1, by channel; 0.5 by default
        """
        super().__init__(img_size, latent_dim, randcrop_prob, use_hflip, mean, std)
        self.count, self.world, self.start = count, seed, start
        self.count_real, self.start_real = count_real, start_real

    @property
    def domains(self) -> list[str]:
        return list(DOMAINS)

    def names_of(self, domain: int) -> list[str]:
        return self._names[domain]

    @cached_property
    def _names(self) -> list[list[str]]:
        """Every other number is of the one domain, and those between are of the other."""
        step = len(DOMAINS)
        return [[f"{self.start + step * i + domain:06d}" for i in range(self.count)] for domain in range(step)]

    def read(self, domain: int, name: str) -> np.ndarray:
        return CACHE.get(self.world, int(name), self.img_size, int(name), domain).image

    def path(self, domain: int, name: str) -> str:
        return f"synthetic/{self.world}/{DOMAINS[domain]}/{name}"

    def reals(self) -> DomainDataset:
        if self.count_real is None:
            return self
        return SyntheticDomainDataset(self.count_real, self.img_size, self.world, self.start_real)


class FirstOfDomains(DomainDataset):
    """The first `count` pictures of each domain of a data set."""

    def __init__(self, whole: DomainDataset, count: int):
        super().__init__(
            whole.img_size, whole.latent_dim, whole.randcrop_prob, whole.use_hflip, whole.mean, whole.std, whole.on_bad_image
        )
        self.whole, self.count, self.seed = whole, count, whole.seed

    @property
    def domains(self) -> list[str]:
        return self.whole.domains

    def names_of(self, domain: int) -> list[str]:
        return self.whole.names_of(domain)[: self.count]

    def read(self, domain: int, name: str) -> np.ndarray:
        return self.whole.read(domain, name)

    def path(self, domain: int, name: str) -> str:
        return self.whole.path(domain, name)


class DomainPictures(FaceDataset):
    """The pictures of one domain: `picture` (img_size, img_size, 3), uint8 RGB."""

    provides = frozenset({"picture"})

    def __init__(self, whole: DomainDataset, domain: int):
        super().__init__(whole.mean, whole.std)
        self.whole, self.domain, self.seed = whole, domain, whole.seed

    def __len__(self) -> int:
        return len(self.whole.names_of(self.domain))

    def name(self, index: int) -> str:
        return f"{self.whole.domains[self.domain]}/{self.whole.names_of(self.domain)[index]}"

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        image = self.whole.read(self.domain, self.whole.names_of(self.domain)[index])
        return {"picture": resized(image, Crop(0, 0, *image.shape[:2]), self.whole.img_size)}


def resized(image: np.ndarray, part: Crop, side: int) -> np.ndarray:
    """A part of a picture (H, W, 3) as (side, side, 3), by Pillow's bilinear filter, which averages where it shrinks."""
    if (part.height, part.width) == (side, side) == image.shape[:2]:
        return image
    box = (part.left, part.top, part.left + part.width, part.top + part.height)
    return np.asarray(Image.fromarray(image).crop(box).resize((side, side), Image.Resampling.BILINEAR))
