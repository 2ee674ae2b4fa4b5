"""Curves in Weights & Biases, where `logger.wandb.project` asks for it.  The package `wandb` is imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from facerestore.config.schema import LoggerOptions
from facerestore.errors import UserError, first_line
from facerestore.files import atomic_write

ID_FILE = "wandb_id"  # in the run's folder: a run that goes on there goes on in Weights & Biases


def project_of(options: LoggerOptions) -> str | None:
    """The project that curves go to; none where `project` is left empty, as published files do."""
    return (options.wandb or {}).get("project")


def require_wandb(options: LoggerOptions) -> None:
    """UserError where curves are to go to Weights & Biases and its package is not there."""
    if project_of(options):
        _package()


class WandbRun:
    """A run of Weights & Biases.  Points are placed by their iteration, not by the order in which they come, so a training
    that went back to a checkpoint draws its curves again.

    Args:
        options: `project`, and `resume_id` of a run to go on with
        folder: the training's own, where the run's id is kept
        name: what the run is called
        config: the options, to be seen beside the curves

    Raises:
        UserError: the package is missing, or refuses (no login, no connection)
    """

    def __init__(self, options: LoggerOptions, folder: Path, name: str, config: Mapping[str, Any]):
        wandb = _package()
        known = folder / ID_FILE
        identity = (options.wandb or {}).get("resume_id") or (
            known.read_text(encoding="utf-8").strip() if known.exists() else None
        )
        try:
            self.run = wandb.init(
                project=project_of(options), id=identity, resume="allow", name=name, config=dict(config), dir=str(folder)
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases did not begin a run ({first_line(error)}): log in with `wandb login`, set "
                "WANDB_MODE=offline, or leave `logger.wandb` out"
            ) from None
        atomic_write(known, self.run.id)
        self.run.define_metric("iter")
        self.run.define_metric("*", step_metric="iter")

    def log(self, it: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        self.run.log({**values, "iter": it})

    def close(self) -> None:
        """Send what is left."""
        self.run.finish()


def _package() -> ModuleType:
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise UserError(
            "`logger.wandb.project` sends curves to Weights & Biases, which needs the package wandb: `pip install wandb`, or "
            "leave `project` empty"
        ) from None
