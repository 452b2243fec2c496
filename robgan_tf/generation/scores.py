"""From the statistics of two sets of images to the scores of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robgan_tf.generation.distances import (
    frechet_distance,
    kernel_distance,
    precision_and_recall,
    within_class_distances,
)
from robgan_tf.generation.statistics import FeatureStatistics


def scores(
    measured: FeatureStatistics,
    real: FeatureStatistics,
    names: dict[str, str],
    class_names: Sequence[str],
    nearest: int,
    few_samples: bool,
) -> dict:
    """Returns the scores of images against real ones.

    Args:
        measured: statistics of the images.
        real: statistics of real images, by the same extractor.
        names: of `score`, `frechet` and `kernel`, see `Extractor.score_names`.
        class_names: K names.
        nearest: k of precision and recall.
        few_samples: whether Frechet's distance is given of fewer images than features, too; else it is None then.

    Returns:
        Numbers by name, None where there is none to give; what needs kept features only where they were kept.
    """
    dimension = measured.dimension
    enough = min(measured.count, real.count) > dimension
    frechet = None
    if enough or few_samples:
        frechet = frechet_distance(measured.mean, measured.covariance, real.mean, real.covariance)
    found = {
        "images": measured.count,
        names["score"]: float(measured.score[0]),
        f"{names['score']}_deviation": float(measured.score[1]),
        names["frechet"]: frechet,
        "frechet_is_of_full_rank": enough,
        "class_accuracy": None if np.isnan(measured.right) else measured.right,
    }
    count = min(len(measured.features), len(real.features))
    if count <= nearest:
        return found
    # Equally many of both, on which precision and recall depend.
    features, others = measured.features[:count], real.features[:count]
    kernel, error = kernel_distance(features, others)
    precision, recall = precision_and_recall(others, features, nearest)
    return {
        **found,
        names["kernel"]: kernel,
        f"{names['kernel']}_standard_error": error,
        "precision": precision,
        "recall": recall,
        "subset": count,
        **_diversity(measured, real, len(class_names)),
        "classes": _by_class(measured, real, names, class_names),
    }


def _diversity(measured, real, num_classes) -> dict:
    """Mean distance within classes, as a share of that of real images: 1 for as varied, 0 for all the same."""
    spread, usual = (within_class_distances(one.features, one.labels, num_classes) for one in (measured, real))
    shares = spread / np.where(usual > 0, usual, np.nan)
    if not np.isfinite(shares).any():
        return {"diversity": None, "least_diversity": None, "diversity_by_class": None}
    return {
        "diversity": float(np.nanmean(shares)),
        "least_diversity": float(np.nanmin(shares)),
        "diversity_by_class": [None if np.isnan(share) else float(share) for share in shares],
    }


def _by_class(measured, real, names, class_names) -> list[dict] | str:
    """Frechet's distance of each class; None where either has no more images of it than there are features.

    A covariance that is diagonal or shrunk would give a number for fewer, but not this distance.
    """
    if not (len(measured.class_means) and len(real.class_means)):
        fewest = min(measured.class_counts.min(), real.class_counts.min())
        if fewest > measured.dimension:
            size = len(class_names) * measured.dimension**2 * 8 / 2**20
            return f"left out: the covariances of {len(class_names)} classes would take {size:.0f} MiB"
        return (
            f"left out: needs more images of each class than the {measured.dimension} features, and there are {fewest}"
        )
    blocks = []
    for label, name in enumerate(class_names):
        counts = int(measured.class_counts[label]), int(real.class_counts[label])
        distance = None
        if min(counts) > measured.dimension:
            one, other = ((by.class_means[label], by.class_covariances[label]) for by in (measured, real))
            distance = frechet_distance(*one, *other)
        blocks.append({"class": name, "images": counts[0], "real_images": counts[1], names["frechet"]: distance})
    return blocks
