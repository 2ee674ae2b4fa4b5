"""Loss curves of short runs, held to a file: `python -m tests.engine.golden` writes it anew after a change that is meant."""

from __future__ import annotations

import json
from pathlib import Path

from facerestore.config import load_options
from facerestore.data.loader import training_loader
from facerestore.engine import build_model
from facerestore.engine.evaluation import dataset_of
from tests.engine.runs import TRAININGS

FILE = Path(__file__).with_name("golden.json")
ITERATIONS = 4


def curves(options_file: Path) -> dict[str, list[float]]:
    """Every term of the first iterations of an option file."""
    options = load_options(options_file)
    section = options.datasets["train"]
    loader = training_loader(
        dataset_of(section, options),
        section.batch_size_per_gpu,
        seed=options.manual_seed,
        crops_per_image=section.crops_per_image,
    )
    model = build_model(options)
    found: dict[str, list[float]] = {}
    for it, batch in zip(range(1, ITERATIONS + 1), loader, strict=False):
        for name, value in model.step(batch, it).items():
            found.setdefault(name, []).append(float(value))
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps({p.stem: curves(p) for p in TRAININGS}, indent=1) + "\n")
