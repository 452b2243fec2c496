import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.convolution import (
    Conv2D,
    convolve,
    convolve_and_downsample,
    convolve_image,
    convolve_to_image,
    convolve_with_stride_2,
    downsample,
    pick_and_convolve,
    upsample,
    upsample_and_convolve,
)


def random_images(channels, side=4):
    return np.random.default_rng(0).normal(size=[2, side, side, channels]).astype(np.float32)


def pool(images):
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4


def double(images):
    return images.repeat(2, axis=1).repeat(2, axis=2)


# ---- resampling


def test_upsample_repeats_each_pixel():
    images = random_images(3)
    np.testing.assert_array_equal(upsample(tf.constant(images)), double(images))


def test_upsample_of_images_that_are_not_square_or_of_unknown_number():
    images = np.arange(12, dtype=np.float32).reshape([1, 2, 3, 2])
    traced = tf.function(upsample, input_signature=[tf.TensorSpec([None, 2, 3, 2])])
    np.testing.assert_array_equal(traced(images), double(images))
    assert traced.get_concrete_function().structured_outputs.shape.as_list() == [None, 4, 6, 2]


def test_downsample_averages_four_pixels():
    images = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape([2, 4, 6, 3])  # whole numbers: exact
    np.testing.assert_array_equal(downsample(tf.constant(images)), pool(images))


def test_downsample_undoes_upsample():
    images = np.random.default_rng(0).integers(-9, 9, [2, 4, 4, 3]).astype(np.float32)
    np.testing.assert_array_equal(downsample(upsample(tf.constant(images))), images)


# ---- both in one. Whole numbers, so that sums are exact in any order: the results are equal to the bit.

TOGETHER = {
    "down": (convolve_and_downsample, lambda images, kernel: downsample(convolve(images, kernel))),
    "up": (upsample_and_convolve, lambda images, kernel: convolve(upsample(images), kernel)),
}


@pytest.mark.parametrize("together, apart", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 2, 6, 5), (3, 8, 2, 1)])
def test_both_in_one_are_one_after_the_other_and_so_are_their_gradients(together, apart, shape):
    numbers = np.random.default_rng(1)
    images = tf.constant(numbers.integers(-9, 9, shape), tf.float32)
    kernel = tf.constant(4 * numbers.integers(-9, 9, [3, 3, shape[-1], 7]), tf.float32)  # a mean of four is whole

    def values(function):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            output = function(images, kernel)
        # Other weights for each pixel of the output, so that none can take another's place.
        weights = tf.reshape(4 * tf.range(tf.size(output), dtype=tf.float32) % 11, output.shape)
        return [output, *tape.gradient(output, [images, kernel], weights)]

    for found, expected in zip(values(together), values(apart)):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("together", [function for function, _ in TOGETHER.values()], ids=TOGETHER)
def test_kernels_are_added_up_in_float32_and_the_number_of_images_may_be_unknown(together):
    kernel = tf.constant(np.random.default_rng(0).normal(size=[3, 3, 2, 5]), tf.float32)
    traced = tf.function(together).get_concrete_function(tf.TensorSpec([None, 4, 4, 2], tf.bfloat16), kernel)
    assert traced.output_dtypes == tf.bfloat16
    assert traced.output_shapes[0] is None and traced.output_shapes[-1] == 5
    additions = [node for node in traced.graph.get_operations() if node.type == "AddV2"]
    assert additions and all(node.outputs[0].dtype == tf.float32 for node in additions)


@pytest.mark.parametrize("fewer", [convolve_to_image, convolve_image])
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 2, 6, 5), (3, 8, 2, 1)])
def test_convolutions_for_few_channels_are_the_plain_one_and_so_are_their_gradients(fewer, shape):
    numbers = np.random.default_rng(1)
    images = tf.constant(numbers.integers(-9, 9, shape), tf.float32)
    kernel = tf.constant(numbers.integers(-9, 9, [3, 3, shape[-1], 3]), tf.float32)

    def values(function):
        with tf.GradientTape() as second, tf.GradientTape() as tape:
            for one in (second, tape):
                one.watch([images, kernel])
            output = function(images, kernel)
            weights = tf.reshape(tf.range(tf.size(output), dtype=tf.float32) % 11, output.shape)
            gradients = tape.gradient(output * tf.stop_gradient(output), [images, kernel], weights)
        # Of the second order too: a penalty on gradients (eq. 4) needs them.
        return [output, *gradients, *second.gradient(gradients[0], [images, kernel])]

    for found, expected in zip(values(fewer), values(convolve)):
        np.testing.assert_array_equal(found, expected)


# ---- the layer


def test_layer_without_resampling_is_keras_own():
    layer, keras_layer = Conv2D(7, 3), keras.layers.Conv2D(7, 3, padding="same")
    images = random_images(5)
    keras_layer(images)
    layer(images)
    weights = [weight + 1 for weight in keras_layer.get_weights()]
    layer.set_weights(weights)
    keras_layer.set_weights(weights)
    np.testing.assert_allclose(layer(images), keras_layer(images), atol=1e-4)  # float32, values up to 100


def test_layer_computes_in_the_policys_type_with_float32_variables():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    layer = Conv2D(7, 3)
    assert layer(random_images(5)).dtype == tf.bfloat16
    assert {variable.dtype for variable in layer.variables} == {tf.float32}


@pytest.mark.parametrize(("size", "form"), [(1, pick_and_convolve), (3, convolve_with_stride_2)])
def test_stride_2_gives_every_other_row_and_column_from_the_first(size, form):
    images, kernel = tf.random.normal([2, 8, 6, 3], seed=1), tf.random.normal([size, size, 3, 4], seed=2)
    found = form(images, kernel)
    np.testing.assert_allclose(found, convolve(images, kernel)[:, ::2, ::2], atol=1e-5)


def test_layer_without_bias_is_the_convolution_alone():
    layer, images = Conv2D(4, 3, use_bias=False), tf.random.normal([2, 8, 8, 3], seed=1)
    np.testing.assert_array_equal(layer(images), convolve(images, layer.kernel))
    assert len(layer.weights) == 1
