import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import EPSILON, BatchNorm, ConditionalBatchNorm

CLASSES, CHANNELS = 3, 2
GAMMA = np.array([[1, 2], [3, 4], [-5, 6]], np.float32)
BETA = np.array([[0, 1], [2, 3], [4, -5]], np.float32)
LABELS = np.array([2, 0, 2, 1])


def make():
    layer = ConditionalBatchNorm(CLASSES)
    layer.build(tf.TensorShape([None, 4, 4, CHANNELS]))
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)
    return layer


def random_images():
    return np.random.default_rng(0).normal([3, -1], [2, 0.5], size=[4, 4, 4, CHANNELS]).astype(np.float32)


def by_hand(images, labels, mean, variance):
    """gamma_y (x - mean) / sqrt(variance + epsilon) + beta_y, with gamma and beta of the label y of each image."""
    normalized = (images.astype(np.float64) - mean) / np.sqrt(variance + EPSILON)
    return normalized * GAMMA[labels][:, None, None] + BETA[labels][:, None, None]


def test_in_training_it_uses_the_statistics_of_the_batch_and_the_affine_map_of_each_class():
    images = random_images().astype(np.float64)
    expected = by_hand(images, LABELS, images.mean((0, 1, 2)), images.var((0, 1, 2)))
    # float32, with variances from mean squares of order 10: 10 * 2**-24 * 6 (the largest gamma)
    np.testing.assert_allclose(make()(random_images(), LABELS, training=True), expected, atol=2e-5)


def test_in_inference_it_uses_the_running_averages_and_moves_nothing():
    layer = make()
    mean, variance = np.array([1, 2], np.float32), np.array([4, 9], np.float32)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    found = layer(random_images(), LABELS)  # inference is the default
    np.testing.assert_allclose(found, by_hand(random_images(), LABELS, mean, variance), atol=1e-5)  # float32
    np.testing.assert_array_equal(layer.moving_mean, mean)
    np.testing.assert_array_equal(layer.moving_variance, variance)


def test_gamma_starts_at_one_and_beta_at_zero_for_each_class():
    layer = ConditionalBatchNorm(5)
    layer(np.zeros([1, 2, 2, 7], np.float32), np.array([0]))
    np.testing.assert_array_equal(layer.gamma, np.ones([5, 7]))
    np.testing.assert_array_equal(layer.beta, np.zeros([5, 7]))
    assert len(layer.trainable_variables) == 2


def test_running_averages_keep_nine_tenths_of_the_old_value():
    layer = make()
    layer.moving_mean.assign([10, 20])
    layer.moving_variance.assign([30, 40])
    images = random_images().astype(np.float64)
    layer(random_images(), LABELS, training=True)
    mean, variance = images.mean((0, 1, 2)), images.var((0, 1, 2))
    # float32, numbers up to 40
    np.testing.assert_allclose(layer.moving_mean, 0.9 * np.array([10, 20]) + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 * np.array([30, 40]) + 0.1 * variance, rtol=1e-6)


def test_only_the_classes_of_the_batch_get_a_gradient():
    layer = make()
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(layer(random_images(), np.array([0, 0, 2, 2]), training=True) ** 2)
    for gradient in tape.gradient(output, [layer.gamma, layer.beta]):
        moved = np.abs(tf.convert_to_tensor(gradient).numpy()).max(axis=1) > 0
        np.testing.assert_array_equal(moved, [True, False, True])


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_those_of_the_global_batch_of_two_replicas(two_replicas, training):
    # Small whole numbers, and a power of two of them: sums and means are exact, whatever their order.
    images = np.random.default_rng(0).integers(-4, 5, [8, 2, 2, CHANNELS]).astype(np.float32)
    images[4:] += 3  # the replicas' own statistics differ
    labels = np.array([2, 0, 2, 1, 1, 1, 0, 2])
    single = make()
    with two_replicas.scope():
        mirrored = make()

    @tf.function
    def step(images, labels):
        return two_replicas.run(lambda *batch: mirrored(*batch, training=training), (images, labels))

    def share(array):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(array, 2)[context.replica_id_in_sync_group])
        )

    for _ in range(2):  # twice: the running averages too go into the next step
        outputs = two_replicas.experimental_local_results(step(share(images), share(labels)))
        expected = tf.function(single)(images, labels, training=training)
    # The same numbers by other kernels: some roundings of values up to 20.
    np.testing.assert_allclose(np.concatenate(outputs), expected, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        for value in two_replicas.experimental_local_results(getattr(mirrored, name)):
            np.testing.assert_allclose(value, getattr(single, name), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_statistics_and_weights_stay_float32(policy):
    keras.mixed_precision.set_global_policy(policy)
    layer = make()
    assert layer(random_images(), LABELS, training=True).dtype == keras.mixed_precision.global_policy().compute_dtype
    assert {variable.dtype for variable in layer.variables} == {tf.float32}


def test_the_unconditional_norm_has_one_affine_map():
    layer = BatchNorm()
    layer.build([None, 4, 4, 3])
    assert [tuple(variable.shape) for variable in layer.trainable_variables] == [(3,), (3,)]
    layer.gamma.assign([1, 2, 3])
    layer.beta.assign([4, 5, 6])
    images = np.random.default_rng(0).normal(size=[4, 2, 2, 3])
    expected = (images - images.mean((0, 1, 2))) / np.sqrt(images.var((0, 1, 2)) + EPSILON) * [1, 2, 3] + [4, 5, 6]
    np.testing.assert_allclose(layer(images.astype(np.float32), training=True), expected, atol=2e-5)  # float32


def test_it_equals_keras_batch_norm():
    images = random_images()
    ours, theirs = BatchNorm(), keras.layers.BatchNormalization(epsilon=EPSILON)
    np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), atol=2e-5)  # float32


def test_a_channel_that_hardly_varies_around_a_large_mean_stays_finite():
    images = 10 + 1e-3 * np.random.default_rng(0).normal(size=[8, 4, 4, CHANNELS]).astype(np.float32)
    variance = images.astype(np.float64).var((0, 1, 2))
    expected = (images - images.astype(np.float64).mean((0, 1, 2))) / np.sqrt(variance + EPSILON)
    # The rounding of a mean of 10, 6e-7, over the square root of epsilon.
    np.testing.assert_allclose(BatchNorm()(images, training=True), expected, atol=1e-3)


def test_second_derivatives_in_training_are_those_of_the_formula():
    layer, images = BatchNorm(epsilon=1e-5), tf.constant(random_images())
    layer.build(images.shape)
    weights = tf.constant(np.random.default_rng(1).normal(size=images.shape), tf.float32)

    def formula(images):
        mean = tf.reduce_mean(images, axis=[0, 1, 2])
        variance = tf.reduce_mean((images - mean) ** 2, axis=[0, 1, 2])
        return (images - mean) * tf.math.rsqrt(variance + 1e-5)

    def second(normalize):
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as tape:
                tape.watch(images)
                total = tf.reduce_sum(tf.sin(normalize(images)) * weights)
            norm = tf.norm(tape.gradient(total, images))
        return norm, outer.gradient(norm, images)

    for found, expected in zip(second(lambda images: layer(images, training=True)), second(formula)):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)  # float32, twice
