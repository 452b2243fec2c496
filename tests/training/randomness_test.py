"""Noise and labels of generated images: balanced classes, truncated noise, the same on any number of replicas."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from robgan_tf.training.randomness import generator_inputs

SEED = tf.constant([3, 4])


@pytest.mark.parametrize("batch, classes", [(12, 4), (8, 3), (3, 10), (64, 10)])
def test_balanced_labels_have_each_class_equally_often_but_for_one(batch, classes):
    labels = [generator_inputs([3, seed], batch, 5, classes, balanced=True)[1].numpy() for seed in range(20)]
    counts = np.stack([np.bincount(one, minlength=classes) for one in labels])
    assert labels[0].dtype == np.int32 and counts.shape == (20, classes)
    assert set(counts.ravel()) == {batch // classes, -(-batch // classes)}
    # Shuffled: no two batches of 20 are the same where there are thousands of orders, and it is not the same classes
    # that have one more.
    assert len({tuple(one) for one in labels}) > 15
    assert batch % classes == 0 or len({tuple(row) for row in counts}) > 1


def test_balanced_labels_leave_the_noise_alone():
    noise, balanced = (generator_inputs(SEED, 8, 5, 3, balanced)[0] for balanced in (False, True))
    np.testing.assert_array_equal(noise, balanced)


def test_replicas_share_a_balanced_batch_with_truncated_noise(two_replicas):
    arguments = (5, 3, True, 0.5)
    draw = tf.function(lambda: two_replicas.run(lambda: generator_inputs(SEED, 4, *arguments)))
    parts = [np.concatenate(two_replicas.experimental_local_results(part)) for part in draw()]
    for found, expected in zip(parts, generator_inputs(SEED, 8, *arguments)):
        np.testing.assert_allclose(found, expected, atol=1e-7)  # rounding in a graph
    assert sorted(np.bincount(parts[1])) == [2, 3, 3]


@pytest.mark.parametrize("threshold", [0.02, 0.5, 2.0, 4.0])
def test_truncated_noise_is_that_of_the_truncated_normal_distribution(threshold):
    noise, labels = generator_inputs(SEED, 500, 20, 3, truncation=threshold)
    uniform = tf.random.stateless_uniform([500, 20], tf.random.experimental.stateless_split(SEED, 2)[0], -1, 1).numpy()
    expected = scipy.stats.truncnorm.ppf((uniform.astype(np.float64) + 1) / 2, -threshold, threshold)
    # Float32 rounding of the distribution function, 6e-8, divided by the density, 1.3e-4 at 4.
    np.testing.assert_allclose(noise, expected, rtol=1e-5, atol=1e-3 if threshold == 4 else 1e-5)
    assert np.abs(noise).max() <= threshold
    np.testing.assert_array_equal(labels, generator_inputs(SEED, 500, 20, 3)[1])
