"""Penalties on the gradients of networks, and weights that balance two losses by their gradients.

All are functions of tensors; where they need chance, it is given.  Penalties are computed in float32 and carry a graph,
so that they can be back-propagated in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

_scale: ContextVar[Tensor | None] = ContextVar("_scale", default=None)


@contextmanager
def scaled_gradients(scale: Tensor | None) -> Iterator[None]:
    """Within, gradients that a loss is made of are computed `scale` times as large, and divided by it again in float32.

    In float16 they would vanish, just as those of the loss itself; its scale serves both, so that one that is too large
    for either of them is lowered.
    """
    token = _scale.set(scale)
    try:
        yield
    finally:
        _scale.reset(token)


def gradient_of(output: Tensor, of: Tensor, **keywords: Any) -> Tensor:
    """d output / d of in float32; `keywords` are those of torch.autograd.grad."""
    scale = _scale.get()
    if scale is None:
        return torch.autograd.grad(output, of, **keywords)[0].float()
    return torch.autograd.grad(output.float() * scale, of, **keywords)[0].float() / scale


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """E[|| d D(x) / dx ||^2] over real pictures.

    Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018, eq. 9, without its gamma / 2:
    BasicSR multiplies it by r1_reg_weight / 2, StarGAN v2 by 1/2.

    Args:
        real_logits: the discriminator's logits of `real_images`, (N, ...)
        real_images: (N, C, H, W), with requires_grad set before the discriminator saw them
    """
    gradient = gradient_of(real_logits.float().sum(), real_images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def gradient_penalty(
    discriminate: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    weight: Tensor | None = None,
    legacy: bool = False,
) -> Tensor:
    """E[(|| d D(x) / dx || - 1)^2] at x = alpha real + (1 - alpha) fake.

    Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, eq. 3, without its lambda.

    Args:
        discriminate: from pictures (N, C, H, W) to their logits
        real: real pictures (N, C, H, W); a constant here
        fake: generated ones; a constant here
        alpha: (N, 1, 1, 1), uniform in [0, 1)
        weight: map (N, 1 or C, H, W) that multiplies the gradients; the penalty is divided by its mean
        legacy: the norm of each pixel over its channels, as in BasicSR, instead of over all but the batch
    """
    between = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    gradient = gradient_of(discriminate(between).float().sum(), between, create_graph=True)
    if weight is not None:
        gradient = gradient * weight
    norm = vector_norm(gradient, dim=1 if legacy else (1, 2, 3))
    penalty = (norm - 1).square().mean()
    return penalty if weight is None else penalty / weight.mean()


def path_length_penalty(
    images: Tensor, latents: Tensor, mean_path_length: Tensor | float, noise: Tensor, decay: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """E[(|| J_w^T y || - a)^2]: a step in the latent space should change the picture by the same amount everywhere.

    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, eq. 4, a being the running mean of
    the lengths.  J_w^T y is the gradient of the sum of g(w) y, and a length its norm, as a mean square over the
    latents' layers.

    Args:
        images: the generator's pictures (N, C, H, W)
        latents: the style codes that they were made of (N, layers, dim), with requires_grad set before
        mean_path_length: the running mean so far, 0 at the start
        noise: y, unit normal numbers shaped as `images`; they are divided by sqrt(H W) here, so that lengths do not
            depend on the resolution
        decay: how much of the running mean is replaced

    Returns:
        the penalty, whose gradient goes through the updated mean as well; the mean length of this batch and the updated
        running mean, both detached
    """
    height, width = images.shape[-2:]
    projection = (images.float() * noise).sum() / (height * width) ** 0.5
    gradient = gradient_of(projection, latents, create_graph=True)
    lengths = vector_norm(gradient, dim=(1, 2)) / latents.shape[1] ** 0.5
    mean = mean_path_length + decay * (lengths.mean() - mean_path_length)
    return (lengths - mean).square().mean(), lengths.mean().detach(), mean.detach()


def adaptive_weight(recon_loss: Tensor, gan_loss: Tensor, last_layer: Tensor, max_weight: float = 1e4) -> Tensor:
    """|| d L_rec / dw || / (|| d L_GAN / dw || + 1e-4), in [0, max_weight]: both losses then pull equally hard.

    Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, eq. 7, whose delta is 1e-6
    in the paper and 1e-4 in its code and CodeFormer's.

    Args:
        recon_loss: scalar; its graph is kept
        gan_loss: the generator's adversarial loss, scalar; its graph is kept
        last_layer: weight of the generator's last layer
        max_weight: the largest value

    Returns:
        a detached scalar
    """
    of_recon, of_gan = (vector_norm(gradient_of(loss, last_layer, retain_graph=True)) for loss in (recon_loss, gan_loss))
    return (of_recon / (of_gan + 1e-4)).clamp(0, max_weight)


def adopt_weight(weight: float, step: int, threshold: int, value: float = 0.0) -> float:
    """`value` before iteration `threshold`, then `weight`: VQGAN's adversary starts late."""
    return weight if step >= threshold else value
