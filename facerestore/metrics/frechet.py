"""Distances of two sets of features.

Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017, eq. 6 (of
Gaussians); Binkowski et al., Demystifying MMD GANs, ICLR 2018 (of the sets themselves).  All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor


class Gaussian(NamedTuple):
    """A distribution of features."""

    mean: Tensor  # (D,), float64
    covariance: Tensor  # (D, D), float64


@dataclass
class Moments:
    """Mean and scatter of features that come a few at a time, on one process or on many.

    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979: sums of
    squares are taken about the mean, so that nothing is lost where it is large.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    scatter: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.float64))  # of outer products about it

    def add(self, features: Tensor) -> None:
        values = features.to("cpu", torch.float64)
        mean = values.mean(0)
        self._take(len(values), mean, values - mean)

    def merge(self, other: Moments) -> None:
        if other.count:
            self._take(other.count, other.mean, torch.zeros_like(other.mean)[None])
            self.scatter += other.scatter

    def gaussian(self) -> Gaussian | None:
        """The Gaussian of these moments, its covariance unbiased; None of fewer than two pictures."""
        return Gaussian(self.mean, self.scatter / (self.count - 1)) if self.count > 1 else None

    def _take(self, count: int, mean: Tensor, deviations: Tensor) -> None:
        """`count` more, of this mean, whose `deviations` (n, D) from it give their scatter."""
        if not self.count:
            self.mean, self.scatter = torch.zeros_like(mean), mean.new_zeros(len(mean), len(mean))
        total = self.count + count
        away = mean - self.mean
        rows = torch.cat((deviations, away[None] * (self.count * count / total) ** 0.5))
        self.scatter.addmm_(rows.T, rows)
        self.mean += away * (count / total)
        self.count = total


@dataclass
class Samples:
    """Features themselves."""

    parts: list[Tensor] = field(default_factory=list)

    def add(self, features: Tensor) -> None:
        self.parts.append(features.cpu())

    def merge(self, other: Samples) -> None:
        self.parts += other.parts

    def stacked(self) -> Tensor:
        """(N, D), float64."""
        return torch.cat(self.parts).double() if self.parts else torch.zeros(0, 1, dtype=torch.float64)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance of two Gaussians: |m_a - m_b|² + tr C_a + tr C_b - 2 tr (C_a C_b)^(1/2).

    With C_a = H H^T, the eigenvalues of C_a C_b that are not 0 are those of H^T C_b H, which is symmetric: no covariance
    need be regular, and nothing becomes complex.
    """
    half = factor(a.covariance)
    shared = roots(torch.linalg.eigvalsh(half.T @ b.covariance @ half)).sum()
    apart = (a.mean - b.mean).square().sum()
    return float(apart + a.covariance.trace() + b.covariance.trace() - 2 * shared)


def factor(covariance: Tensor) -> Tensor:
    """H (D, r) with H H^T = C of rank r, by Cholesky's method with pivots: fast where pictures are fewer than features."""
    lower, order, rank, _ = lapack.dpstrf(covariance.numpy(), lower=1)
    rows = np.empty((len(covariance), rank))
    rows[order - 1] = np.tril(lower)[:, :rank]
    return torch.from_numpy(rows)


def roots(eigenvalues: Tensor) -> Tensor:
    """Square roots; 0 of what is only rounding, whose roots would be much larger than it."""
    least = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    return torch.where(eigenvalues > least, eigenvalues, 0).sqrt()


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of features (N, D) and (M, D), by the kernel
    (x · y / D + 1)³; NaN of fewer than two."""
    if min(len(x), len(y)) < 2:
        return float("nan")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())
