"""The gradient of an attack's loss in the images: in float16, and of classifiers that are random on purpose."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.judge import Score, over_images

# Under float16 smaller losses are magnified like this one, to a gradient in the logits of 2**12 at most.
_SMALLEST_LOSS = 2.0**-12


def magnified(losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns losses, of any shape, whose gradients float16 can hold, and what each was multiplied by, else 1.

    Once a network is sure of an image, the gradient of its cross-entropy is about as small as the loss, and float16
    ends at 6e-8: unscaled, an attack on what the network is surest of would stand still. A factor of about 1 / loss
    for each image keeps the gradients at the size that they have for an image in doubt, and changes no direction.
    """
    if keras.mixed_precision.global_policy().name != "mixed_float16":
        return losses, tf.ones([])
    factors = tf.stop_gradient(1.0 / tf.clip_by_value(tf.abs(losses), _SMALLEST_LOSS, 1.0))
    return losses * factors, factors


def score_and_gradient(
    judge: Callable[[tf.Tensor], Score], images: tf.Tensor, samples: int = 1
) -> tuple[Score, tf.Tensor]:
    """Returns the score of images, and the gradient of each one's loss, [B, H, W, C].

    Args:
        judge: gives the score of images.
        images: float32 [B, H, W, C].
        samples: of a random classifier, passes over which loss and gradient are averaged: the expectation over
            transformation (Athalye et al., ICML 2018). An image is broken then if it is in half of the passes or more.
    """
    if samples == 1:
        return _one_pass(judge, images)

    def add(index, total):
        return index + 1, tf.nest.map_structure(tf.add, total, _as_numbers(*_one_pass(judge, images)))

    first = _as_numbers(*_one_pass(judge, images))
    _, total = tf.while_loop(lambda index, _: index < samples, add, (1, first), maximum_iterations=samples - 1)
    loss, broken, gradient = (sums / samples for sums in total)
    return Score(loss, broken >= 0.5), gradient


def _one_pass(judge, images):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        score = judge(images)
        losses, factors = magnified(score.loss)
        total = tf.reduce_sum(losses)
    gradient = tape.gradient(total, images)
    if factors.shape.rank:  # what overflows float16 all the same moves nothing, instead of making the image NaN
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0) / over_images(factors)
    return score, gradient


def _as_numbers(score, gradient):
    return score.loss, tf.cast(score.broken, tf.float32), gradient
