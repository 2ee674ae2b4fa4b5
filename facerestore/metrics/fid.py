"""FID and KID: how far a set of restorations is from a set of faces, by the features of an Inception network."""

from __future__ import annotations

import math
import zipfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerestore.archs.fid_inception import FEATURES, SIDE, FIDInception
from facerestore.errors import DataError, listed
from facerestore.files import atomic_write, digest
from facerestore.metrics.base import SetMetric
from facerestore.metrics.frechet import Gaussian, Moments, Samples, frechet_distance, kernel_distance
from facerestore.registry import METRICS, WeightFile

MEANS, COVARIANCES = ("mu", "mean"), ("sigma", "cov")  # pytorch-fid's names and BasicSR's


class InceptionMetric(SetMetric):
    """What FID and KID share: the network."""

    weight_files = {
        "weights": WeightFile(
            module="network",
            default="published",
            required=True,
            extra_keys=True,
            doc="file of pytorch-fid's Inception (pt_inception-2015-12-05-6726825d.pth, the default); or 'random'",
        )
    }

    def __init__(self) -> None:
        super().__init__()
        self.network = FIDInception()

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        return self.network(image)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "Inception of 2015-12-05 (pytorch-fid), pool3",
            "colours": f"RGB, bilinear to {SIDE} x {SIDE} without antialiasing",
        }


@METRICS.register("calculate_fid")
class FID(InceptionMetric):
    """Fréchet Inception distance of the restorations to a reference.  Lower is better.

    Heusel et al., NeurIPS 2017.  It falls with the number of pictures, so figures of sets of different sizes cannot be
    compared; of fewer than 2048 the covariance is singular.  Not a number of fewer than two pictures.
    """

    def __init__(self, reference: str | None = None):
        """
        Args:
            reference: file of a reference's statistics (.npz with `mu` and `sigma`, or `mean` and `cov`); the truths of the
                data set by default
        """
        super().__init__()
        self.reference, self.needs_truth = reference, reference is None
        self.gaussian: Gaussian | None = None  # of the reference, once it is read

    def open(self) -> None:
        if self.reference:
            self.gaussian = read_statistics(self.reference)

    def statistics(self) -> Moments:
        return Moments()

    def compute(self, restored: Moments, truth: Moments | None) -> float:
        of_restored, of_reference = restored.gaussian(), truth.gaussian() if self.needs_truth else self.gaussian
        return frechet_distance(of_restored, of_reference) if of_restored and of_reference else math.nan

    def protocol(self) -> dict[str, Any]:
        named = {"reference_sha256": digest(self.reference)} if self.reference else {"reference": "the data set's truths"}
        return {**super().protocol(), **named}


@METRICS.register("calculate_kid")
class KID(InceptionMetric):
    """Kernel Inception distance of the restorations to the truths, unbiased for any number.  Lower is better.

    Binkowski et al., Demystifying MMD GANs, ICLR 2018, over all pictures at once and not as the mean of random subsets.
    Not a number of fewer than two pictures.
    """

    def __init__(self, scale: float = 1.0):
        """
        Args:
            scale: what the figure is multiplied by; papers often report 1000 times
        """
        super().__init__()
        self.scale = scale

    def statistics(self) -> Samples:
        return Samples()

    def compute(self, restored: Samples, truth: Samples | None) -> float:
        return self.scale * kernel_distance(restored.stacked(), truth.stacked())


def write_statistics(path: str, seen: Moments) -> None:
    """Store the statistics of a reference, as :func:`read_statistics` and pytorch-fid read them.

    Raises:
        DataError: there are fewer than two pictures
    """
    gaussian = seen.gaussian()
    if gaussian is None:
        raise DataError(f"{path}: statistics need two pictures at least, not {seen.count}")
    arrays = {"mu": gaussian.mean.numpy(), "sigma": gaussian.covariance.numpy(), "count": np.array(seen.count)}
    atomic_write(path, lambda file: np.savez(file, **arrays))


def read_statistics(path: str) -> Gaussian:
    """The stored statistics of a reference.

    Raises:
        DataError: there is no such file, or it holds something else
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {name: loaded[name] for name in loaded} if isinstance(loaded, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError:
        raise DataError(f"{path}: this file does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged, or no file of statistics (.npz): {error}") from None
    mean, covariance = (next((arrays[n] for n in names if n in arrays), None) for names in (MEANS, COVARIANCES))
    if mean is None or covariance is None:
        raise DataError(f"{path}: needs `mu` and `sigma` (or `mean` and `cov`); it holds {listed(list(arrays)) or 'nothing'}")
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise DataError(
            f"{path}: statistics of {FEATURES} features are needed, not a mean of {mean.shape} and a covariance of "
            f"{covariance.shape}: they were made with another layer or network"
        )
    return Gaussian(torch.from_numpy(mean).double(), torch.from_numpy(covariance).double())
