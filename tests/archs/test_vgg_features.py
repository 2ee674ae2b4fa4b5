"""VGG features by name: torchvision's keys for every depth, layers before and after their ReLU, nothing overwritten."""

from __future__ import annotations

import pytest
import torch
import torchvision

from facerestore.archs.vgg_features import DEPTHS, VGGFeatures, layer_names
from facerestore.errors import OptionError
from tests import parity


@pytest.mark.parametrize("vgg_type", DEPTHS)
def test_layers_and_keys_are_torchvisions(vgg_type):
    with torch.device("meta"):
        mine = VGGFeatures(["pool5"], vgg_type)
        theirs = torchvision.models.get_model(vgg_type, weights=None, init_weights=False).features
    assert [type(m) for m in mine.features] == [type(m) for m in theirs]
    assert {k: v.shape for k, v in mine.state_dict().items()} == {
        f"features.{k}": v.shape for k, v in theirs.state_dict().items()
    }


@pytest.fixture(scope="module")
def x():
    return parity.draw((1, 3, 32, 40), 1, "x", 0, 1)


def test_layers_before_and_after_their_relu(x):
    network = parity.fill_(VGGFeatures(["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"], "vgg16"))
    found = network(x)
    assert list(found) == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert found["conv1_1"].min() < 0 and torch.equal(found["relu1_1"], found["conv1_1"].relu())
    assert torch.equal(found["conv1_2"], network.features[2](found["relu1_1"]))  # no ReLU wrote over it
    assert torch.equal(found["pool1"], torch.nn.functional.max_pool2d(found["relu1_2"], 2))
    assert found["pool1"].shape == (1, 64, 16, 20)


def test_holds_no_layer_beyond_the_deepest():
    network = VGGFeatures(["relu2_1", "conv1_2"])
    assert len(network.features) == layer_names("vgg19").index("relu2_1") + 1
    assert list(network.state_dict())[-1] == "features.5.bias"


def test_input_norms(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def features(picture, **keywords):
        return parity.fill_(VGGFeatures(["conv1_1"], **keywords))(picture)["conv1_1"]

    plain = features((x - mean) / std, use_input_norm=False)
    torch.testing.assert_close(features(x), plain)
    torch.testing.assert_close(features(2 * x - 1, range_norm=True), plain)


def test_unknown_layers_are_refused():
    with pytest.raises(OptionError, match=r"vgg19 has no layer called 'conv5_5' \(did you mean 'conv5_4'\?\)") as caught:
        VGGFeatures(["conv5_5"])
    assert caught.value.path == ("layer_name_list",)
    with pytest.raises(OptionError, match="vgg16 has no layer called 'conv3_4'"):
        VGGFeatures(["conv3_4"], "vgg16")
    with pytest.raises(OptionError, match="no layer is named"):
        VGGFeatures([])
