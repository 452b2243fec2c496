"""Finds what can't be evaluated, before any attack: each fault is a ValueError of one line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable

import numpy as np
import tensorflow as tf

from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier

if TYPE_CHECKING:
    from robgan_tf.data.datasets import Examples, ImageData


# Another scale of pixels is blamed if clean accuracy on it is better by more than this, and than chance makes it: three
# standard errors of the difference of two shares, which are 1/2 at most.
_BETTER, _STANDARD_ERRORS = 0.1, 3


def check_classifier(logits: Callable, data: ImageData) -> None:
    """Raises ValueError unless `logits` takes images of `data` and answers with a number for each of its classes.

    Args:
        logits: images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K].
        data: the data set.
    """
    try:
        # Two at once: a network for batches of one is no use.
        shape = tf.convert_to_tensor(logits(tf.zeros([2, *data.image_shape]))).shape.as_list()
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The classifier does not take images of {data.name}, {data.image_shape}: use the data that it was trained "
            f"on. ({str(error).splitlines()[0]})"
        ) from error
    if shape != [2, data.num_classes]:
        found = f"{shape[-1]} classes" if len(shape) == 2 else f"answers of shape {shape}"
        raise ValueError(
            f"The classifier has {found}, {data.name} has {data.num_classes} classes: use the data it was trained on."
        )


def check_examples(data: ImageData, splits: dict[str, Examples]) -> None:
    """Raises ValueError for a split without examples, or with labels that are no class of `data`."""
    for split, examples in splits.items():
        if not len(examples):
            raise ValueError(f"The {split} split of {data.name} is empty: there is nothing to evaluate on.")
        wrong = (examples.labels < 0) | (examples.labels >= data.num_classes)
        if wrong.any():
            raise ValueError(
                f"The {split} split of {data.name} has {wrong.sum()} labels out of range, such as "
                f"{examples.labels[wrong][0]}: with {data.num_classes} classes they are 0 to {data.num_classes - 1}."
            )


def check_answers(clean: AttackedClassifier, examples: Examples) -> None:
    """Raises ValueError for answers on clean images that are not finite, or far better on another scale of pixels.

    Args:
        clean: the classifier without an attack.
        examples: some clean images.
    """
    answers = np.concatenate([batch.logits for batch in clean.batches(examples)])
    # Minus infinity is what some classifiers give to classes that they do not use.
    bad = np.isnan(answers).any(axis=-1) | ~np.isfinite(answers.max(axis=-1))
    if bad.any():
        raise ValueError(
            f"The classifier's answers are not finite (NaN or infinite) on {bad.sum()} of {len(examples)} images: "
            f"look for a broken checkpoint, a division by zero or an overflow in it."
        )
    accuracy = np.mean(answers.argmax(axis=-1) == examples.labels)
    better = max(_BETTER, _STANDARD_ERRORS * math.sqrt(2 * 0.25 / len(examples)))
    if accuracy + better >= 1:
        return
    for scale, low, high in (("[0, 1]", 0.0, 1.0), ("[0, 255]", 0.0, 255.0)):
        other = AttackedClassifier(_rescaled(clean.logits, low, high), None, clean.batch_size)(examples).mean()
        if other > accuracy + better:
            raise ValueError(
                f"The classifier gets {accuracy:.1%} of the clean images right on the scale [-1, 1], {other:.1%} on "
                f"{scale}: it was made for that one. Put images = low + (high - low) * (images + 1) / 2 before it."
            )


def has_gradient(logits: Callable, examples: Examples) -> bool:
    """Returns whether a path of gradients leads from the answers to the images, be they zero or not."""
    images = tf.zeros([1, *examples.image_shape])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        answers = logits(images)
    try:
        return tape.gradient(answers, images) is not None
    except LookupError:  # an operation that has no gradient at all
        return False


def _rescaled(logits, low, high):
    return lambda images: logits(low + (high - low) * (images + 1) / 2)
