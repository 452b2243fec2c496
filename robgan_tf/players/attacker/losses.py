"""What attacks maximise beside the cross-entropy (`losses.class_loss`).

All from class logits z [B, K] and classes y, t int [B]; the loss of each image, [B]. In contrast to the cross-entropy
they have a gradient however sure a network is, and z_(1) >= z_(2) >= ... are the logits in falling order.

A loss is a function of one of these shapes; those that need several classes say so by `needs_classes`.
"""

from __future__ import annotations

import functools
from typing import Callable

import gin
import tensorflow as tf


def needs_classes(least: int, instead: str = "") -> Callable:
    """Declares the fewest classes that a loss makes sense for; to be put below `@gin.register`.

    Args:
        least: number of classes.
        instead: name of a loss for fewer.
    """

    def declare(loss):
        @functools.wraps(loss)
        def checked(logits, *classes):
            check_loss_classes(checked, logits.shape[-1])
            return loss(logits, *classes)

        checked.fewest_classes, checked.instead = least, instead
        return checked

    return declare


def check_loss_classes(loss: Callable, num_classes: int):
    """Raises ValueError where a loss needs more classes than `num_classes`; one that declares none takes any."""
    least = getattr(loss, "fewest_classes", 1)
    if num_classes < least:
        instead = f": take @{loss.instead}" if loss.instead else ""
        raise ValueError(f"{loss.__name__} needs {least} classes, there are {num_classes}{instead}.")


@gin.register
def margin_loss(logits, labels):
    """max_(k != y) z_k - z_y, positive where the answer is wrong (Carlini & Wagner 2017, f6)."""
    return tf.reduce_max(_without(logits, labels), axis=-1) - _logit_of(logits, labels)


@gin.register
@needs_classes(2, "class_loss")
def targeted_margin_loss(logits, labels, targets):
    """z_t - z_y, positive where the class t is preferred to the right one."""
    return _logit_of(logits, targets) - _logit_of(logits, labels)


@gin.register
@needs_classes(3, "margin_loss")
def dlr_loss(logits, labels):
    """The margin over z_(1) - z_(3), which does not change with the scale of the logits (Croce & Hein 2020, eq. 6).

    Where the three largest are equal, the answer is wrong already, or a tie, which counts as wrong: it is the margin.

    Raises:
        ValueError: for fewer than 3 classes.
    """
    first, _, third = tf.unstack(tf.math.top_k(logits, 3).values, axis=-1)
    return _ratio(margin_loss(logits, labels), first - third)


@gin.register
@needs_classes(4, "targeted_margin_loss")
def targeted_dlr_loss(logits, labels, targets):
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, eq. 7).

    Where the four largest are equal, the answer is wrong already, or a tie: it is z_t - z_y.

    Raises:
        ValueError: for fewer than 4 classes.
    """
    first, _, third, fourth = tf.unstack(tf.math.top_k(logits, 4).values, axis=-1)
    return _ratio(targeted_margin_loss(logits, labels, targets), first - (third + fourth) / 2)


def likely_wrong_class(logits, labels, rank):
    """Returns the class, int32 [B], that comes `rank`-th (from 0) among the wrong ones: a target of attacks."""
    order = tf.argsort(_without(logits, labels), axis=-1, direction="DESCENDING", stable=True)
    return tf.gather(order, rank % (logits.shape[-1] - 1), axis=-1)


def _logit_of(logits, classes):
    return tf.gather(logits, classes, axis=-1, batch_dims=1)


def _without(logits, classes):
    """The logits, that of the given class of each image at float32's lowest value."""
    chosen = tf.one_hot(classes, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.where(chosen, logits.dtype.min, logits)


def _ratio(margin, spread):
    """`margin` over `spread`, and the margin itself, with its gradient, where the spread is zero or infinite."""
    return margin / tf.where((spread > 0) & tf.math.is_finite(spread), spread, tf.ones_like(spread))
