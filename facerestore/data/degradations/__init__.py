"""Degradations: pairs of `sample_*`, which draws parameters, and a pure function of them."""
