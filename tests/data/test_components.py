"""Boxes of face parts against the published figures; files of ours and of upstream's; names."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

from facerestore.data.components import PARTS, boxes, components_json, read_components, scaled
from facerestore.data.tables import match_names, shown
from facerestore.errors import DataError
from tests import parity
from tests.data.torch_files import damaged_files, save_as

GFPGAN, GFPGAN_BOXES = parity.load("data_component_boxes")
CODEFORMER, CODEFORMER_BOXES = parity.load("data_codeformer_components")
FACE = {"left_eye": [204.9, 232.5, 24.1], "right_eye": [311.6, 246.3, 27.1], "mouth": [257.3, 364.2, 43.4]}


def rows(found: dict, order: tuple[str, ...]) -> np.ndarray:
    assert all(box.dtype == np.float32 and box.shape == (4,) for box in found.values())
    return np.stack([found[part] for part in order])


def write(path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("name", GFPGAN["config"]["components"])
@pytest.mark.parametrize("kind", ["plain", "hflip"])
def test_gfpgans_boxes(name, kind):
    config = GFPGAN["config"]
    ratios = dict.fromkeys(("left_eye", "right_eye"), config["eye_enlarge_ratio"])
    found = boxes(config["components"][name], config["out_size"], kind == "hflip", ratios, legacy=True)
    key = f"{name}.{kind}"
    error = parity.relative_error(rows(found, ("left_eye", "right_eye", "mouth")), GFPGAN_BOXES[key])
    assert error < GFPGAN["tolerance"][key]


@pytest.mark.parametrize("name", CODEFORMER["config"]["components"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_codeformers_boxes(name, mirrored):
    config = CODEFORMER["config"]
    ratios = {part: config[f"{part.split('_')[-1]}_enlarge_ratio"] for part in PARTS}
    found = boxes(config["components"][name], config["gt_size"], mirrored, ratios, legacy=True)
    small = scaled(found, config["in_size"] / config["gt_size"])
    for kind, mine in {"gt": found, "in": small}.items():
        key = f"{name}.{kind}{'.hflip' if mirrored else ''}"
        error = parity.relative_error(rows(mine, ("left_eye", "right_eye", "nose", "mouth")), CODEFORMER_BOXES[key])
        assert error < CODEFORMER["tolerance"][key]


def test_a_visit_does_not_change_the_next(tmp_path):
    """Upstream's stored boxes moved at every mirrored visit."""
    config = GFPGAN["config"]
    components = read_components(write(tmp_path / "c.json", config["components"]), "component_path")
    order = ("left_eye", "right_eye", "mouth")
    ratios = dict.fromkeys(order[:2], config["eye_enlarge_ratio"])
    before = components.values.copy()
    for mirrored in config["upstream_sequence"]:
        found = components.boxes("00000000", 512, mirrored, ratios, legacy=True)
        expected = GFPGAN_BOXES["00000000.hflip" if mirrored else "00000000.plain"]
        assert parity.relative_error(rows(found, order), expected) < 1e-6
    assert np.array_equal(components.values, before)


def test_mirrored_boxes_hold_the_mirror_image_of_what_plain_boxes_hold():
    side, mirror = 64, {"left_eye": "right_eye", "right_eye": "left_eye", "mouth": "mouth"}
    parts = {"left_eye": (20, 22, 5), "right_eye": (45, 25, 6), "mouth": (31, 50, 9)}
    picture = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    plain, mirrored, legacy = (boxes(parts, side, *how) for how in ((False,), (True,), (True, None, True)))

    def cut(image, box):
        x1, y1, x2, y2 = box.astype(int)
        return image[y1:y2, x1:x2]

    for part, other in mirror.items():
        half = parts[other][2]
        assert cut(picture, plain[other]).shape == (2 * half - 1, 2 * half - 1, 3)
        assert np.array_equal(cut(picture[:, ::-1], mirrored[part]), cut(picture, plain[other])[:, ::-1])
        assert np.array_equal(legacy[part] - mirrored[part], [1, 0, 1, 0])


def test_mirroring_is_exact_between_pixels_too():
    plain, mirrored = boxes(FACE, 512), boxes(FACE, 512, mirrored=True)
    x1, y1, x2, y2 = plain["left_eye"]
    assert mirrored["right_eye"] == pytest.approx([512 - x2, y1, 512 - x1, y2], abs=1e-4)


def test_the_middle_of_a_box_is_the_parts_and_ratios_widen_about_it():
    for ratio in (1.0, 1.7):
        x1, y1, x2, y2 = boxes(FACE, 512, ratios={"mouth": ratio})["mouth"]
        assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((257.3 + 0.5, 364.2 + 0.5), abs=1e-4)  # of its pixel
        assert x2 - x1 == pytest.approx(2 * 43.4 * ratio - 1, abs=1e-4)


