"""The local Lipschitz value (LLV): how steep the loss of a classifier is around an image."""

from __future__ import annotations

from typing import Callable

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.gradients import magnified


class LocalLipschitz:
    """Gives the LLV of images: the l2 norm of the gradient of an image's cross-entropy in its pixels (eq. 4, Fig. 2).

    The paper compares it on training and on test images: adversarial training keeps it low on the former alone. The
    graph is traced once, for any number of images.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K], in inference mode, so that the
            logits of an image do not depend on the rest of its batch.
        image_shape: (H, W, C).
        batch_size: images at once.
    """

    def __init__(self, logits: Callable[[tf.Tensor], tf.Tensor], image_shape: tuple[int, int, int], batch_size: int):
        self.batch_size = batch_size

        # Any number of images, so that the last batch may be smaller.
        @tf.function(
            autograph=False,
            input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8), tf.TensorSpec([None], tf.int32)],
        )
        def norms(pixels, labels):
            images = to_pixel_range(pixels)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                losses, factors = magnified(class_loss(logits(images), labels))
                total = tf.reduce_sum(losses)
            gradient = tape.gradient(total, images)
            if gradient is None:
                raise ValueError("The local Lipschitz value needs a gradient, and none reaches the images.")
            return tf.sqrt(tf.reduce_sum(gradient**2, axis=[1, 2, 3])) / factors

        self._norms = norms

    def __call__(self, examples: Examples) -> np.ndarray:
        """Returns the LLV of each image.

        Args:
            examples: N clean images and their labels.

        Returns:
            float32 [N], in nats per unit of the pixel scale [-1, 1], in the order of `examples`.

        Raises:
            ValueError: where no gradient reaches the images.
        """
        values = [np.zeros([0], np.float32)]
        for first in range(0, len(examples), self.batch_size):
            rows = slice(first, first + self.batch_size)
            values.append(self._norms(examples.images[rows], examples.labels[rows]).numpy())
        return np.concatenate(values)
