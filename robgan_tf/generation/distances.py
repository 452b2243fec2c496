"""Distances between two sets of features, and diversity within one, in float64.

All of them depend on the network that made the features, see `extractors`.
"""

from __future__ import annotations

import importlib.util
import math
import warnings

import numpy as np
import tensorflow as tf

# Rows of a matrix of distances that are in memory at once.
_ROWS = 1000


def frechet_distance(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Returns Frechet's distance of two normal distributions: FID, of Inception features (Heusel et al., NeurIPS 2017).

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)). With A = C1^(1/2) the eigenvalues of C1 C2 = A A C2 are those of
    A C2 A, which is symmetric: the trace of its root is the sum of the roots of its eigenvalues, and no complex number
    appears, as it does in `scipy.linalg.sqrtm` of C1 C2, even of singular matrices.

    Args:
        mean_1: float64 [D].
        covariance_1: float64 [D, D].
        mean_2: float64 [D].
        covariance_2: float64 [D, D].
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ covariance_2 @ root
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0))
    distance = np.sum((mean_1 - mean_2) ** 2) + np.trace(covariance_1) + np.trace(covariance_2) - 2 * np.sum(roots)
    return float(max(distance, 0.0))  # rounding


def kernel_distance(
    features_1: np.ndarray, features_2: np.ndarray, block_size: int = 1000
) -> tuple[float, float | None]:
    """Returns the squared kernel distance (KID: Binkowski et al., ICLR 2018), and its standard error, if any.

    The unbiased estimate of MMD^2 with the kernel (x^T y / D + 1)^3, the mean over blocks of at most `block_size`.
    A single block has no standard error.

    Args:
        features_1: [N, D], in random order.
        features_2: [M, D], in random order.
        block_size: most rows of a block.
    """
    estimate = _kernel_distance_by_tfgan if _tfgan_is_usable() else _kernel_distance_by_blocks
    distance, error = estimate(features_1, features_2, block_size)
    return distance, None if math.isnan(error) else error


def _tfgan_is_usable() -> bool:
    """Whether TF-GAN is there; it imports on no TensorFlow newer than 2.15."""
    newer = tuple(map(int, tf.__version__.split(".")[:2])) > (2, 15)
    return not newer and importlib.util.find_spec("tensorflow_gan") is not None


def _kernel_distance_by_tfgan(features_1, features_2, block_size) -> tuple[float, float]:
    """The estimate and its standard error, NaN for a single block, by TF-GAN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pkg_resources, which setuptools will drop
        import tensorflow_gan as tfgan  # takes seconds, which the evaluation of classifiers need not wait for

    pair = [tf.constant(features, tf.float64) for features in (features_1, features_2)]
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # TF-GAN calls what TensorFlow calls deprecated
    try:
        found = tfgan.eval.kernel_classifier_distance_and_std_from_activations(*pair, max_block_size=block_size)
    finally:
        logger.setLevel(level)
    distance, error = map(float, found)
    return distance, error


def _kernel_distance_by_blocks(features_1, features_2, block_size) -> tuple[float, float]:
    """The same by scikit-learn's kernel, in as many blocks of as equal sizes as TF-GAN's."""
    blocks = math.ceil(max(len(features_1), len(features_2)) / block_size)
    # The longer blocks come last.
    parts = [np.array_split(features.astype(np.float64)[::-1], blocks)[::-1] for features in (features_1, features_2)]
    estimates = [_unbiased_mmd(one, other) for one, other in zip(*parts)]
    error = np.std(estimates, ddof=1) / math.sqrt(blocks) if blocks > 1 else math.nan
    return float(np.mean(estimates)), float(error)


def _unbiased_mmd(one, other) -> float:
    """MMD^2 of two samples; the kernel of a sample with itself has no part in it (Gretton et al. 2012, lemma 6)."""
    from sklearn.metrics.pairwise import polynomial_kernel  # here: slow to import, and a training begins without it

    def kernel(left, right):
        return polynomial_kernel(left, right, degree=3, gamma=1 / left.shape[1], coef0=1)

    def within(sample):
        count = len(sample)
        found = kernel(sample, sample)
        return (found.sum() - np.trace(found)) / (count * (count - 1))

    return within(one) + within(other) - 2 * kernel(one, other).mean()


def precision_and_recall(real: np.ndarray, generated: np.ndarray, nearest: int = 3) -> tuple[float, float]:
    """Returns the improved precision and recall of Kynkaanniemi et al. (NeurIPS 2019).

    Precision is the share of generated features within the manifold of the real ones, the union of balls around each
    that reach to its `nearest`-th neighbour; recall the share of the real ones within that of the generated ones.

    Args:
        real: [N, D].
        generated: [M, D]; best M = N, since both depend on the number of samples.
        nearest: k.

    Raises:
        ValueError: where a set has not more than `nearest` samples.
    """
    for name, features in (("real", real), ("generated", generated)):
        if len(features) <= nearest:
            raise ValueError(f"precision_and_recall needs more than {nearest} {name} samples, got {len(features)}.")
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    return _share_within(generated, real, nearest), _share_within(real, generated, nearest)


def _share_within(features, manifold, nearest) -> float:
    """The share of `features` [M, D] that are within the balls of `manifold` [N, D]."""
    # Of each row the nearest is the point itself.
    radii = np.concatenate([np.partition(rows, nearest, axis=1)[:, nearest] for rows in squared(manifold, manifold)])
    return float(np.mean(np.concatenate([np.any(rows <= radii, axis=1) for rows in squared(features, manifold)])))


def squared(features_1: np.ndarray, features_2: np.ndarray):
    """Yields the squared distances of [N, D] and [M, D], some rows of the N x M after the other."""
    norms = np.sum(features_2**2, axis=1)
    same = features_1 is features_2
    for begin in range(0, len(features_1), _ROWS):
        rows = features_1[begin : begin + _ROWS]
        found = np.maximum(np.sum(rows**2, axis=1)[:, None] + norms - 2 * rows @ features_2.T, 0)
        if same:  # exactly, whatever the rounding
            found[np.arange(len(rows)), np.arange(begin, begin + len(rows))] = 0
        yield found


def within_class_distances(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the mean distance of two different samples of a class, float64 [K]; NaN for a class with fewer than two.

    Args:
        features: [N, D].
        labels: int [N].
        num_classes: K.
    """
    means = np.full(num_classes, np.nan)
    for label in range(num_classes):
        members = features[labels == label].astype(np.float64)
        count = len(members)
        if count > 1:
            total = sum(np.sqrt(rows).sum() for rows in squared(members, members))
            means[label] = total / (count * (count - 1))
    return means
