"""Modulated convolution as the project has it, beside one with weights of its own for each sample.

python benchmarks/modulated_conv.py

Both are given the same features, styles and weights.  What is timed is a pass forward and backward, the best of several,
in turns: first with a weight for each sample, where the side is doubled once with the FIR filter as one-channel
convolution of N C pictures, as published code has it without its CUDA extension, and once with the project's filter.
What is compared are the outputs, and the gradients of features, styles and weights: the norm of the difference over the
norm, the greatest of them.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.archs.layers.fir import kernel
from facerestore.archs.layers.flavour import FIR_TAPS, Flavour
from facerestore.archs.layers.modulated_conv import ModulatedConv2d, TransposeThenFilter

NUM_STYLE_FEAT = 512


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    channels: int
    side: int
    upsample: bool = False
    memory_format: torch.memory_format = torch.contiguous_format

    def __str__(self) -> str:
        layout = "channels-last" if self.memory_format == torch.channels_last else "contiguous"
        return f"{self.channels} channels, {self.side} x {self.side}{', doubled' if self.upsample else ''}, {layout}"


SETTINGS = [
    Setting(channels, side, upsample, memory_format)
    for channels, side, upsample in ((256, 64, False), (256, 32, True), (64, 128, False), (64, 128, True))
    for memory_format in (torch.contiguous_format, torch.channels_last)
]


def per_sample(layer: ModulatedConv2d, smooth: Callable[[Tensor], Tensor], x: Tensor, style: Tensor) -> Tensor:
    """Equations 1 and 3 of StyleGAN2 as they stand: a weight (out, in, k, k) for each sample, which is one group."""
    batch, in_channels, height, width = x.shape
    weight = layer.scale * layer.weight * layer.modulation(style)[:, None, :, None, None]
    weight = weight / torch.sqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    out_channels, size = weight.shape[1], weight.shape[-1]
    joined = x.reshape(1, batch * in_channels, height, width)
    if isinstance(layer.convolve, TransposeThenFilter):
        grouped = weight.transpose(1, 2).reshape(batch * in_channels, out_channels, size, size)
        out = F.conv_transpose2d(joined, grouped, stride=2, groups=batch)
        return smooth(out.reshape(batch, out_channels, *out.shape[-2:]))
    out = F.conv2d(joined, weight.reshape(-1, in_channels, size, size), padding=size // 2, groups=batch)
    return out.reshape(batch, out_channels, *out.shape[-2:])


def one_channel_filter(x: Tensor) -> Tensor:
    """What :class:`Fir` does, by a convolution of one channel."""
    taps = (4 * kernel(FIR_TAPS)).to(x.dtype)[None, None]
    out = F.conv2d(x.reshape(-1, 1, *x.shape[-2:]), taps, padding=1)
    return out.reshape(*x.shape[:2], *out.shape[-2:])


def formulations(layer: ModulatedConv2d) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """A weight for each sample with either filter, and the project's layer."""
    found: list[Callable] = [functools.partial(per_sample, layer, one_channel_filter)]
    if isinstance(layer.convolve, TransposeThenFilter):
        found.append(functools.partial(per_sample, layer, layer.convolve.smooth))
    return [*found, layer]


def results(layer: ModulatedConv2d, run: Callable, x: Tensor, style: Tensor, slope: Tensor) -> list[Tensor]:
    """Output and gradients, after a pass forward and backward."""
    leaves = [x.detach().requires_grad_(), style.detach().requires_grad_(), layer.weight, layer.modulation.weight]
    out = run(*leaves[:2])
    return [out, *torch.autograd.grad(out, leaves, slope)]


def relative(mine: Tensor, other: Tensor) -> float:
    return ((mine - other).norm() / other.norm()).item()


def problem(setting: Setting, batch: int, dtype: torch.dtype) -> tuple:
    torch.manual_seed(0)
    layer = ModulatedConv2d(
        setting.channels, setting.channels, 3, NUM_STYLE_FEAT, Flavour(taps=FIR_TAPS), upsample=setting.upsample
    )
    layer = layer.to(dtype=dtype, memory_format=setting.memory_format)
    x = torch.randn(batch, setting.channels, setting.side, setting.side, dtype=dtype)
    style = torch.randn(batch, NUM_STYLE_FEAT, dtype=dtype)
    slope = torch.randn(batch, setting.channels, *2 * (setting.side * (2 if setting.upsample else 1),), dtype=dtype)
    return layer, x.to(memory_format=setting.memory_format), style, slope.to(memory_format=setting.memory_format)


def compared(setting: Setting, batch: int, dtype: torch.dtype) -> tuple[float, float]:
    """Relative differences between the two: of the output, and the greatest of a gradient."""
    layer, *tensors = problem(setting, batch, dtype)
    other, *_, mine = (results(layer, run, *tensors) for run in formulations(layer))
    output, *gradients = (relative(a, b) for a, b in zip(mine, other, strict=True))
    return output, max(gradients)


def timed(setting: Setting, batch: int, repeats: int) -> list[float]:
    """Best seconds of each formulation; in turns, so that all meet the same load."""
    layer, *tensors = problem(setting, batch, torch.float32)
    rounds = [[seconds(layer, run, tensors) for run in formulations(layer)] for _ in range(repeats + 1)]
    return [min(column) for column in zip(*rounds[1:], strict=True)]  # the first round warms up


def seconds(layer: ModulatedConv2d, run: Callable, tensors: list[Tensor]) -> float:
    start = time.perf_counter()
    results(layer, run, *tensors)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="pictures (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="of which the best counts (default: 5)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}\n")
    titles = f"{'ms: per sample':>16} {'same filter':>18} {'here':>8}"
    print(f"{'':44} {titles}   {'float32: output, gradients':>26}   {'float64':>17}")
    for setting in SETTINGS:
        *slow, fast = timed(setting, options.batch, options.repeats)
        cells = [f"{1e3 * t:8.1f} ({t / fast:4.1f}x)" for t in slow] + [""]
        errors = [compared(setting, min(options.batch, 2), dtype) for dtype in (torch.float32, torch.float64)]
        shown = "   ".join(f"{output:8.1e} {gradients:8.1e}" for output, gradients in errors)
        print(f"{setting!s:44} {cells[0]:>16} {cells[1]:>18} {1e3 * fast:8.1f}            {shown}", flush=True)


if __name__ == "__main__":
    main()
