import math

import gin
import numpy as np
import pytest
import tensorflow as tf
from in_numpy import convolved

from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.convnext import ConvNeXt, ConvNeXtBlock

SMALL = dict(depths=(1, 2), widths=(4, 6))


def parameters(stem, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), classes=1000):
    """Counted by hand.

    stem       patches: 4 * 4 * 3 w + w, LN 2 w; conv: 9 * 3 w/2 + w/2, LN w, 9 w/2 w + w, LN 2 w
    block      depthwise 49 w + w, LN 2 w, linear 4 w w + 4 w, linear 4 w w + w, scale w
    reduction  LN 2 i, 2 * 2 i o + o
    head       LN 2 w, linear w K + K
    """
    w = widths[0]
    half = w // 2
    count = 48 * w + w + 2 * w if stem == "patches" else 27 * half + half + w + 9 * half * w + w + 2 * w
    count += sum(depth * (50 * w + 2 * w + 8 * w * w + 5 * w + w) for depth, w in zip(depths, widths))
    count += sum(2 * i + 4 * i * o + o for i, o in zip(widths, widths[1:]))
    return count + 2 * widths[-1] + widths[-1] * classes + classes


def size(network):
    assert not network.non_trainable_variables
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def test_the_count_by_hand_is_the_published_one():
    # Liu et al., table 9, and Singh et al., table 2: 28.6 million both.
    assert parameters("patches") == 28589128 and parameters("conv") == 28627432


@pytest.mark.parametrize("stem", ["conv", "patches"])
def test_the_network_has_the_parameters_counted_by_hand(stem):
    assert size(ConvNeXt(5, (16, 16, 3), stem=stem, **SMALL)) == parameters(stem, classes=5, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["conv", "patches"])
def test_the_papers_network_has_the_parameters_counted_by_hand(stem):
    with tf.Graph().as_default():
        assert size(ConvNeXt(1000, (224, 224, 3), stem=stem)) == parameters(stem)


@pytest.mark.slow  # the only size that Keras has is the paper's
def test_it_answers_as_that_of_keras_does_with_the_same_weights():
    theirs = keras.applications.ConvNeXtTiny(
        weights=None, classes=10, input_shape=(64, 64, 3), include_preprocessing=False, classifier_activation=None
    )
    ours = ConvNeXt(10, (64, 64, 3), stem="patches")
    random = np.random.default_rng(0)
    for weight in theirs.weights:
        weight.assign_add(random.normal(0, 0.05, weight.shape))  # so that none is all ones or zeros
    by_name = {weight.name.split(":")[0]: weight for weight in theirs.weights}

    def copy(name, *variables):
        parts = ("gamma", "beta") if "layernorm" in name else ("gamma",) if "scale" in name else ("kernel", "bias")
        assert len(parts) == len(variables)
        for part, variable in zip(parts, variables):
            variable.assign(tf.reshape(by_name.pop(f"convnext_tiny_{name}/{part}"), variable.shape))

    copy("stem_conv", *ours.stem[0].weights)
    copy("stem_layernorm", *ours.stem_norms[0].weights)
    for index, (norm, reduction) in enumerate(zip(ours.reduction_norms, ours.reductions)):
        copy(f"downsampling_layernorm_{index}", *norm.weights)
        copy(f"downsampling_conv_{index}", *reduction.weights)
    for group, blocks in enumerate(ours.groups):
        for index, block in enumerate(blocks):
            name = f"stage_{group}_block_{index}"
            copy(f"{name}_depthwise_conv", *block.depthwise.weights)
            copy(f"{name}_layernorm", *block.norm.weights)
            copy(f"{name}_pointwise_conv_1", *block.expand.weights)
            copy(f"{name}_pointwise_conv_2", *block.reduce.weights)
            copy(f"{name}_layer_scale", block.scale)
    copy("head_layernorm", *ours.norm.weights)
    copy("head_dense", *ours.dense.weights)
    assert not by_name
    images = random.uniform(-1, 1, [2, 64, 64, 3]).astype(np.float32)
    expected = theirs(images).numpy()
    assert expected.std() > 0.1
    # Both in float32, through 18 blocks.
    np.testing.assert_allclose(ours(images), expected, atol=1e-4 * np.abs(expected).max())


