"""Every method's iterations against the published ones: losses, learning rates, changes of weights, buffers."""

from __future__ import annotations

import pytest
import torch

from tests.parity import drive, stargan2

CASES = ["train_sr", "train_srgan", "train_srgan_unet", "train_esrgan", "train_stylegan2", "train_vqgan"]
SLOW = ["train_gfpgan_64", "train_gfpgan_past_pyramid", "train_gfpgan_components_512", "train_codeformer_stage2_narrow",
        "train_codeformer_stage3_narrow", "train_codeformer_stage3_late", "train_codeformer_inpainting",
        "train_codeformer_stage2", "train_codeformer_stage3"]  # fmt: skip

# The published ESRGAN step passes the restored picture twice through the discriminator where once gives the same losses,
# so its running averages, which training never reads, have seen one batch more there.
OTHER_PASSES = {"train_esrgan": "buffer.net_d.bn"}

# Adam without momentum moves every weight by its learning rate, however small the gradient.  One of the 400 recorded weights of
# each of these has a gradient that is lost in float32's rounding, so it goes either way, with the number of threads too.
UNDECIDED = {
    "train_gfpgan_64": "delta.net_g.conv_body_down.3.conv2.1.weight",
    "train_gfpgan_past_pyramid": "delta.net_g.conv_body_up.2.conv1.0.weight",
}


@pytest.fixture(autouse=True)
def one_thread():
    """With two threads `d_weight`, a ratio of gradients' norms, comes out 2.5e-3 off in train_codeformer_stage3_narrow and
    stage3_late, with one 6e-4 (narrow), where 1e-3 is allowed; all other figures hold either way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)])
def test_training_step(case, tmp_path):
    found = drive.errors(case, tmp_path, UNDECIDED.get(case, ""))
    kinds = {key.split(".")[0] for key in found}
    assert {"loss", "lr", "delta", "norm"} <= kinds
    wrong = {
        key: error
        for key, (error, tolerance) in found.items()
        if not error <= tolerance and not key.startswith(OTHER_PASSES.get(case, "none"))
    }
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("case", ["train_stargan2", "train_stargan2_hpf"])
def test_iterations_of_stargan2(case):
    found = stargan2.errors(case)
    assert {"loss", "delta", "norm", "lambda_ds", "output", "output_ema"} <= {key.split(".")[0] for key in found}
    assert ("mask0" in found) == case.endswith("hpf")
    assert not {key: error for key, (error, tolerance) in found.items() if not error <= tolerance}
