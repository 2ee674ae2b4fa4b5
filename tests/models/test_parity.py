"""Every method's iterations against the published ones: losses, learning rates, changes of weights, buffers."""

from __future__ import annotations

import pytest

from tests.parity import drive, stargan2

CASES = ["train_sr", "train_srgan", "train_srgan_unet", "train_esrgan"]

# The published ESRGAN step passes the restored picture twice through the discriminator where once gives the same losses,
# so its running averages, which training never reads, have seen one batch more there.
OTHER_PASSES = {"train_esrgan": "buffer.net_d.bn"}


@pytest.mark.parametrize("case", CASES)
def test_training_step(case, tmp_path):
    found = drive.errors(case, tmp_path)
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
