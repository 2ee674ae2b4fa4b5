"""Small trainings for the tests of the frame."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DEBUG = ROOT / "options" / "debug"
OPTIONS = sorted(
    p for p in (ROOT / "options").rglob("*.yml") if p.parent.name != "protocols" and not p.stem.endswith("_recipe")
)
TRAININGS = sorted(path for path in DEBUG.glob("*.yml") if not path.stem.endswith("_test"))
QUICK = ["--set", "val.val_freq=~", "--set", "val.report=false", "--set", "logger.use_tb_logger=false"]


def program(name: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run train.py or test.py as a user does."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def processes(count: int, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run train.py under torchrun."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.run([*command, str(ROOT / "train.py"), *map(str, arguments)], cwd=cwd, env=env, capture_output=True,
                          text=True, timeout=300)  # fmt: skip


def weights(folder: Path, it: int, name: str = "net_g") -> dict[str, dict[str, torch.Tensor]]:
    content = torch.load(folder / "models" / f"{name}_{it}.pth", weights_only=True)
    return {k: content[k] for k in ("params", "params_ema") if k in content}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        one[k].keys() == other[k].keys() and all(torch.equal(one[k][n], other[k][n]) for n in one[k]) for k in one
    )
