"""Accuracy on CIFAR-10-C, the corrupted images that others publish figures of (Hendrycks & Dietterich, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import Examples
from robgan_tf.data.sources.cifar10_c import CIFAR10C, CORRUPTIONS, SEVERITIES
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.values import check, optional, whole

_SHAPE, _CLASSES = (32, 32, 3), 10


@gin.configurable
@may_change("data_dir")
def cifar10_c_accuracy(
    logits: Callable[[tf.Tensor], tf.Tensor],
    examples: Examples,
    batch_size: int,
    seed: int,
    data_dir: str | None = None,
    corruptions: Sequence[str] = CORRUPTIONS,
    corrupted_examples: int | None = None,
) -> dict:
    """Measures the accuracy of a classifier of CIFAR-10 on CIFAR-10-C, as tensorflow-datasets has prepared it.

    Args:
        logits: maps images float32 [B, 32, 32, 3] in [-1, 1] to class logits [B, 10], classes in CIFAR-10's order.
        examples: test images, which show what the classifier is for; CIFAR-10-C has images of its own.
        batch_size: images at once.
        seed: not used: the images are what they are.
        data_dir: TFDS folder of `cifar10_corrupted`; None is ~/tensorflow_datasets.
        corruptions: their names; by default the benchmark's 15.
        corrupted_examples: how many images of each corruption and severity; None for all 10,000, as published.

    Returns:
        As `corruption_accuracy` does, "name" being "CIFAR-10-C"; and the "version" of the data.

    Raises:
        ValueError: where the classifier is not one of CIFAR-10, or the data are not prepared.
    """
    check("cifar10_c_accuracy.corrupted_examples", corrupted_examples, optional(whole(1)))
    classes = int(logits(tf.zeros([1, *examples.image_shape])).shape[-1])
    if (examples.image_shape, classes) != (_SHAPE, _CLASSES):
        raise ValueError(
            f"cifar10_c_accuracy is for classifiers of CIFAR-10, {_CLASSES} classes of 32 x 32 x 3 pixels; this one "
            f"has {classes} of {' x '.join(map(str, examples.image_shape))}: take @corruption_accuracy."
        )
    data = CIFAR10C(data_dir, corruptions)
    classifier = AttackedClassifier(logits, None, batch_size)
    accuracies = {}
    for corruption in corruptions:
        rights = [classifier(data.read(corruption, severity, corrupted_examples)) for severity in SEVERITIES]
        accuracies[corruption] = [float(right.mean()) for right in rights]
    return {
        "name": "CIFAR-10-C",
        "version": data.version,
        "mean": float(np.mean(list(accuracies.values()))),
        "examples": len(rights[0]),
        "by_corruption": accuracies,
    }
