"""Metrics of the package pyiqa, by name: MUSIQ, MANIQA, CLIP-IQA and others.

Chen and Mo, IQA-PyTorch (github.com/chaofengc/IQA-PyTorch); each metric's paper is named there.  The package is the extra
`pyiqa`; weights that no option names lie in a cache of its own.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from facerestore.errors import OptionError, UserError, first_line, nearest
from facerestore.files import digest
from facerestore.metrics.base import PictureMetric
from facerestore.registry import METRICS


@METRICS.register("PyIQA")
class PyIQA(PictureMetric):
    """A metric of the package pyiqa.  Which values are the better ones, `better` says beside it.  Needs the extra `pyiqa`."""

    def __init__(self, name: str = "musiq", weights: str | None = None):
        """
        Args:
            name: pyiqa's name of the metric: musiq, maniqa, clipiqa, ...
            weights: file of its weights; those of pyiqa's cache by default, which downloads them where they are not there
        """
        super().__init__()
        self.name, self.weights = name, weights

    def open(self) -> None:
        pyiqa = package()
        known = pyiqa.list_models()
        if self.name not in known:
            raise OptionError(f"pyiqa has no metric {self.name!r}{nearest(self.name, known)}")
        if self.weights and not Path(self.weights).is_file():
            raise UserError(f"file {self.weights}, named by `weights` of metric {self.name}, does not exist: correct the path")
        given = {"pretrained_model_path": self.weights} if self.weights else {}
        try:
            metric = pyiqa.create_metric(self.name, device=torch.device("cpu"), **given)
        except Exception as error:  # of many libraries: no network, a damaged file, a keyword that this metric has not
            raise UserError(
                f"pyiqa cannot make its metric {self.name} ({first_line(error)}): name the file of its weights as `weights`, "
                "or let pyiqa download them where there is a network"
            ) from None
        self.needs_truth = metric.metric_mode == "FR"
        self.network = metric.net.eval()

    @torch.no_grad()
    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        pictures = (image, target) if self.needs_truth else (image,)
        return self.network(*pictures).reshape(len(image)).cpu().double()

    def protocol(self) -> dict[str, Any]:
        weights = {"weights_sha256": digest(self.weights)} if self.weights else {"weights_of": "pyiqa's cache"}
        return {"network": f"{self.name} of pyiqa {metadata.version('pyiqa')}", "colours": "RGB, 0 to 1", **weights}


def package() -> ModuleType:
    """pyiqa itself."""
    try:
        return importlib.import_module("pyiqa")
    except ImportError as error:
        raise UserError(f"this metric needs pyiqa ({error}): pip install 'facerestore[pyiqa]'") from None
