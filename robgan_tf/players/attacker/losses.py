"""What attacks maximise beside the cross-entropy (`losses.class_loss`).

All from class logits z [B, K] and classes y, t int [B]; the loss of each image, [B]. In contrast to the cross-entropy
they have a gradient however sure a network is, and z_(1) >= z_(2) >= ... are the logits in falling order.
"""

from __future__ import annotations

import gin
import tensorflow as tf


def _of_classes(fewest):
    """Says how many classes a loss needs, for checks before anything is attacked."""

    def note(loss):
        loss.fewest_classes = fewest
        return loss

    return note


@gin.register
def margin_loss(logits, labels):
    """max_(k != y) z_k - z_y, positive where the answer is wrong (Carlini & Wagner 2017, f6)."""
    return tf.reduce_max(_without(logits, labels), axis=-1) - _logit_of(logits, labels)


@gin.register
def targeted_margin_loss(logits, labels, targets):
    """z_t - z_y, positive where the class t is preferred to the right one."""
    return _logit_of(logits, targets) - _logit_of(logits, labels)


@gin.register
@_of_classes(3)
def dlr_loss(logits, labels):
    """The margin over z_(1) - z_(3), which does not change with the scale of the logits (Croce & Hein 2020, eq. 6).

    Raises:
        ValueError: for fewer than 3 classes.
    """
    _need_classes(logits, 3, "dlr_loss", "margin_loss")
    first, _, third = tf.unstack(tf.math.top_k(logits, 3).values, axis=-1)
    return tf.math.divide_no_nan(margin_loss(logits, labels), first - third)


@gin.register
@_of_classes(4)
def targeted_dlr_loss(logits, labels, targets):
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, eq. 7).

    Raises:
        ValueError: for fewer than 4 classes.
    """
    _need_classes(logits, 4, "targeted_dlr_loss", "targeted_margin_loss")
    first, _, third, fourth = tf.unstack(tf.math.top_k(logits, 4).values, axis=-1)
    return tf.math.divide_no_nan(targeted_margin_loss(logits, labels, targets), first - (third + fourth) / 2)


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


def _need_classes(logits, count, name, other):
    if logits.shape[-1] < count:
        raise ValueError(f"{name} needs {count} classes, the classifier has {logits.shape[-1]}: take @{other}.")
