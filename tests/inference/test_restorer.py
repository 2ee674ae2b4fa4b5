"""Files that hold no restorer are refused; what a restorer does is tested with the programs that train one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facerestore import Restorer
from facerestore.errors import CheckpointError, DataError, OptionError
from tests.archs import small


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("StyleGAN2Generator", "holds a StyleGAN2Generator, which takes `code`: Restorer gives it a picture alone"),
        ("StarGANv2Generator", "holds a StarGANv2Generator, which takes `picture`, `style`: Restorer gives"),
        ("ResNetArcFace", "holds a ResNetArcFace, which makes no picture"),
    ],
)
def test_a_file_of_another_kind_of_network(tmp_path, name, reason):
    torch.save({"params_ema": small.build(name).state_dict()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=f"net.pth: {reason}"):
        Restorer(tmp_path / "net.pth", device="cpu")


def test_w_is_codeformers(tmp_path):
    torch.save({"params_ema": small.build("GFPGANv1Clean").state_dict()}, tmp_path / "net.pth")
    face = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(OptionError, match=r"`w`: of a CodeFormer, but .*net\.pth is a GFPGANv1Clean"):
        Restorer(tmp_path / "net.pth", device="cpu")(face, w=0.5)
    with pytest.raises(OptionError, match=r"w is 1\.5: it lies between 0"):
        Restorer(small.build("CodeFormer"), device="cpu")(face, w=1.5)


def test_a_filled_network_and_several_pictures():
    faces = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
    restore = Restorer(small.build("GFPGANv1Clean"), device="cpu")
    together = restore.restore_batch(list(faces))
    assert together.shape == (3, 16, 16, 3) and not np.array_equal(together[0], together[1])
    for image, found in zip(faces, together, strict=True):
        assert np.abs(restore(image).astype(int) - found).max() <= 1
    other = Restorer(small.build("GFPGANv1Clean"), device="cpu", image_range=(0, 1))
    assert not np.array_equal(other(faces[0]), restore(faces[0]))


def test_values_that_are_no_numbers_are_refused():
    network = small.build("CodeFormer")
    network.generator.blocks[-1].weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="CodeFormer makes values that are no numbers"):
        Restorer(network, device="cpu")(np.zeros((16, 16, 3), np.uint8))


def test_pictures_of_another_size_than_the_networks_are_refused_with_a_remedy():
    restore = Restorer(small.build("GFPGANv1Clean"))
    with pytest.raises(DataError, match=r"GFPGANv1Clean takes pictures of (\d+)x\1, and this one is 24x40: resize it, or have"):
        restore(np.zeros((40, 24, 3), np.uint8))
