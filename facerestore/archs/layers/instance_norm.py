"""Instance normalisation that leaves features in memory as they lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

EPS = 1e-5  # added to the variance


class InstanceNorm(nn.InstanceNorm2d):
    """Each channel of each sample with a mean and a deviation that are learnt.

    forward: (N, num_features, H, W) to the same.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features, EPS, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if not lies_channels_last(x):
            return super().forward(x)
        rows = (len(x), self.num_features)
        return _ChannelsLast.apply(x, self.weight.expand(rows), self.bias.expand(rows))


def scaled_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale (x - mean) / deviation + shift, the moments over the positions of each channel.

    torch's own brings channels-last features into the other order and back, which on a CPU takes three times as long as the
    normalisation.  In that order there is no second derivative.

    Args:
        x: features (N, C, H, W)
        scale: (N, C)
        shift: (N, C)
    """
    if lies_channels_last(x):
        return _ChannelsLast.apply(x, scale, shift)
    return torch.addcmul(shift[:, :, None, None], scale[:, :, None, None], F.instance_norm(x, eps=EPS))


def lies_channels_last(x: Tensor) -> bool:
    """Whether features lie channels-last on a CPU, where torch's own normalisation is slow."""
    return x.device.type == "cpu" and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


class _ChannelsLast(torch.autograd.Function):
    """The same for channels-last features; moments and gradients are reckoned in float32."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        rows = _rows(x)
        mean = rows.mean(1, keepdim=True)
        rows = rows - mean
        slope = (rows.square().mean(1, keepdim=True) + EPS).rsqrt()
        ctx.save_for_backward(x, mean, slope, scale)
        ctx.shift_dtype = shift.dtype
        return _features(torch.addcmul(shift.float()[:, None], rows, slope * scale.float()[:, None]), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, slope, scale = ctx.saved_tensors
        given, normal = _rows(gradient), (_rows(x) - mean).mul_(slope)
        of_shift, of_scale = given.sum(1, keepdim=True), (given * normal).sum(1, keepdim=True)
        count = given.shape[1]
        inner = torch.addcmul(given - of_shift / count, normal, of_scale, value=-1 / count)
        of_x = _features(inner.mul_(slope * scale.float()[:, None]), x)
        return of_x, of_scale.squeeze(1).to(scale.dtype), of_shift.squeeze(1).to(ctx.shift_dtype)


def _rows(features: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C), float32."""
    return features.permute(0, 2, 3, 1).flatten(1, 2).float()


def _features(rows: Tensor, like: Tensor) -> Tensor:
    """(N, H W, C) as channels-last features (N, C, H, W) of the kind of `like`."""
    return rows.to(like.dtype).unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)
