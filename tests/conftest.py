"""`pytest` runs what takes seconds, `pytest --upto 60` what takes a minute, `pytest --full` all.

The summary says how many cases were left.
"""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(2)

SECONDS = 30.0  # of a case that is marked as slow and does not say how slow, at most, on two cores


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run all cases")
    parser.addoption("--upto", type=float, default=5.0, metavar="SECONDS", help="run the cases that take up to so long (5)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit = float("inf") if config.getoption("--full") else config.getoption("--upto")
    left = [item for item in items if seconds(item) > limit]
    config.stash[LEFT] = len(left)
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def seconds(item: pytest.Item) -> float:
    """How long a case takes: `slow(90)`, or `slow` alone."""
    mark = item.get_closest_marker("slow")
    return 0.0 if mark is None else mark.args[0] if mark.args else SECONDS


LEFT = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, 0):
        terminalreporter.write_line(f"{left} slow cases were left for `pytest --full`")
