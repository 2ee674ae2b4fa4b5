"""Files that hold no restorer are refused; what a restorer does is tested with the programs that train one."""

from __future__ import annotations

import pytest
import torch

from facerestore import Restorer
from facerestore.errors import CheckpointError
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
