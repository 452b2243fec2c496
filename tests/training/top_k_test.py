"""Top-k training: how many images, which ones, and what of them reaches the generator."""

import gin
import numpy as np
import pytest
import tensorflow as tf
from steps import BATCH, CLASSES

from robgan_tf.keras2 import keras
from robgan_tf.losses import projection
from robgan_tf.losses.cotraining import SplitAsCode, Weights
from robgan_tf.training.top_k import TopK

SCORES = [0.5, -2.0, 3.0, 0.25, -1.0, 7.0, 1.0, -3.0]


def chosen(top_k, epochs, scores=SCORES):
    return top_k.weights(tf.constant(scores), tf.constant(epochs, tf.float32)).numpy()


@pytest.mark.parametrize(
    "epochs, decay, least_share, k",
    [
        (0, 0.5, 0.25, 8),
        (0.9, 0.5, 0.25, 8),  # within an epoch it stays
        (1, 0.5, 0.25, 4),
        (2, 0.5, 0.25, 2),
        (3, 0.5, 0.25, 2),
        (1, 0.9, 0.25, 7),  # 7.2
        (1, 0.99, 0.5, 7),  # 7.92
        (300, 0.99, 0.3, 3),  # 2.4: at least
        (300, 1.0, 0.5, 8),
        (300, 0.5, 0.01, 1),
    ],
)
def test_k_falls_with_each_epoch_to_a_share_of_the_batch(epochs, decay, least_share, k):
    weights = chosen(TopK(decay, least_share), epochs)
    expected = np.zeros([8], np.float32)
    expected[np.argsort(SCORES)[::-1][:k]] = np.float32(8 / k)
    np.testing.assert_array_equal(weights, expected)


def test_of_equal_scores_no_more_than_k_are_taken():
    np.testing.assert_array_equal(chosen(TopK(0.5), 1, [1.0, 1.0, 1.0, 1.0]), [2, 2, 0, 0])


def test_it_is_the_best_of_the_global_batch_that_replicas_take(two_replicas):
    # The first replica has 3 of the best 4.
    parts = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(np.float32([9, 8, 7, 1, 6, 2, 3, 4]), 2)[context.replica_id_in_sync_group])
    )
    weigh = tf.function(lambda scores: two_replicas.run(lambda one: TopK(0.5).weights(one, 1.0), args=(scores,)))
    first, second = two_replicas.experimental_local_results(weigh(parts))
    np.testing.assert_array_equal(first, [2, 2, 2, 0])
    np.testing.assert_array_equal(second, [2, 0, 0, 0])


class Pictures(keras.Model):
    """A generator whose weights are its images: an update moves each by its own gradient."""

    latent_dim, num_classes = 6, CLASSES

    def __init__(self):
        super().__init__()
        start = np.random.default_rng(0).uniform(-1, 1, [BATCH, 8, 8, 3])
        self.images = tf.Variable(start, dtype=tf.float32)

    def call(self, inputs, training):
        self.asked = inputs[1]
        return tf.identity(self.images)


@pytest.mark.parametrize("of_class", [False, True], ids=["split", "projection"])
def test_gradients_are_those_of_the_mean_over_the_best_and_none_reach_the_others(cotraining, of_class):
    losses = projection(Weights()) if of_class else None
    stage = cotraining(top_k=TopK(0.5, 0.25), losses=losses)
    stage.generator = generator = Pictures()
    stage.generator_optimizer = keras.optimizers.SGD(1.0)
    stage.step.assign(5)  # an epoch is 80 images, a step 16
    before = generator.images.numpy()
    stage.update_generator(tf.constant([4, 2]))

    with tf.GradientTape() as tape:
        images = tf.constant(before)
        tape.watch(images)
        verdict = stage.discriminator(images, training=False)
        if of_class:
            scores = verdict.source + tf.gather(verdict.classes, generator.asked, batch_dims=1)
            per_image = -scores
        else:
            scores, weights = verdict.source, SplitAsCode()
            classes = keras.losses.sparse_categorical_crossentropy(generator.asked, verdict.classes, from_logits=True)
            per_image = weights.generator * tf.nn.softplus(-scores) + weights.generator_class * classes
        total = tf.reduce_sum(per_image)
    gradients = tape.gradient(total, images).numpy()
    best = np.isin(np.arange(BATCH), np.argsort(scores.numpy())[-4:])
    moved = before - generator.images.numpy()
    np.testing.assert_array_equal(moved[~best], 0.0)
    assert np.all(np.any(moved[best] != 0, axis=(1, 2, 3)))
    # Float32 rounding of images of size 1.
    np.testing.assert_allclose(moved[best], gradients[best] / 4, atol=3e-7)


def test_gin_binds_it():
    gin.parse_config("top_k.decay = 0.9\ntop_k.least_share = 0.75")
    assert TopK() == TopK(0.9, 0.75)
