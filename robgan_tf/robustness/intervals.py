"""Intervals of shares of images."""

from __future__ import annotations


def wilson(found: int, examples: int) -> list[float]:
    """Returns the 95 % interval of a share (Wilson): within [0, 1], and no single point for shares of 0 and 1."""
    from scipy.stats import binomtest  # here: slow to import, and a training begins without it

    interval = binomtest(found, examples).proportion_ci(confidence_level=0.95, method="wilson")
    return [float(interval.low), float(interval.high)]
