"""Whether draws have a published distribution, whatever generator they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])  # what the cases store


def check_distribution(values: Sequence[float], published: dict[str, np.ndarray], name: str, draws: int) -> None:
    """Four combined standard errors, for the mean and for the share of values at or below each published quantile.

    Args:
        values: own draws
        published: the case's arrays, with NAME.mean, .std, .se and .quantiles
        name: of the figure
        draws: how many the published ones were
    """
    values = np.asarray(values, np.float64)
    error = np.hypot(values.std(ddof=1) / np.sqrt(len(values)), published[f"{name}.se"])
    assert abs(values.mean() - published[f"{name}.mean"]) <= 4 * error, f"mean of {name}"
    # A discrete figure may equal the quantile for many draws: the share below and the share at or below enclose it
    quantiles = published[f"{name}.quantiles"]
    slack = 1e-9 * np.abs(quantiles)
    below, upto = ((values[:, None] < q).mean(0) for q in (quantiles - slack, quantiles + slack))
    error = np.sqrt(QUANTILES * (1 - QUANTILES) * (1 / len(values) + 1 / draws))
    assert (below - 4 * error <= QUANTILES).all() and (upto + 4 * error >= QUANTILES).all(), f"quantiles of {name}"