def test_boxes_of_pictures_of_another_size(tmp_path):
    measured = read_components(write(tmp_path / "c.json", {"size": 512, "components": {"a": FACE}}), "component_path")
    unsaid = read_components(write(tmp_path / "d.json", {"a": FACE}), "component_path")
    assert (measured.size, unsaid.size) == (512, None)
    for mirrored in (False, True):
        at512, at256 = (measured.boxes("a", side, mirrored, {"mouth": 1.3}) for side in (512, 256))
        assert all(np.allclose(at256[part], at512[part] / 2) for part in FACE)
    assert np.array_equal(unsaid.boxes("a", 400)["mouth"], boxes(FACE, 400)["mouth"])


@pytest.mark.parametrize("numpy_version", [1, 2])
def test_upstreams_file_is_read(tmp_path, numpy_version):
    nose = {"nose": [259.3, 306.5, 30.2]}
    as_arrays = {part: np.array(v) for part, v in (FACE | nose).items()}
    as_numbers = {part: [np.float64(x) for x in v] for part, v in (FACE | nose).items()}
    path = save_as(tmp_path / "c.pth", {"00000000": as_arrays, "00000001": as_numbers}, numpy_version)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)
    components = read_components(str(path), "component_path")
    assert components.parts == ("left_eye", "right_eye", "nose", "mouth")
    assert components["00000000"] == components["00000001"] == {k: tuple(v) for k, v in (FACE | nose).items()}
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)  # what is allowed here is allowed nowhere else


def test_what_is_written_is_read(tmp_path):
    entries = {"a": FACE | {"nose": [1, 2, 3]}, 'ä "b"': {k: np.float32(v) for k, v in FACE.items()}}
    (tmp_path / "c.json").write_text(components_json(entries, 512))
    components = read_components(str(tmp_path / "c.json"), "component_path")
    assert (components.size, components.names) == (512, list(entries))
    assert components.parts == ("left_eye", "right_eye", "mouth")  # not every picture has a nose
    for name, parts in entries.items():
        assert all(np.allclose(components[name][part], parts[part], atol=1e-3) for part in FACE)


@pytest.mark.parametrize(
    "entries, pictures, found",
    [
        (["00012", "00013"], ["00000012", "13", "14"], {"00000012": "00012", "13": "00013"}),
        (["00000000"], ["0"], {"0": "00000000"}),
        (["a.png", "b.jpg", "c."], ["a", "b", "c"], {"a": "a.png", "b": "b.jpg", "c": "c."}),  # [:-4] of c.jpeg
        (["00007."], ["7"], {"7": "00007."}),
        (["1", "2"], ["00000/00001", "00000/00002"], {"00000/00001": "1", "00000/00002": "2"}),
        (["x/1", "y/1"], ["x/1", "y/01"], {"x/1": "x/1", "y/01": "y/1"}),
        (["1"], ["a/1", "b/1"], {}),  # whose it is, nobody knows
        (["a/1", "b/1"], ["1"], {}),
        (["1"], ["1", "01"], {"1": "1"}),
        (["7", "007"], ["7", "007", "07"], {"7": "7", "007": "007"}),
        (["a.png"], ["a.png"], {"a.png": "a.png"}),  # of the file a.png.jpg
        (["A"], ["a"], {}),
    ],
)
def test_names_agree(entries, pictures, found):
    assert match_names(entries, pictures) == found


