"""Terms of the losses, which configurations bind by reference: each the loss of every image, float32 [B]."""

from __future__ import annotations

import gin
import tensorflow as tf


@gin.register
def logistic(logits, real: bool):
    """-log P(S = real | x) or -log P(S = fake | x) of each image, from the logits [B] of "real" (eq. 1)."""
    return tf.nn.softplus(-logits if real else logits)


@gin.register
def hinge(logits, real: bool):
    """max(0, 1 - s) of each real image, max(0, 1 + s) of each generated one, from the logits s [B] of "real".

    Lim & Ye 2017; Miyato et al., ICLR 2018, eq. 16. It leaves images alone that are on their side by 1 or more: an
    attack that maximises it gets no gradient from these.
    """
    return tf.nn.relu(1.0 - logits if real else 1.0 + logits)


@gin.register
def wasserstein(logits, real: bool):
    """-s of each real image, s of each generated one, from the logits s [B] (Arjovsky et al., ICML 2017, eq. 2).

    It has no lower bound: it needs a discriminator with a Lipschitz bound, by spectral normalisation or `@wgan_gp()`.
    """
    return -logits if real else logits


@gin.register
def non_saturating(logits):
    """The generator's -log P(S = real | fake) of each image, from the logits [B] of "real" (Goodfellow et al. 2014)."""
    return logistic(logits, real=True)


@gin.register
def hinge_generator(logits):
    """-s of each image, from the logits s [B]: the generator's beside the hinge loss (Miyato et al. 2018, eq. 17)."""
    return -logits


@gin.register
def class_loss(logits, labels):
    """-log P(C = label | x) of each image, from class logits [B, K] and labels: integers [B].

    Or probabilities of the classes, float [B, K]: then it is the mean over them.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_floating:
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
