"""Checks of the gradients that attacks follow: not zero, those of the loss, and worth a step.

At clean images, at random points of the ball and at attacked images, on each loss that is attacked. An image has a
fault if it has it at any of these points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Callable

import numpy as np
import tensorflow as tf

from robgan_tf.players.attacker.losses import likely_wrong_class
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE
from robgan_tf.robustness.verdicts import RARE, Check, counted

# Changes of each pixel that finite differences are taken over: some lie above float32's rounding of the logits, and
# some below the bends of the network, for each network others.
_LENGTHS = (3e-4, 1e-3, 3e-3, 1e-2)
# A finite difference agrees with the gradient to this share of it. Rounding, bends and curvature leave honest networks
# within some hundredths at one of the lengths.
_AGREES = 0.5
# What can't be told from zero in float64: the cross-entropy of margins above 30.
_ROUNDED = 1e-12
_DIRECTIONS = 6
# Share of the images where a step along the gradient may be worse than random ones: behind a bend of the loss.
_BENDS = 0.1


def check_gradients(
    logits: Callable,
    losses: Mapping[str, tuple[Callable, bool]],
    points: Mapping[str, np.ndarray],
    labels: np.ndarray,
    step: float,
    batch_size: int,
    seed: int,
) -> Iterator[Check]:
    """Yields the results.

    Args:
        logits: the classifier.
        losses: what is attacked, by name, and whether it takes target classes, too.
        points: float32 [N, H, W, C] in [-1, 1] by name: the images where gradients are looked at.
        labels: right classes, int [N].
        step: change of each pixel that the attacks' steps have about.
        batch_size: images at once.
        seed: of random directions.
    """
    zero, wrong, useless = (np.zeros(len(labels), bool) for _ in range(3))
    for loss, targeted in losses.values():
        probe = _probe(logits, loss, targeted, step, next(iter(points.values())).shape[1:])
        for number, images in enumerate(points.values()):
            for first in range(0, len(labels), batch_size):
                rows = slice(first, first + batch_size)
                found = probe(*map(tf.convert_to_tensor, (images[rows], labels[rows], [seed, 7919 * number + first])))
                for faults, new in zip((zero, wrong, useless), found):
                    faults[rows] |= new.numpy()
    where = f"at {', '.join(points)} images, of {' and '.join(losses)}"

    def result(name, faults, tolerated, words, meaning):
        return counted(
            name, faults.sum(), len(labels), tolerated, f"{faults.mean():.1%} of the images {words}", meaning
        )

    yield result(
        "Gradients are not zero",
        zero,
        RARE,
        f"have a gradient of exactly zero or none that is finite, {where}",
        "an attack along the gradient can't move them",
    )
    yield result(
        "Gradients agree with finite differences",
        wrong & ~zero,
        RARE,
        f"have a gradient that is not how the loss changes, over any of {len(_LENGTHS)} distances, {where}",
        "the gradient is not that of the classifier's answers",
    )
    yield result(
        "Steps along gradients beat random ones",
        useless & ~zero,
        _BENDS,
        f"lose more by a random change of {step:.2g} of each pixel than by one along the gradient, {where}",
        "the gradient is shattered: it does not tell where the loss rises",
    )


def _probe(logits, loss, targeted, step, image_shape):
    """A function of images, labels and a seed: which gradients are zero, wrong, and useless, bool [B] each."""

    def value(images, labels, targets, dtype):
        # In float64 so that the loss of a sure network is not rounded away; the attack itself is in float32.
        outputs = tf.cast(tf.cast(logits(images), tf.float32), dtype)
        return loss(outputs, labels, *targets)

    def probe(images, labels, seed):
        outputs = tf.cast(logits(images), tf.float32)
        targets = [likely_wrong_class(outputs, labels, 0)] if targeted else []
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(images)
            total = tf.reduce_sum(value(images, labels, targets, tf.float32))
            exact = tf.reduce_sum(value(images, labels, targets, tf.float64))
        # That of the attack, and without what the loss in float32 loses of it: from a margin of 17 on the right class
        # has a probability of 1 there, and no gradient.
        gradient, exact_gradient = tape.gradient(total, images), tape.gradient(exact, images)
        finite = tf.reduce_all(tf.math.is_finite(gradient), [1, 2, 3])
        zero = ~finite | tf.reduce_all(gradient == 0, [1, 2, 3])
        before = value(images, labels, targets, tf.float64)

        # Directions of one length in each pixel, which lead into the range of pixels; the first is up the gradient.
        furthest = max(step, *_LENGTHS)
        low, high = PIXEL_RANGE
        up = tf.where(images + furthest > high, 0.0, 1.0)
        down = tf.where(images - furthest < low, 0.0, 1.0)
        uphill = tf.where(gradient > 0, up, -down) * tf.cast(gradient != 0, tf.float32)
        signs = tf.random.stateless_uniform([_DIRECTIONS, *tf.unstack(tf.shape(images))], seed, 0, 2, tf.int32)
        directions = tf.concat([uphill[tf.newaxis], tf.where(signs > 0, up, -down)], 0)
        slopes = tf.reduce_sum(tf.cast(exact_gradient * directions, tf.float64), [2, 3, 4])

        def rises(length):
            return tf.map_fn(
                lambda direction: value(images + length * direction, labels, targets, tf.float64) - before,
                directions,
                fn_output_signature=tf.float64,
            )

        def agrees(length):
            error = (rises(length) - tf.cast(length, tf.float64) * slopes) ** 2
            most = (_AGREES * tf.cast(length, tf.float64) * slopes) ** 2 + _ROUNDED**2
            first = error[0] <= most[0]
            return first & (tf.reduce_sum(error[1:], 0) <= tf.reduce_sum(most[1:], 0))

        agreed = tf.map_fn(agrees, tf.constant(_LENGTHS), fn_output_signature=tf.bool)
        steps = rises(step)
        # Infinite where the right class has a logit of -inf: such an image is lost without an attack.
        wrong = tf.math.is_finite(before) & ~tf.reduce_any(agreed, 0)
        return zero, wrong, steps[0] < tf.reduce_max(steps[1:], 0) - _ROUNDED

    specs = tf.TensorSpec([None, *image_shape], tf.float32), tf.TensorSpec([None], tf.int32)
    return tf.function(probe, autograph=False).get_concrete_function(*specs, tf.TensorSpec([2], tf.int32))