def test_block_against_numpy():
    block = ConvNeXtBlock(4, name="block")
    images = np.random.default_rng(0).normal(size=[2, 5, 6, 4]).astype(np.float32)
    block(images)
    random = np.random.default_rng(1)
    for weight in block.weights:
        weight.assign(random.normal(size=weight.shape))
    padded = np.pad(images, [(0, 0), (3, 3), (3, 3), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    kernel, bias = (weight.numpy() for weight in block.depthwise.weights)
    hidden = np.einsum("bhwcyx,yxc->bhwc", windows, kernel[..., 0]) + bias
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-6)
    hidden = hidden * block.norm.gamma.numpy() + block.norm.beta.numpy()
    hidden = hidden @ block.expand.kernel.numpy()[0, 0] + block.expand.bias.numpy()
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / 2**0.5)) / 2
    hidden = hidden @ block.reduce.kernel.numpy()[0, 0] + block.reduce.bias.numpy()
    expected = images + block.scale.numpy() * hidden
    # 1e-5: float32 against float64.
    np.testing.assert_allclose(block(images), expected, atol=1e-5 * np.abs(expected).max())


def test_the_convolutional_stem_is_that_of_singh_et_al():
    network = ConvNeXt(5, (16, 16, 3), **SMALL)
    random = np.random.default_rng(0)
    for weight in (*network.stem_norms[0].weights, *network.stem_norms[1].weights):
        weight.assign(random.normal(size=weight.shape))
    images = random.uniform(-1, 1, [2, 16, 16, 3]).astype(np.float32)
    hidden = images
    for convolution, norm in zip(network.stem, network.stem_norms):
        hidden = convolved(hidden, convolution.kernel, 2) + convolution.bias.numpy()
        hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-6)
        hidden = hidden * norm.gamma.numpy() + norm.beta.numpy()
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / 2**0.5)) / 2
    network.groups.clear()  # what comes behind the stem
    np.testing.assert_allclose(network.feature_maps(images, training=False), hidden, atol=1e-5)


def test_sides_and_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="divides the image's sides by 32, which 100x100 px do not allow.*@WideResNet"):
        ConvNeXt(3, (100, 100, 3))
    with pytest.raises(ValueError, match="depths has 2 entries and ConvNeXt.widths 1"):
        ConvNeXt(3, (16, 16, 3), (1, 1), (4,))
    with pytest.raises(ValueError, match="widths must begin with an even number, got 3"):
        ConvNeXt(3, (16, 16, 3), (1,), (3,))


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("float32", "mixed_float16"))]
)
def test_recomputed_blocks_have_the_same_gradients(precision):
    keras.mixed_precision.set_global_policy(precision)
    images = tf.random.uniform([2, 16, 16, 3], -1, 1)
    plain, frugal = (ConvNeXt(3, (16, 16, 3), (1,), (4,), recompute=switch) for switch in (False, True))
    frugal.set_weights(plain.get_weights())
    results = []
    for network in (plain, frugal):

        @tf.function
        def gradients(network=network):
            with tf.GradientTape() as tape:
                tape.watch(images)
                logits = network(images, training=True)
                loss = tf.reduce_sum(logits[:, 0] ** 2)
            return logits, *tape.gradient(loss, [images, *network.trainable_variables])

        results.append(gradients())
    assert results[0][0].dtype == tf.float32 and {weight.dtype for weight in plain.weights} == {tf.float32}
    digits = {"float32": 24, "mixed_bfloat16": 8, "mixed_float16": 11}[precision]
    for one, other in zip(*results):
        assert one.dtype == tf.float32
        # Some roundings of the compute dtype.
        np.testing.assert_allclose(one, other, atol=np.abs(one).max() * 2.0 ** (6 - digits) + 1e-12)


def test_it_is_another_network_with_the_same_arguments_and_an_equal_copy():
    gin.parse_config("ConvNeXt.depths = (1, 2)\nConvNeXt.widths = (4, 6)\nConvNeXt.stem = 'patches'")
    network, images = ConvNeXt(3, (16, 16, 1)), tf.random.uniform([4, 16, 16, 1], -1, 1)
    gin.clear_config()
    np.testing.assert_array_equal(network.inference_copy()(images), network(images))
    assert np.abs(network.another()(images) - network(images)).max() > 0
    features, logits = network.features_and_logits(images)
    assert features.shape == (4, 6) and logits.shape == (4, 3)
