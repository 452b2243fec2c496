import os
import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf
from in_numpy import convolved, silu, standardized

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.players.classifiers.preact_resnet import PreActBlock, PreActResNet18


def test_it_has_the_parameters_of_pytorch_cifar():
    """Of each block with widths i, o: 2 i + 2 o of BN, 9 i o + 9 o o of convolutions, i o of a shortcut."""
    network = PreActResNet18(10, (32, 32, 3))
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_variables)
    blocks = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    of_blocks = sum(2 * i + 2 * o + 9 * i * o + 9 * o * o + (i * o if i != o else 0) for i, o in blocks)
    assert trainable == 9 * 3 * 64 + of_blocks + 512 * 10 + 10 == 11_171_146
    # Mean and variance of each BN's channels.
    running = sum(int(np.prod(weight.shape)) for weight in network.non_trainable_variables)
    assert running == 2 * sum(i + o for i, o in blocks)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_it_takes_images_of_every_size_of_the_data(size):
    network = PreActResNet18(7, (size, size, 3), base_width=2)
    assert network(tf.zeros([2, size, size, 3])).shape == (2, 7)
    assert network.image_shape == (size, size, 3) and network.num_classes == 7


def test_odd_sides_are_rounded_up_where_they_are_halved():
    network = PreActResNet18(3, (21, 18, 3), base_width=2)
    assert network.feature_maps(tf.zeros([2, 21, 18, 3]), training=False).shape == (2, 3, 3, 16)


def test_larger_images_begin_with_the_stem_of_imagenet_or_as_gin_says():
    images = tf.random.uniform([1, 160, 160, 3], -1, 1)
    network = PreActResNet18(3, (160, 160, 3), base_width=2)
    assert network.stem == "imagenet" and network.conv.kernel.shape == (7, 7, 3, 2)
    assert network.feature_maps(images, training=False).shape == (1, 5, 5, 16)  # 80, 40, and three halvings
    gin.parse_config("PreActResNet18.stem = 'small'")
    other = PreActResNet18(3, (160, 160, 3), base_width=2)
    assert other.conv.kernel.shape == (3, 3, 3, 2) and other.another().stem == "small"
    assert other.feature_maps(images, training=False).shape == (1, 20, 20, 16)
    gin.clear_config()
    assert PreActResNet18(3, (128, 128, 3), base_width=2).stem == "small"


@pytest.mark.parametrize("filters, downsample", [(4, False), (6, False), (6, True)])
@pytest.mark.parametrize("recompute", [False, True])
def test_block_against_numpy(filters, downsample, recompute):
    block = PreActBlock(filters, downsample, "silu", recompute, name="block")
    images = np.random.default_rng(0).normal(size=[3, 7, 8, 4]).astype(np.float32)
    block.build(images.shape)
    for norm, channels in ((block.norm_1, 4), (block.norm_2, filters)):
        norm.gamma.assign(np.linspace(0.5, 2, channels))
        norm.beta.assign(np.linspace(-1, 1, channels))
    found = block(images, training=True)
    stride = 2 if downsample else 1
    active = silu(standardized(images, block.norm_1))
    first = convolved(active, block.conv_1.kernel, stride)
    hidden = convolved(silu(standardized(first, block.norm_2)), block.conv_2.kernel)
    shortcut = images if filters == 4 else convolved(active, block.conv_shortcut.kernel, stride)
    # 1e-5: float32 against float64.
    np.testing.assert_allclose(found, hidden + shortcut, atol=1e-5 * np.abs(hidden).max())
    np.testing.assert_allclose(block.norm_2.moving_mean, 0.1 * first.mean((0, 1, 2)), atol=1e-6)


def test_recomputed_blocks_have_the_same_gradients_and_averages():
    images = tf.random.uniform([4, 8, 8, 3], -1, 1)
    plain, frugal = (PreActResNet18(3, (8, 8, 3), 2, "silu", recompute=switch) for switch in (False, True))
    frugal.set_weights(plain.get_weights())
    results = []
    for network in (plain, frugal):
        for training in (True, False):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.reduce_sum(network(images, training=training)[:, 0] ** 2)
            results.append([loss, *tape.gradient(loss, [images, *network.trainable_variables])])
    for of_plain, of_frugal in zip(results[:2], results[2:]):
        for one, other in zip(of_plain, of_frugal):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(plain.non_trainable_variables, frugal.non_trainable_variables):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_it_is_another_network_with_the_same_arguments_and_an_equal_copy():
    gin.parse_config("PreActResNet18.base_width = 4")
    network, images = PreActResNet18(3, (8, 8, 1)), tf.random.uniform([4, 8, 8, 1], -1, 1)
    network(images, training=True)  # moves the running averages
    gin.clear_config()
    other, copy = network.another(), network.inference_copy()
    assert [weight.shape for weight in other.weights] == [weight.shape for weight in network.weights]
    assert np.abs(other(images) - network(images)).max() > 0
    np.testing.assert_array_equal(copy(images), network(images))


def test_batch_norm_works_on_the_batch_in_training_and_leaves_no_trace_in_inference():
    network, images = PreActResNet18(3, (8, 8, 3), base_width=4), tf.random.uniform([4, 8, 8, 3], -1, 1)
    norms = [module for module in network.submodules if isinstance(module, BatchNorm)]
    assert len(norms) == 16 and {norm.epsilon for norm in norms} == {1e-5}
    before = [norm.moving_mean.numpy() for norm in norms]
    alone = network(images[:1])
    np.testing.assert_allclose(network(images)[:1], alone, atol=1e-5)  # of its own, whatever is beside it
    assert all(np.array_equal(norm.moving_mean, old) for norm, old in zip(norms, before))
    network(images, training=True)
    assert not any(np.array_equal(norm.moving_mean, old) for norm, old in zip(norms, before))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_logits_and_variables_are_float32_under_mixed_precision(precision):
    keras.mixed_precision.set_global_policy(precision)
    network = PreActResNet18(3, (8, 8, 3), base_width=4)
    assert network(tf.zeros([2, 8, 8, 3]), training=True).dtype == tf.float32
    assert {weight.dtype for weight in network.weights} == {tf.float32}
    assert network.conv(tf.zeros([2, 8, 8, 3])).dtype == precision.removeprefix("mixed_")


def test_gradients_leave_the_memory_of_others_alone():
    # TensorFlow's gradient of a 1x1 convolution with a stride does not: glibc then ends the process, sooner or later.
    program = """
import tensorflow as tf
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18

classifier, images = PreActResNet18(10, (16, 16, 1), base_width=8), tf.zeros([1, 16, 16, 1])
for _ in range(30):
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(classifier(images))
    tape.gradient(total, [images, *classifier.trainable_variables])
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "MALLOC_CHECK_": "3"}, check=True)
