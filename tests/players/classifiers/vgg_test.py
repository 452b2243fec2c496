import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.vgg import VGG16


def test_it_has_the_parameters_of_pytorch_cifar():
    network = VGG16(10, (32, 32, 3))
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_variables)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    # A kernel, a bias, gamma and beta for each layer.
    layers = sum(9 * i * o + 3 * o for i, o in zip(widths, widths[1:]))
    assert trainable == layers + 512 * 10 + 10 == 14_728_266
    running = sum(int(np.prod(weight.shape)) for weight in network.non_trainable_variables)
    assert running == 2 * sum(widths[1:])


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_it_takes_images_of_every_size_of_the_data(size):
    assert VGG16(7, (size, size, 3), base_width=2)(tf.zeros([2, size, size, 3])).shape == (2, 7)


@pytest.mark.parametrize("size", [(24, 24), (32, 16)])
def test_sides_that_can_not_be_halved_are_refused(size):
    with pytest.raises(ValueError, match="halves the image five times"):
        VGG16(3, (*size, 3), base_width=2)


def test_a_copy_answers_alike():
    network, images = VGG16(3, (16, 16, 3), base_width=2), tf.random.uniform([4, 16, 16, 3], -1, 1)
    network(images, training=True)
    np.testing.assert_array_equal(network.inference_copy()(images), network(images))


def test_logits_and_variables_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network = VGG16(3, (16, 16, 3), base_width=2)
    assert network(tf.zeros([2, 16, 16, 3]), training=True).dtype == tf.float32
    assert {weight.dtype for weight in network.weights} == {tf.float32}
