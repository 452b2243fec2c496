import gin
import numpy as np
import pytest
import tensorflow as tf
from in_numpy import convolved, silu, standardized

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.players.classifiers.wide_resnet import WideResNet


def parameters(depth, width, classes, channels=3, first=9):
    """Of each block with widths i, o: 2 i + 2 o of BN, 9 i o + 9 o o of convolutions, i o of a shortcut.

    A shortcut has a convolution where the width changes or the image is halved: in the first block of each group, but
    for that of the first one where its width is that of the first convolution, 16 (a factor of 1).
    """
    count, i = first * channels * 16, 16
    for group in range(3):
        for block in range((depth - 4) // 6):
            o = 16 * width * 2**group
            count += 2 * i + 2 * o + 9 * i * o + 9 * o * o + (i * o if i != o or (group and not block) else 0)
            i = o
    return count + 2 * i + i * classes + classes  # the last BN and the linear layer


def size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    "depth, width, count, published", [(28, 10, 36479194, 36.5), (34, 10, 46160474, 46.2), (70, 16, 266796506, 266.8)]
)
def test_the_count_by_hand_is_the_published_one(depth, width, count, published):
    # Zagoruyko & Komodakis, table 4, for WRN-28-10; Gowal et al. 2020 and RobustBench for the others. In millions.
    assert parameters(depth, width, 10) == count and round(count / 1e6, 1) == published


@pytest.mark.parametrize("depth, width, channels", [(10, 1, 3), (16, 2, 1), (22, 1, 3)])
def test_the_network_has_the_parameters_counted_by_hand(depth, width, channels):
    network = WideResNet(7, (8, 8, channels), depth, width, "silu")
    assert size(network.trainable_variables) == parameters(depth, width, 7, channels)


@pytest.mark.slow
@pytest.mark.parametrize("depth, width", [(28, 10), (34, 10), (70, 16)])
def test_the_fields_networks_have_the_parameters_counted_by_hand(depth, width):
    with tf.Graph().as_default():  # shapes alone, no GB of weights
        assert size(WideResNet(10, (32, 32, 3), depth, width).trainable_variables) == parameters(depth, width, 10)


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_network_against_numpy(activation):
    network = WideResNet(3, (7, 8, 3), 10, 2, activation)
    images = np.random.default_rng(0).uniform(-1, 1, [2, 7, 8, 3]).astype(np.float32)
    network(tf.random.uniform([8, 7, 8, 3], -1, 1), training=True)  # moves the running averages
    function = {"silu": silu, "relu": lambda x: np.maximum(x, 0)}[activation]

    def normalized(images, norm):
        return function(standardized(images, norm, (norm.moving_mean.numpy(), norm.moving_variance.numpy())))

    hidden = convolved(images, network.conv.kernel)
    for index, block in enumerate(network.blocks):
        stride = 2 if index else 1
        active = normalized(hidden, block.norm_1)
        inner = normalized(convolved(active, block.conv_1.kernel, stride), block.norm_2)
        hidden = convolved(inner, block.conv_2.kernel) + convolved(active, block.conv_shortcut.kernel, stride)
    features = normalized(hidden, network.norm).mean((1, 2))
    logits = features @ network.dense.kernel.numpy() + network.dense.bias.numpy()
    np.testing.assert_allclose(network(images), logits, atol=1e-5 * np.abs(logits).max())
    np.testing.assert_allclose(network.features_and_logits(images)[0], features, atol=1e-5 * features.max())


@pytest.mark.parametrize(
    "side, stem, left", [(16, "small", 4), (32, "small", 8), (49, "small", 13), (160, "imagenet", 10)]
)
def test_it_takes_images_of_every_size(side, stem, left):
    network = WideResNet(3, (side, side, 3), 10, 1)
    assert network.stem == stem
    assert network.feature_maps(tf.zeros([1, side, side, 3]), training=False).shape == (1, left, left, 64)


def test_a_depth_in_between_is_refused_with_those_beside_it():
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 4, got 30: use 28 or 34"):
        WideResNet(3, (8, 8, 3), 30, 1)


def test_it_is_another_network_with_the_same_arguments_and_an_equal_copy():
    gin.parse_config("WideResNet.depth = 10\nWideResNet.width = 1\nWideResNet.activation = 'silu'")
    network, images = WideResNet(3, (8, 8, 1)), tf.random.uniform([4, 8, 8, 1], -1, 1)
    network(images, training=True)
    gin.clear_config()
    np.testing.assert_array_equal(network.inference_copy()(images), network(images))
    assert np.abs(network.another()(images) - network(images)).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_two_replicas_see_the_statistics_and_gradients_of_the_whole_batch(two_replicas, recompute):
    images = np.random.default_rng(0).uniform(-1, 1, [4, 8, 8, 3]).astype(np.float32)

    def gradients(network, images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True)[:, 0] ** 2)
        return tape.gradient(loss, network.trainable_variables)

    alone = WideResNet(3, (8, 8, 3), 10, 1, "silu")
    with two_replicas.scope():
        shared = WideResNet(3, (8, 8, 3), 10, 1, "silu", recompute=recompute)
        shared.set_weights(alone.get_weights())

        def share():
            rank = tf.distribute.get_replica_context().replica_id_in_sync_group
            return gradients(shared, tf.constant(images)[2 * rank : 2 * rank + 2])

        found = tf.function(lambda: two_replicas.run(share))()
        found = [two_replicas.reduce("SUM", gradient, axis=None) for gradient in found]
    for one, two in zip(gradients(alone, images), found):
        np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(one).max())
    for one, two in zip(alone.weights, shared.weights):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert len([module for module in alone.submodules if isinstance(module, BatchNorm)]) == 7


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_logits_and_variables_are_float32_under_mixed_precision(precision):
    keras.mixed_precision.set_global_policy(precision)
    network = WideResNet(3, (8, 8, 3), 10, 1, "silu", recompute=True)
    with tf.GradientTape() as tape:
        logits = network(tf.zeros([2, 8, 8, 3]), training=True)
        loss = tf.reduce_sum(logits)
    gradients = tape.gradient(loss, network.trainable_variables)
    assert logits.dtype == tf.float32 and {weight.dtype for weight in network.weights} == {tf.float32}
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    assert network.blocks[0](network.conv(tf.zeros([2, 8, 8, 3]))).dtype == precision.removeprefix("mixed_")