def test_pictures_without_an_entry_are_refused_or_left_out(tmp_path, caplog):
    path = write(tmp_path / "c.json", {"00001": FACE, "00002": FACE | {"mouth": [1, 2, 3]}, "00003": FACE})
    components = read_components(path, "component_path")
    pictures = ["b/2", "a/9", "b/1"]
    with pytest.raises(DataError, match=r"c\.json, named by `component_path`, has no entry for 1 of the 3 pictures: a/9 \(it"):
        components.select(pictures)
    with caplog.at_level(logging.WARNING, "facerestore"):
        chosen = components.select(pictures, missing="skip")
    assert chosen.names == ["b/2", "b/1"] and "no entry for 1 of the 3" in caplog.text
    assert chosen["b/2"]["mouth"] == (1, 2, 3) and chosen["b/1"]["mouth"] == tuple(FACE["mouth"])
    with pytest.raises(DataError, match="for 2 of the 2 pictures"):
        components.select(["x", "y"], missing="skip")
    with pytest.raises(DataError, match="no entry for picture 'a/9'"):
        chosen["a/9"]


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "holds no face parts"),
        ([1], "holds no face parts"),
        ({"a": {"left_eye": [1, 2, 3], "right_eye": [1, 2, 3]}}, "no `mouth` for picture 'a'"),
        ({"a": [1, 2, 3]}, "no `left_eye` for picture 'a'"),
        ({"a": FACE | {"mouth": [1, 2]}}, r"has \[1, 2\] as `mouth` of picture 'a'"),
        ({"a": FACE | {"mouth": [1, 2, 0]}}, "half length above 0"),
        ({"a": FACE | {"mouth": ["1", "2", "3"]}}, "half length above 0"),
        ({"a": FACE | {"mouth": [1, 2, float("nan")]}}, "half length above 0"),
        ({"a": FACE | {"mouth": [1, [2], 3]}}, "half length above 0"),
        ({"a": FACE | {"mouth": None}}, "half length above 0"),
        ({"size": "512", "components": {"a": FACE}}, "`size` is '512'"),
        ({"size": 0, "components": {"a": FACE}}, "`size` is 0"),
        ({"size": 10**400, "components": {"a": FACE}}, "`size` is 10+, not a number of pixels from 1 to 1048576"),
        (
            {"a": FACE, "b": FACE | {"mouth": [9e9, -5, 3]}},
            r"has \[9000000000.0, -5.0, 3.0\] as `mouth` of picture 'b'.*outside",
        ),
        ({"a": FACE | {"left_eye": [1, 2, 1e308]}}, "as `left_eye` of picture 'a', which lies outside of a picture"),
        ({"a": FACE | {"left_eye": [1, -1e308, 1]}}, "as `left_eye` of picture 'a', which lies outside of a picture"),
        ({"a": FACE | {"mouth": [10**400, 2, 3]}}, "half length above 0"),
        ({"size": 512, "components": {"a": FACE | {"mouth": [641, 2, 3]}}}, "outside of a picture of 512x512: correct it$"),
        ({"size": 512, "components": {"a": FACE | {"mouth": [1, -129, 3]}}}, "outside of a picture of 512x512: correct it$"),
        ({"size": 512, "components": {"a": FACE | {"mouth": [1, 2, 513]}}}, "outside of a picture of 512x512: correct it$"),
        ({"size": 512, "a": FACE}, "holds no face parts"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_components(write(tmp_path / "c.json", content), "component_path")


def test_parts_cut_by_the_border_are_read(tmp_path):
    cut = FACE | {"left_eye": [-100, 600, 30], "mouth": [500, 630, 200]}
    path = write(tmp_path / "c.json", {"size": 512, "components": {"a": cut}})
    assert read_components(path, "component_path")["a"]["mouth"] == (500, 630, 200)


def test_a_file_without_a_size_must_fit_the_pictures_that_it_is_used_on(tmp_path):
    path = tmp_path / "c.pth"
    torch.save({"b": {part: [1.0, 2.0, 3.0] for part in FACE}, "a": FACE}, path)
    components = read_components(str(path), "component_path")
    expected = r"as `mouth` of picture 'a', which lies outside of a picture of 256x256.*larger ones.*\"size\": SIDE"
    for ask in (lambda: components.measured_on(256), lambda: components.boxes("a", 256)):
        with pytest.raises(DataError, match=expected):
            ask()
    assert components.select(["b"]).measured_on(256).size == 256  # the pictures that are used count
    assert np.array_equal(components.measured_on(512).boxes("a", 512)["mouth"], boxes(FACE, 512)["mouth"])
    sized = read_components(write(tmp_path / "c.json", {"size": 512, "components": {"a": FACE}}), "component_path")
    assert sized.measured_on(256) is sized


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_refused(tmp_path):
    three = torch.tensor([20, 20, 5])
    odd = [three.to(torch.complex64), three.to("meta"), three.to_sparse(), three.bool(), three.bfloat16()]
    for tensor in (*odd, torch.quantize_per_tensor(three.float(), 0.1, 0, torch.quint8), three[None]):
        torch.save({"a": FACE | {"mouth": tensor}}, tmp_path / "c.pth")
        with pytest.raises(DataError, match="as `mouth` of picture 'a': x, y and a half length above 0") as refusal:
            read_components(str(tmp_path / "c.pth"), "component_path")
        assert "\n" not in str(refusal.value)
    torch.save({"a": FACE | {"mouth": three}}, tmp_path / "c.pth")
    assert read_components(str(tmp_path / "c.pth"), "component_path")["a"]["mouth"] == (20, 20, 5)


def test_wrong_values_are_shown_in_short():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list" and shown(torch.zeros(3, 2)) == "tensor([[0., 0.], [0., 0.], [0., 0.]])"
    assert shown(10**400) == "1" + 59 * "0"


@pytest.mark.parametrize("path", ["a\0.json", "a\0.pth"])
def test_a_path_that_no_file_can_have_is_one_sentence(path):
    with pytest.raises(DataError, match="named by `component_path`, cannot be read: embedded null byte"):
        read_components(path, "component_path")


def test_damaged_files_are_refused(tmp_path, capsys):
    (tmp_path / "c.json").write_text('{"a": {"left_eye": [1, 2')
    with pytest.raises(DataError, match=r"c\.json, named by `component_path`, is no JSON, or cut off"):
        read_components(str(tmp_path / "c.json"), "component_path")
    (tmp_path / "d.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no JSON"):
        read_components(str(tmp_path / "d.json"), "component_path")
    with pytest.raises(DataError, match=r"none\.json, .* cannot be read: No such file"):
        read_components(str(tmp_path / "none.json"), "component_path")
    for word, path in damaged_files(tmp_path / "damaged").items():
        with pytest.raises(DataError, match=word):
            read_components(str(path), "component_path")
    assert "ran" not in capsys.readouterr().out


def test_a_picture_may_be_called_size(tmp_path):
    assert read_components(write(tmp_path / "c.json", {"size": FACE}), "component_path").names == ["size"]
