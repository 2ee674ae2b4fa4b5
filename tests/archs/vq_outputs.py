"""What the published networks with codebooks returned, gathered from ours, which return less or name it otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facerestore.archs.layers.quantizers import Quantized, VectorQuantizer, code_counts, perplexity


def of_quantizer(quantizer: VectorQuantizer, z: Tensor) -> dict[str, Any]:
    found = quantizer(z)
    return {"z_q": found.feat, "loss": found.code_loss, "stats": stats(quantizer, z, found.codes)}


def of_autoencoder(network: nn.Module, x: Tensor) -> dict[str, Any]:
    output = network(x)
    return {
        "out": output.image,
        "codebook_loss": output.code_loss,
        "stats": stats(network.quantize, output.feat, output.codes),
    }


def of_restoreformer(network: nn.Module, x: Tensor) -> dict[str, Any]:
    return {"out": network(x).image}


def of_restoreformer_encode(network: nn.Module, x: Tensor) -> dict[str, Any]:
    """With the encoder's features at the places by which the published decoder asks for them."""
    encoder = network.encoder
    last = len(encoder.down) - 1
    places = {"in": encoder.conv_in, "mid_atten": encoder.mid.block_2, "out": encoder.conv_out}
    places |= {f"block_{i}": encoder.down[i] for i in range(last)} | {f"block_{last}_atten": encoder.mid.block_1}
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.__setitem__(name, output))
        for name, module in places.items()
    ]
    z = network.quant_conv(encoder(x)[0])
    for hook in hooks:
        hook.remove()
    found: Quantized = network.quantize(z)
    told = stats(network.quantize, z, found.codes)
    return {
        "quant": found.feat,
        "emb_loss": found.code_loss,
        "info": {"0": told["perplexity"], "2": told["min_encoding_indices"], "3": network.quantize.distances(rows(z))},
        "hs": seen,
    }


def stats(quantizer: VectorQuantizer, z: Tensor, codes: Tensor) -> dict[str, Tensor]:
    return {
        "perplexity": perplexity(code_counts(codes, quantizer.embedding.num_embeddings)),
        "min_encoding_indices": codes.reshape(-1, 1),
        "mean_distance": torch.mean(quantizer.distances(rows(z))),
    }


def rows(z: Tensor) -> Tensor:
    return z.permute(0, 2, 3, 1).flatten(0, 2)


CALLS = {  # by published class and method
    ("VectorQuantizer", "forward"): of_quantizer,
    ("VQAutoEncoder", "forward"): of_autoencoder,
    ("RestoreFormer", "forward"): of_restoreformer,
    ("RestoreFormer", "encode"): of_restoreformer_encode,
}
