import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.layers import residual
from robgan_tf.layers.batch_norm import EPSILON
from robgan_tf.layers.convolution import Conv2D, downsample
from robgan_tf.layers.residual import DiscriminatorBlock, GeneratorBlock
from robgan_tf.layers.spectral_norm import SpectralNormConv2D


def random_images(channels, side=4):
    return np.random.default_rng(0).normal(size=[2, side, side, channels]).astype(np.float32)


# ---- NumPy's versions, in float64


def relu(images):
    return np.maximum(images, 0)


def convolve(images, layer):
    """A "same" convolution as the sum over the kernel's cells of shifted images."""
    kernel, bias = (variable.numpy().astype(np.float64) for variable in (layer.kernel, layer.bias))
    if hasattr(layer, "u"):
        matrix = kernel.reshape(-1, kernel.shape[-1])
        kernel = kernel / np.linalg.norm(matrix @ layer.u.numpy())
    (size, _, _, _), (_, height, width, _) = kernel.shape, images.shape
    margin = size // 2
    padded = np.pad(images, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    cells = [(y, x) for y in range(size) for x in range(size)]
    return bias + sum(padded[:, y : y + height, x : x + width] @ kernel[y, x] for y, x in cells)


def pool(images):
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4


def double(images):
    return images.repeat(2, axis=1).repeat(2, axis=2)


def keep(images):
    return images


def randomize(layer):
    """Gives all weights values that no shortcut of the arithmetic would survive (biases start at 0, gamma at 1)."""
    generator = np.random.default_rng(3)
    for variable in layer.trainable_variables:
        variable.assign(generator.normal(0.3, 0.5, variable.shape))


# ---- blocks


@pytest.mark.parametrize("upsample", [True, False])
@pytest.mark.parametrize("filters", [3, 5])
def test_generator_block_is_that_of_the_paper(upsample, filters):
    block = GeneratorBlock(filters, num_classes=2, upsample=upsample)
    images, labels = random_images(5), np.array([1, 0])
    block(images, labels)
    randomize(block)
    up = double if upsample else keep

    def norm(images, layer):  # at the start: running mean 0, running variance 1
        gamma, beta = (variable.numpy()[labels][:, None, None] for variable in (layer.gamma, layer.beta))
        return images / np.sqrt(1 + EPSILON) * gamma + beta

    hidden = convolve(up(relu(norm(images, block.norm_1))), block.conv_1)
    hidden = convolve(relu(norm(hidden, block.norm_2)), block.conv_2)
    # The shortcut has a convolution where the shape changes, be it in sides or channels.
    shortcut = images if filters == 5 and not upsample else convolve(up(images), block.conv_shortcut)
    found = block(images, labels).numpy()
    assert found.shape == (2, 8 if upsample else 4, 8 if upsample else 4, filters)
    np.testing.assert_allclose(found, hidden + shortcut, rtol=1e-5, atol=1e-4)  # float32; values up to some 100


def test_generator_block_without_a_change_of_shape_has_no_weights_in_its_shortcut():
    block = GeneratorBlock(5, num_classes=2, upsample=False)
    block(random_images(5), np.array([1, 0]))
    assert block.conv_shortcut is None


@pytest.mark.parametrize("conv2d", [Conv2D, SpectralNormConv2D])
@pytest.mark.parametrize("downsample", [True, False])
@pytest.mark.parametrize("filters", [3, 5])
@pytest.mark.parametrize("first", [True, False])
def test_discriminator_block_is_that_of_the_paper(conv2d, downsample, filters, first):
    block = DiscriminatorBlock(filters, downsample, conv2d, first=first)
    images = random_images(5)
    block(images)
    randomize(block)
    down = pool if downsample else keep
    hidden = convolve(images if first else relu(images), block.conv_1)
    hidden = down(convolve(relu(hidden), block.conv_2))
    # In the paper's order: the convolution, then the pool.
    identity = filters == 5 and not downsample and not first
    shortcut = images if identity else down(convolve(images, block.conv_shortcut))
    found = block(images).numpy()
    assert found.shape == (2, 2 if downsample else 4, 2 if downsample else 4, filters)
    np.testing.assert_allclose(found, hidden + shortcut, rtol=1e-5, atol=1e-4)  # float32; values up to some 100
    assert (block.conv_shortcut is None) == identity


def test_pooling_and_a_1x1_convolution_commute():
    block = DiscriminatorBlock(3, True, SpectralNormConv2D)
    images = tf.constant(random_images(5))
    block(images)
    randomize(block)
    convolution = block.conv_shortcut
    # float32, values up to 10
    np.testing.assert_allclose(convolution(downsample(images)), downsample(convolution(images)), atol=1e-5)


@pytest.mark.parametrize("first, hidden", [(True, 7), (False, 5)])
def test_hidden_width_is_the_inputs_except_in_the_first_block(first, hidden):
    block = DiscriminatorBlock(7, True, Conv2D, first=first)
    block(random_images(5))
    assert block.conv_1.kernel.shape == (3, 3, 5, hidden)
    assert block.conv_2.kernel.shape == (3, 3, hidden, 7)
    assert block.conv_shortcut.kernel.shape == (1, 1, 5, 7)


def test_hidden_width_of_a_generator_block_is_its_outputs():
    block = GeneratorBlock(7, num_classes=2, upsample=True)
    block(random_images(5), np.array([1, 0]))
    assert block.conv_1.kernel.shape == (3, 3, 5, 7)
    assert block.conv_2.kernel.shape == (3, 3, 7, 7)
    assert block.conv_shortcut.kernel.shape == (1, 1, 5, 7)


# ---- initial weights


@pytest.mark.parametrize("make, size, gain", [(residual.conv3x3, 3, 2**0.5), (residual.conv1x1, 1, 1.0)])
@pytest.mark.parametrize("conv2d", [Conv2D, SpectralNormConv2D])
def test_initial_kernels_are_glorot_uniform_with_gain(make, size, gain, conv2d):
    layer = make(64, conv2d)
    layer.build(tf.TensorShape([None, 8, 8, 32]))
    # Glorot & Bengio (2010): U(-limit, limit) with limit = sqrt(6 / (fan_in + fan_out)).
    limit = gain * np.sqrt(6 / (size**2 * (32 + 64)))
    kernel = layer.kernel.numpy()
    # Of 2048 numbers or more, the largest is within 1 % of the limit but for a chance of 0.99**2048 = 1e-9.
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    np.testing.assert_array_equal(layer.bias, np.zeros(64))
