"""From options to a running training: building, the loop, phases, averages, resuming, logs, evaluation."""

from facerestore.engine.builder import build_model

__all__ = ["build_model"]
