"""Checks of a classifier's answers by themselves: the same each time, of each image alone, with gradients, logits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, LInf

# Shares of the images with a gradient of exactly zero: up to the first a check passes, up to the second it warns (the
# cross-entropy of a network that is sure beyond float32 has some).
_ZEROS = (0.01, 0.1)
# Largest difference of two passes over the same batch, as a share of the largest logit: 0, or what parallel sums do.
_REPEAT = (0.0, 1e-5)
# 1.
_BATCHES = (1e-4, 1e-2)
_RANDOM = (
    "the classifier is random, so attack and measurement look at different ones; where that is meant, evaluate it with "
    "gin/evaluation/rand.gin"
)


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what should be so.
        status: "pass", "warn" or "fail".
        value: the figure it was judged by; None where there is none.
        message: figure and meaning in a sentence.
    """

    name: str
    status: str
    value: float | None
    message: str


def graded(name: str, value: float, limits: tuple[float, float], message: str, meaning: str) -> Check:
    """Returns a check that passes up to the first limit and warns up to the second; else `meaning` is said too."""
    value = round(float(value), 9)  # 0.010000000000000009 is a point too
    status = "pass" if value <= limits[0] else "warn" if value <= limits[1] else "fail"  # NaN fails
    return Check(name, status, value, message if status == "pass" else f"{message}: {meaning}")


def check_answers(clean: AttackedClassifier, examples: Examples) -> Iterator[Check]:
    """Yields what clean answers tell: the same each time, independent of the batch, no probabilities."""

    def answers(examples):
        return np.concatenate([batch.logits for batch in clean.batches(examples)])

    first, second = answers(examples), answers(examples)
    scale = max(np.abs(first).max(), 1e-6)
    difference = np.abs(first - second).max() / scale
    yield graded(
        "Two clean passes are identical",
        difference,
        _REPEAT,
        f"the logits of the same images differ by {difference:.2g} of the largest at most",
        _RANDOM,
    )
    count = len(examples) // 2 or 1
    fewer = answers(examples.select(np.arange(len(examples))[::-1][:count]))[::-1]
    difference = np.abs(fewer - first[-count:]).max() / scale
    yield graded(
        "Answers do not depend on the batch",
        difference,
        _BATCHES,
        f"the logits of the same images within another batch differ by {difference:.2g} of the largest at most",
        "the classifier is random, or not in inference mode (training=False)",
    )
    # The margins are those of AutoAttack's flag.
    probabilities = first.min() > -1e-5 and first.max() < 1 + 1e-5 and np.allclose(first.sum(axis=-1), 1, atol=1e-4)
    yield Check(
        "Answers are logits, not probabilities",
        "fail" if probabilities else "pass",
        float(probabilities),
        "all answers are in [0, 1] and sum to 1: remove the softmax, its gradients vanish"
        if probabilities
        else f"answers range from {first.min():.3g} to {first.max():.3g}",
    )


def check_off_grid(noisy: AttackedClassifier, examples: Examples) -> Check:
    """Returns whether two passes over images between the 256 levels agree: clean images hide what is random there.

    Args:
        noisy: the classifier behind noise of less than a level.
        examples: clean images.
    """
    first, second = (np.concatenate([batch.logits for batch in noisy.batches(examples)]) for _ in range(2))
    difference = np.abs(first - second).max() / max(np.abs(first).max(), 1e-6)
    return graded(
        "Two passes between the 8-bit levels are identical",
        difference,
        _REPEAT,
        f"the logits of the same images with a little noise differ by {difference:.2g} of the largest at most",
        _RANDOM,
    )


def off_grid(ball, examples: Examples) -> float:
    """Returns the radius within which no pixel moves further than half of an 8-bit level, 1/255, on average."""
    per_pixel = 1.0 if isinstance(ball, LInf) else math.sqrt(math.prod(examples.image_shape))
    return per_pixel / 255


def check_zero_gradients(clean: AttackedClassifier, examples: Examples) -> Check:
    """Returns the share of images whose cross-entropy has a gradient of exactly zero everywhere."""

    @tf.function(reduce_retracing=True)
    def is_zero(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = class_loss(tf.cast(clean.logits(images), tf.float32), labels)
        return tf.reduce_all(tape.gradient(loss, images) == 0, axis=[1, 2, 3])

    zeros = sum(is_zero(batch.images, examples.labels[batch.rows]).numpy().sum() for batch in clean.batches(examples))
    share = zeros / max(len(examples), 1)
    return graded(
        "Gradients are not zero",
        share,
        _ZEROS,
        f"{share:.1%} of the images have a gradient of exactly zero",
        "an attack along the cross-entropy's gradient can't move them",
    )


def check_arrays(attacked: Sequence[AttackedClassifier]) -> Check:
    """Returns whether all images that attacks have made were finite, in range and in their ball."""
    made, invalid = (sum(getattr(one, name) for one in attacked) for name in ("made", "invalid"))
    return graded(
        "Adversarial images are in ball and range",
        float(invalid),
        (0.0, 0.0),
        f"{invalid} of {made} adversarial images are outside of the ball or of {list(PIXEL_RANGE)}, or not finite",
        "they were counted as failed attacks; the attack or its projection is broken",
    )
