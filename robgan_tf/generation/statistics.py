"""What is known of the features of many images, gathered batch by batch: never all of them in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable

import numpy as np

from robgan_tf.time_left import TimeLeft

if TYPE_CHECKING:
    from robgan_tf.generation.extractors import Extractor

# Covariances of all classes are gathered if they need no more memory than that.
_CLASS_BYTES = 1 << 28


class Moments:
    """Number, mean and covariance of vectors that come in batches, in float64.

    Two sets are merged by their means and sums of squared deviations (Chan, Golub & LeVeque, 1979): unlike with sums
    of squares, nothing cancels where the mean is large.

    Args:
        dimension: D.

    Attributes:
        count: number of vectors.
        mean: float64 [D].
        deviations: float64 [D, D], sum of (x - mean)(x - mean)^T.
    """

    def __init__(self, dimension: int):
        self.count = 0
        self.mean = np.zeros(dimension)
        self.deviations = np.zeros([dimension, dimension])

    def add(self, vectors: np.ndarray):
        """Takes in a batch [B, D]."""
        if not len(vectors):
            return
        vectors = vectors.astype(np.float64)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        total = self.count + len(vectors)
        step = mean - self.mean
        self.deviations += centred.T @ centred + np.outer(step, step) * (self.count * len(vectors) / total)
        self.mean += step * (len(vectors) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """float64 [D, D], unbiased (divided by N - 1)."""
        return self.deviations / max(self.count - 1, 1)


class ClassifierScore:
    """The score exp(E KL(p(y|x) || p(y))) of Salimans et al. (NeurIPS 2016), from logits that come in batches.

    Its mean and standard deviation over equal, consecutive parts of the images. With KL = sum p log p - sum p log p(y),
    two sums of a part are enough.

    Args:
        count: number of images to come.
        splits: number of parts.
    """

    def __init__(self, count: int, splits: int):
        self._ends = np.linspace(0, count, splits + 1).astype(int)[1:]
        self._seen = 0
        self._sums = None

    def add(self, logits: np.ndarray):
        """Takes in logits [B, K]."""
        logits = logits.astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        log = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
        shares = np.exp(log)
        if self._sums is None:
            self._sums = np.zeros([len(self._ends), logits.shape[1] + 2])
        part = np.searchsorted(self._ends, self._seen + np.arange(len(logits)), side="right")
        row = np.column_stack([shares, np.sum(shares * log, axis=1), np.ones(len(logits))])
        np.add.at(self._sums, part, row)
        self._seen += len(logits)

    def result(self) -> tuple[float, float]:
        """Returns mean and standard deviation over the parts; 0 where there is one."""
        sums = self._sums[self._sums[:, -1] > 0]
        shares, information = sums[:, :-2] / sums[:, -1:], sums[:, -2] / sums[:, -1]
        entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-300)), axis=1)
        scores = np.exp(information + entropy)
        return float(scores.mean()), float(scores.std())


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What distances need of N images, by one extractor.

    Attributes:
        count: N.
        mean: float64 [D].
        covariance: float64 [D, D].
        class_counts: int64 [K], how many there are of each class.
        class_means: float64 [K, D]; [0, D] where no class has more images than D, the dimension of the features.
        class_covariances: float64 [K, D, D]; [0, D, D] likewise.
        features: float32 [S, D], those of a random part of the images.
        labels: int32 [S].
        score: mean and standard deviation of the classifier score, float64 [2].
        right: share of the images that the extractor takes for their class; NaN if it knows other classes.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    class_counts: np.ndarray
    class_means: np.ndarray
    class_covariances: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    score: np.ndarray
    right: float

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.mean)


def gather(
    extractor: Extractor,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    count: int,
    num_classes: int,
    kept: int = 5000,
    splits: int = 10,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> FeatureStatistics:
    """Takes `count` images through the extractor, holding no more than a batch and what is kept.

    Args:
        extractor: the network.
        batches: images uint8 [B, H, W, C] and labels int32 [B], in random order or with the classes in turn.
        count: N; what comes after it is left out.
        num_classes: K.
        kept: S, how many features are kept: a random part of all.
        splits: parts for the standard deviation of the score.
        seed: of the choice of what is kept.
        progress: is called with a line of text every ten seconds.

    Raises:
        ValueError: where there are fewer images than `count`.
    """
    keep = np.zeros(count, bool)
    keep[np.random.default_rng(seed).permutation(count)[:kept]] = True
    moments, by_class = None, []
    score = ClassifierScore(count, splits)
    features_kept, labels_kept = [], []
    class_counts = np.zeros(num_classes, np.int64)
    done, right = 0, 0
    time_left = TimeLeft(count, "images")
    for images, labels in batches:
        images, labels = images[: count - done], labels[: count - done]
        features, logits = extractor(images)
        if moments is None:
            dimension = features.shape[1]
            moments = Moments(dimension)
            if count > dimension * num_classes and num_classes * dimension**2 * 8 <= _CLASS_BYTES:
                by_class = [Moments(dimension) for _ in range(num_classes)]
        moments.add(features)
        for label, one in enumerate(by_class):
            one.add(features[labels == label])
        score.add(logits)
        class_counts += np.bincount(labels, minlength=num_classes)
        right += np.sum(logits.argmax(axis=1) == labels) if logits.shape[1] == num_classes else np.nan
        chosen = keep[done : done + len(images)]
        features_kept.append(features[chosen])
        labels_kept.append(labels[chosen])
        done += len(images)
        if done >= count:
            break
        if line := time_left.line(done):
            progress(f"features: {line}")
    if done < count:
        raise ValueError(f"There are {done} images to measure, not {count}.")
    return FeatureStatistics(
        count,
        moments.mean,
        moments.covariance,
        class_counts,
        np.array([one.mean for one in by_class]).reshape(-1, dimension),
        np.array([one.covariance for one in by_class]).reshape(-1, dimension, dimension),
        np.concatenate(features_kept).astype(np.float32),
        np.concatenate(labels_kept).astype(np.int32),
        np.array(score.result()),
        float(right / count),
    )
