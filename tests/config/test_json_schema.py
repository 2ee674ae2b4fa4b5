"""The JSON schema for editors accepts what the loader accepts, and refuses what it refuses."""

from __future__ import annotations

import copy
import json
import runpy

import pytest
import yaml
from jsonschema import Draft7Validator

from facerestore.config import load_options
from facerestore.config.json_schema import option_schema
from facerestore.config.tree import _Loader
from facerestore.errors import OptionError
from tests.config.test_load import BASICSR, GOOD
from tests.engine.runs import OPTIONS, ROOT

OF_THE_USER_S_CHOICE = (("val", "metrics"), ("train", "perceptual_opt", "layer_weights"))  # sections with such keys


@pytest.fixture(scope="module")
def valid():
    schema = option_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(json.loads(json.dumps(schema))).is_valid


def read(text: str) -> dict:
    return yaml.load(text, _Loader)


def keys(section: dict, at: tuple[str, ...] = ()):
    for key, value in section.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from keys(value, (*at, key))


def changed(content: dict, path: tuple[str, ...], key: str | None = None, **value) -> dict:
    """A copy with another key or another value at `path`."""
    content = copy.deepcopy(content)
    section = content
    for step in path[:-1]:
        section = section[step]
    old = section.pop(path[-1])
    section[key or path[-1]] = value.get("value", old)
    return content


@pytest.mark.parametrize("path", OPTIONS, ids=lambda p: p.stem)
def test_every_shipped_file_is_valid(valid, path):
    assert valid(read(path.read_text()))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda p: p.stem)
def test_no_misspelt_key_is_valid(valid, path):
    content = read(path.read_text())
    for at in keys(content):
        if at[:-1] in OF_THE_USER_S_CHOICE:
            continue
        wrong = at[-1][:1] + "z" + at[-1][1:]
        assert not valid(changed(content, at, wrong)), f"{'.'.join(at)} may be written {wrong}"


@pytest.mark.parametrize("path", OPTIONS, ids=lambda p: p.stem)
def test_no_mapping_in_place_of_a_value_is_valid(valid, path):
    content = read(path.read_text())
    for at in keys(content):
        value = {"no": {"such": "thing"}}
        assert not valid(changed(content, at, value=value)), f"{'.'.join(at)} may be a mapping"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scale",), "4"),
        (("train", "total_iter"), 0),
        (("train", "total_iter"), 1.5),
        (("train", "optim_g", "lr"), -1),
        (("train", "optim_g", "lr"), None),
        (("train", "optim_g", "type"), "Adams"),
        (("train", "optim_g"), {"type": "Adam"}),
        (("train", "optim_g"), {"type": "SGD", "lr": 1e-4, "amsgrad": True}),
        (("train", "pixel_opt", "type"), "GANLoss"),
        (("train", "pixel_opt"), {"type": "L1Loss", "eps": 1e-6}),
        (("network_g", "type"), "MSRResnet"),
        (("network_g", "upscale"), 5),
        (("network_g", "num_block"), 100_000),
        (("datasets", "train", "mean"), [0.5, 0.5]),
        (("datasets", "train", "mean"), [127, 127, 127]),
        (("datasets", "train", "use_hflip"), "yes"),
        (("datasets", "train"), {"type": "SyntheticFaceDataset"}),
        (("train", "scheduler"), {"type": "CosineAnnealingRestartLR"}),
        (("val", "metrics", "psnr", "better"), "up"),
        (("network_d",), {"type": "SRGANDiscriminator"}),
        (("base",), 3),
    ],
)
def test_wrong_values_are_valid_neither_here_nor_to_the_loader(valid, path, value):
    content = read((ROOT / "options/debug/sr.yml").read_text())
    section = content
    for step in path[:-1]:
        section = section.setdefault(step, {})
    section[path[-1]] = value
    assert not valid(content)
    with pytest.raises(OptionError):
        load_options(content)


@pytest.mark.parametrize("key", ["name", "model_type", "network_g", "total_iter"])
def test_what_is_missing_may_stand_in_the_file_below_alone(valid, key):
    content = read(GOOD)
    (content["train"] if key == "total_iter" else content).pop(key)
    assert not valid(content)
    assert valid(content | {"base": "below.yml"})


def test_published_keys_are_valid_and_said_not_to_be_read(valid):
    assert valid(read(BASICSR))
    definitions = option_schema()["definitions"]
    assert "not read here" in definitions["file.SRModel"]["properties"]["find_unused_parameters"]["description"]
    assert "not read here" in definitions["data set.FFHQBlindDataset"]["properties"]["filename_tmpl"]["description"]


def test_keys_are_explained_with_range_and_default():
    definitions = option_schema()["definitions"]
    key = definitions["network.MSRResNet"]["properties"]["num_block"]
    assert key == {"type": "integer", "minimum": 1, "maximum": 512, "description": "number of residual blocks", "default": 16}
    train = definitions["file.SRModel"]["properties"]["train"]["properties"]
    assert train["warmup_iter"]["description"].startswith("iterations over which the learning rate rises linearly")


def test_the_script_writes_it(tmp_path):
    script = runpy.run_path(str(ROOT / "scripts/option_schema.py"))
    assert script["main"](["--output", str(tmp_path / "sub/schema.json")]) == 0
    assert json.loads((tmp_path / "sub/schema.json").read_text()) == json.loads(json.dumps(option_schema()))
