"""Data sets.  A new one is a file with its class, one import below, and a YAML that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facerestore.data.base import FaceDataset
from facerestore.data.degraded_faces import FFHQBlindDataset, FFHQBlindJointDataset, FFHQDegradationDataset
from facerestore.data.domains import DomainFolderDataset, SyntheticDomainDataset
from facerestore.data.ffhq import FFHQDataset
from facerestore.data.paired import PairedImageDataset
from facerestore.data.single import SingleImageDataset
from facerestore.data.synthetic_faces import SyntheticFaceDataset
from facerestore.registry import DATASETS

__all__ = [
    "DomainFolderDataset",
    "FFHQBlindDataset",
    "FFHQBlindJointDataset",
    "FFHQDataset",
    "FFHQDegradationDataset",
    "PairedImageDataset",
    "SingleImageDataset",
    "SyntheticDomainDataset",
    "SyntheticFaceDataset",
    "build_dataset",
]


def build_dataset(options: Mapping[str, Any]) -> FaceDataset:
    """The data set of `{"type": ..., **keywords}`."""
    return DATASETS.build(options)
