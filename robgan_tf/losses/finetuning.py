"""The losses of a classifier in fine-tuning, pure functions: eq. 6 and 10, and those that other papers add."""

from __future__ import annotations

import tensorflow as tf

from robgan_tf.losses.terms import class_loss


def fine_tuning_loss(per_image, real: int, fake_weight: float):
    """Equation 10 (and 6): the sum over real images, plus lambda times that over generated ones (a scalar).

    A sum and not a value per image, since real and generated images may differ in number; the caller divides by the
    batch size: that of the real images, or with a share of generated ones of all.

    Args:
        per_image: loss of each image, [real + generated].
        real: number of real images, which come first.
        fake_weight: lambda, 0.3 to 0.8 in the authors' code.
    """
    return tf.reduce_sum(per_image[:real]) + fake_weight * tf.reduce_sum(per_image[real:])


def smoothed(labels, num_classes: int, smoothing: float):
    """(1 - s) p + s / K, the probabilities of the classes [B, K] (label smoothing, Szegedy et al., CVPR 2016).

    Args:
        labels: integer labels [B], or probabilities p of the classes [B, K].
        num_classes: K.
        smoothing: s in [0, 1).
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_integer:
        labels = tf.one_hot(labels, num_classes)
    return (1.0 - smoothing) * labels + smoothing / num_classes


def divergence(logits, other_logits):
    """KL(softmax(logits) || softmax(other_logits)) of each image, [B], from logits [B, K] (TRADES, MART)."""
    logs, other_logs = tf.nn.log_softmax(logits), tf.nn.log_softmax(other_logits)
    return tf.reduce_sum(tf.exp(logs) * (logs - other_logs), axis=-1)


def misclassification_loss(clean, attacked, labels, beta: float):
    """MART's loss of each image, [B] (Wang et al., ICLR 2020, eq. 8 to 11).

    -log p_y(x') - log(1 - max_{k != y} p_k(x')) + beta KL(p(x) || p(x')) (1 - p_y(x))

    The first two terms, the paper's BCE, ask for a margin; the third weighs an image by how wrong its clean answer is.
    The logarithms are taken of sums of exponentials, so that they are finite where the authors' code adds 1e-12.

    Args:
        clean: logits of the images, [B, K] with K > 1.
        attacked: logits of the attacked images, [B, K].
        labels: integer labels, [B].
        beta: weight of the third term (lambda in the paper).
    """
    classes = tf.one_hot(labels, tf.shape(attacked)[-1], on_value=True, off_value=False)
    logs = tf.nn.log_softmax(attacked)
    right = tf.reduce_sum(tf.where(classes, logs, 0.0), axis=-1)
    likeliest = tf.argmax(tf.where(classes, attacked.dtype.min, attacked), axis=-1)
    others = tf.one_hot(likeliest, tf.shape(attacked)[-1], on_value=True, off_value=False)
    not_likeliest = tf.reduce_logsumexp(tf.where(others, attacked.dtype.min, logs), axis=-1)
    wrong = -tf.math.expm1(-class_loss(clean, labels))
    return -right - not_likeliest + beta * divergence(clean, attacked) * wrong
