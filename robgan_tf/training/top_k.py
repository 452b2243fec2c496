"""Top-k training of the generator, which learns from the best of its images: `CoTraining.top_k = @top_k()`."""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from robgan_tf.training.randomness import shares_of_replicas
from robgan_tf.values import checked, number


@gin.configurable("top_k")
@checked("top_k", decay=number(above=0, most=1), least_share=number(above=0, most=1))
@dataclasses.dataclass(frozen=True)
class TopK:
    """The generator's loss is the mean over the k images that the discriminator finds most real.

    Sinha et al., NeurIPS 2020. Of a batch of B images k is B in the first epoch, falls by a factor with each epoch of
    real images, and stays at a share of B. Where a discriminator is sure that an image is generated, its gradient may
    lead away from the real ones.

    Attributes:
        decay: the factor (gamma).
        least_share: the share of the batch that k stays at (nu).
    """

    decay: float = 0.99
    least_share: float = 0.5

    def weights(self, scores: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
        """Returns the weight of each image's loss, float32 [b]: B / k for the k best of the global batch, else 0.

        Of equal scores the first counts as higher.

        Args:
            scores: logits [b] of "real" of this replica's generated images.
            epochs: epochs done, a float32 scalar; need not be whole.
        """
        context, batch = tf.distribute.get_replica_context(), scores.shape[0]
        if context.num_replicas_in_sync > 1:
            scores = context.all_gather(scores, axis=0)

        def of_global_batch(total):
            decayed = tf.floor(total * tf.pow(self.decay, tf.floor(epochs)))
            k = tf.maximum(decayed, float(math.ceil(self.least_share * total)))
            best_first = tf.argsort(scores, direction="DESCENDING", stable=True)
            weights = tf.where(tf.range(total, dtype=tf.float32) < k, total / k, 0.0)
            return [tf.scatter_nd(best_first[:, tf.newaxis], weights, [total])]

        return shares_of_replicas(of_global_batch, batch)[0]
