"""Blur kernels: Gaussian and its kin, the sinc, motion.  `sample_*` draws the parameters, `make_kernel` is pure.

Gaussian, generalised Gaussian, plateau: Liu et al., Estimating Generalized Gaussian Blur Kernels for Out-of-Focus Image
Deblurring, IEEE TCSVT, 2020, and Wang et al., Real-ESRGAN, ICCVW 2021, section 3.1; skew: Gupta et al., A multivariate skew
normal distribution, Journal of Multivariate Analysis 89, 2004; sinc: Real-ESRGAN, section 3.3.  Angles turn from x (to the
right) towards y (downwards).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.ndimage import shift
from scipy.special import j1, ndtr

from facerestore.errors import OptionError, nearest

Range = tuple[float, float]
KernelType = Literal[
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "generalized",
    "plateau_iso",
    "plateau_aniso",
    "skew",
    "sinc",
    "motion",
]
TURN: Range = (-math.pi, math.pi)


class KernelNoise(NamedTuple):
    """Uniform factors of a kernel's values, which is scaled to sum 1 again."""

    low: float
    high: float
    seed: int  # the factors are drawn from it


class Kernel(NamedTuple):
    """What a kernel is made of.  A type reads what it needs, as its line says."""

    type: KernelType  # `generalized` is CodeFormer's name of `generalized_aniso`
    size: int  # side in pixels, odd
    sigma_x: float = 0.0  # pixels; the Gaussian's kin
    sigma_y: float = 0.0  # aniso types and skew
    rotation: float = 0.0  # radians; aniso types and skew: of the axes of sigma_x and sigma_y; motion: its middle direction
    beta: float = 1.0  # exponent of generalized and plateau types; at 1, generalized is the Gaussian
    skew: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # the matrix D, row by row
    centred: bool = True  # skew: its centre of mass is moved to the middle
    cutoff: float = math.pi  # sinc: the highest frequency, radians per pixel
    pad_to: int = 0  # sinc: zeros around it up to this side
    length: float = 0.0  # motion: pixels from end to end, below `size`
    bend: float = 0.0  # motion: radians that the direction turns from end to end
    noise: KernelNoise | None = None


def make_kernel(kernel: Kernel) -> np.ndarray:
    """The kernel, float64 (size, size) or (pad_to, pad_to), of sum 1.  Values of sinc and skew may be a little negative.

    Raises:
        ValueError: a motion is longer than the kernel is wide.
    """
    if kernel.type == "sinc":
        values = _sinc(kernel)
    elif kernel.type == "motion":
        values = _motion(kernel)
    elif kernel.type == "skew":
        values = _skew(kernel)
    else:
        values = _elliptic(kernel)
    if kernel.noise is None:
        return values
    low, high, seed = kernel.noise
    return vary_kernel(values, np.random.default_rng(seed).uniform(low, high, values.shape))


