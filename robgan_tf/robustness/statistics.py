"""What counts say: confidence intervals, the confusion matrix and accuracy by class. NumPy alone."""

from __future__ import annotations

import math
import statistics

import numpy as np


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share: all shares p from which `successes` are not surprising.

    It is made of the p with |successes / trials - p| <= z sqrt(p (1 - p) / trials). Unlike the textbook's normal
    interval it stays within [0, 1] and does not shrink to a point where none or all succeed (Wilson, JASA 1927; Brown,
    Cai and DasGupta, Statistical Science 2001, recommend it).

    Args:
        successes: how many, within 0 .. trials.
        trials: how many could have been, 1 or more.
        confidence: probability that the interval holds the true share, within (0, 1).

    Returns:
        Lower and upper end, within [0, 1].

    Raises:
        ValueError: for other numbers.
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"wilson: successes must be within 0 .. trials, and trials >= 1; got {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"wilson: confidence must be within (0, 1), such as 0.95; got {confidence}.")
    share = successes / trials
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    # The two roots of the quadratic equation in p above.
    middle = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = ((middle + sign * half) / (1 + z**2 / trials) for sign in (-1, 1))
    # At the ends of [0, 1] the root is exactly 0 or 1, which rounding would miss.
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was taken for each.

    Args:
        labels: the true classes, int [N].
        predictions: what a classifier says, int [N].
        num_classes: K.

    Returns:
        int64 [K, K]; entry [i, j] is the number of examples of class i that were taken for j.

    Raises:
        ValueError: for different lengths, or classes outside 0 .. K - 1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(
            f"confusion_matrix: labels and predictions must be one list each, equally long; got shapes "
            f"{list(labels.shape)} and {list(predictions.shape)}."
        )
    for name, classes in (("labels", labels), ("predictions", predictions)):
        if len(classes) and not (0 <= classes.min() and classes.max() < num_classes):
            raise ValueError(
                f"confusion_matrix: {name} must be within 0 .. {num_classes - 1}, got {classes.min()} .. "
                f"{classes.max()}."
            )
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of each class that is right, float64 [K], of a confusion matrix [K, K]; NaN if it is empty."""
    examples = np.sum(confusion, axis=1)
    return np.where(examples > 0, np.diag(confusion) / np.maximum(examples, 1), np.nan)