def vary_kernel(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A kernel times `factors` of the same shape, once (published code does it twice), of sum 1 again."""
    return _normalised(values * factors)


def _normalised(values: np.ndarray) -> np.ndarray:
    return values / values.sum()


@lru_cache(maxsize=64)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels' x and y from the middle: rows (size^2, 2), and their monomials x^2, 2 x y, y^2: (3, size^2)."""
    y, x = np.mgrid[:size, :size].reshape(2, -1) - (size - 1) / 2
    grid, monomials = np.stack([x, y], 1), np.stack([x * x, 2 * x * y, y * y])
    grid.flags.writeable = monomials.flags.writeable = False  # every kernel of this size reads them
    return grid, monomials


def _squared_distance(kernel: Kernel) -> np.ndarray:
    """g^T S^-1 g at the pixels g, (size^2,), where S = U diag(sigma_x^2, sigma_y^2) U^T and U is the rotation."""
    along, across = kernel.sigma_x**-2, kernel.sigma_y**-2
    cos, sin = math.cos(kernel.rotation), math.sin(kernel.rotation)
    inverse = [along * cos**2 + across * sin**2, (along - across) * cos * sin, along * sin**2 + across * cos**2]
    return np.array(inverse) @ _grid(kernel.size)[1]


def _elliptic(kernel: Kernel) -> np.ndarray:
    """Functions of the squared distance alone."""
    family, _, form = kernel.type.partition("_")
    if family == "iso" or form == "iso":
        kernel = kernel._replace(sigma_y=kernel.sigma_x, rotation=0.0)
    distance = _squared_distance(kernel)
    if family in ("generalized", "plateau"):
        distance **= kernel.beta
    values = 1 / (1 + distance) if family == "plateau" else np.exp(-0.5 * distance)
    return _normalised(values.reshape(kernel.size, kernel.size))


def _skew(kernel: Kernel) -> np.ndarray:
    """The Gaussian times the standard bivariate normal distribution function at g D, g the pixel as a row."""
    argument = _grid(kernel.size)[0] @ np.reshape(kernel.skew, (2, 2))
    values = np.exp(-0.5 * _squared_distance(kernel)) * ndtr(argument).prod(1)
    values = _normalised(values.reshape(kernel.size, kernel.size))
    if not kernel.centred:
        return values
    x, y = values.ravel() @ _grid(kernel.size)[0]
    return _normalised(shift(values, (-y, -x), mode="nearest"))


def _sinc(kernel: Kernel) -> np.ndarray:
    """The ideal low-pass of all directions: cutoff J1(cutoff r) / (2 pi r)."""
    radius = np.linalg.norm(_grid(kernel.size)[0], axis=1).reshape(kernel.size, kernel.size)
    middle = radius == 0
    radius[middle] = 1
    values = kernel.cutoff * j1(kernel.cutoff * radius) / (2 * math.pi * radius)
    values[middle] = kernel.cutoff**2 / (4 * math.pi)
    margin = max(0, kernel.pad_to - kernel.size) // 2
    return np.pad(_normalised(values), margin)


def _motion(kernel: Kernel) -> np.ndarray:
    """An even motion along an arc whose centre of mass is the middle: points spread over the four pixels around each.

    No point of a path of length l is further than l / 2 from its centre of mass, so it fits whatever its bend.
    """
    if kernel.length > kernel.size - 1:
        raise ValueError(f"a motion of {kernel.length:g} pixels does not fit into a kernel of {kernel.size}")
    count = math.ceil(4 * kernel.length) + 1
    direction = kernel.rotation + kernel.bend * ((np.arange(count) + 0.5) / count - 0.5)
    steps = np.stack([np.cos(direction), np.sin(direction)]) * (kernel.length / count)
    path = steps.cumsum(1) - steps / 2
    path += (kernel.size - 1) / 2 - path.mean(1, keepdims=True)
    corner = np.minimum(path.astype(int), kernel.size - 2)
    far = path - corner
    near = 1 - far
    shares = np.concatenate([near[0] * near[1], far[0] * near[1], near[0] * far[1], far[0] * far[1]])
    first = corner[1] * kernel.size + corner[0]
    pixels = np.concatenate([first, first + 1, first + kernel.size, first + kernel.size + 1])
    values = np.bincount(pixels, shares, kernel.size**2)
    return _normalised(values.reshape(kernel.size, kernel.size))


def check_kernel_choice(types: Sequence[str], probabilities: Sequence[float]) -> None:
    """For constructors that take both as options.

    Raises:
        OptionError: a type is unknown, their numbers differ, or the probabilities are no weights.
    """
    for name in types:
        if name not in get_args(KernelType):
            raise OptionError(f"there is no kernel {name!r}{nearest(name, get_args(KernelType))}")
    if not types or len(types) != len(probabilities):
        raise OptionError(f"{len(types)} types of kernels have {len(probabilities)} probabilities: give each type one")
    if min(probabilities) < 0 or sum(probabilities) <= 0:
        raise OptionError(f"the probabilities of the kernels are {list(probabilities)}: none may be negative, nor all zero")


def sample_kernel(
    rng: np.random.Generator,
    types: Sequence[KernelType],
    probabilities: Sequence[float],
    size: int,
    sigma_x_range: Range = (0.6, 5.0),
    sigma_y_range: Range | None = None,
    rotation_range: Range = TURN,
    betag_range: Range = (0.5, 8.0),
    betap_range: Range = (0.5, 8.0),
    noise_range: Range | None = None,
    split_plateau_iso: bool = True,
) -> Kernel:
    """The kernels of BasicSR's and CodeFormer's training.  Every number is uniform in its range.

    Args:
        rng: what is drawn from
        types: the types that are chosen from
        probabilities: their weights
        size: side in pixels, odd
        sigma_x_range: pixels
        sigma_y_range: likewise; None: that of sigma_x
        rotation_range: radians
        betag_range: of beta of the generalized types: below 1 in half of the draws, above it in the others
        betap_range: of the plateau types, likewise
        noise_range: factors of the kernel's values; None: no noise
        split_plateau_iso: whether `plateau_iso` has its halves too (BasicSR), or is uniform in the whole range (CodeFormer)
    """
    weights = np.cumsum(probabilities)
    name = types[int(np.searchsorted(weights, rng.uniform(0, weights[-1]), side="right"))]
    if name == "sinc":
        kernel = sample_sinc(rng, size)
    elif name == "motion":
        kernel = sample_motion(rng, size)
    else:
        kernel = Kernel(name, size, sigma_x=rng.uniform(*sigma_x_range))
    if name in ("aniso", "generalized", "generalized_aniso", "plateau_aniso", "skew"):
        sigma_y, rotation = rng.uniform(*(sigma_y_range or sigma_x_range)), rng.uniform(*rotation_range)
        kernel = kernel._replace(sigma_y=sigma_y, rotation=rotation)
    if name == "skew":
        limit = 3 / max(kernel.sigma_x, kernel.sigma_y)
        kernel = kernel._replace(skew=tuple(rng.uniform(-limit, limit, 4).tolist()))
    elif name.startswith(("generalized", "plateau")):
        beta_range = betap_range if name.startswith("plateau") else betag_range
        split = split_plateau_iso or name != "plateau_iso"
        kernel = kernel._replace(beta=_sample_beta(rng, beta_range) if split else rng.uniform(*beta_range))
    if noise_range is None:
        return kernel
    return kernel._replace(noise=KernelNoise(*noise_range, seed=int(rng.integers(2**63))))


def _sample_beta(rng: np.random.Generator, beta_range: Range) -> float:
    """As often below 1 (a peak) as above it (a plateau)."""
    low, high = beta_range
    return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def sample_sinc(rng: np.random.Generator, size: int, cutoff_range: Range | None = None, pad_to: int = 0) -> Kernel:
    """Real-ESRGAN's ringing.

    Args:
        rng: what is drawn from
        size: side in pixels, odd
        cutoff_range: radians per pixel; None: from pi / 3 where the kernel is smaller than 13 and pi / 5 otherwise, to pi
        pad_to: side with the zeros around it
    """
    low, high = cutoff_range or (math.pi / (3 if size < 13 else 5), math.pi)
    return Kernel("sinc", size, cutoff=rng.uniform(low, high), pad_to=pad_to)


def sample_motion(
    rng: np.random.Generator, size: int, length_range: Range | None = None, bend_range: Range = (-0.8, 0.8)
) -> Kernel:
    """A camera that moved, in any direction.  (The 32 motion kernels of CodeFormer's options were never published.)

    Args:
        rng: what is drawn from
        size: side in pixels, odd
        length_range: pixels; None: from a quarter of the side to nearly all of it
        bend_range: radians that the direction turns on the way
    """
    length = rng.uniform(*(length_range or (size / 4, size - 1)))
    return Kernel("motion", size, length=length, rotation=rng.uniform(*TURN), bend=rng.uniform(*bend_range))
