"""The residual blocks of the SN-GAN networks that Rob-GAN copies (Miyato & Koyama, ICLR 2018, appendix)."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import ConditionalBatchNorm
from robgan_tf.layers.convolution import (
    Conv2D,
    convolve,
    convolve_and_downsample,
    convolve_image,
    downsample,
    upsample,
    upsample_and_convolve,
)


def glorot_uniform(gain: float) -> keras.initializers.Initializer:
    """Glorot's uniform initializer with its limit multiplied by `gain`."""
    return keras.initializers.VarianceScaling(scale=gain**2, mode="fan_avg", distribution="uniform")


def conv3x3(
    filters: int, conv2d: Callable = Conv2D, convolve: Callable = convolve, name: str | None = None
) -> keras.layers.Layer:
    """A block's 3x3 convolution, with the gain sqrt(2) of the ReLU before it."""
    return conv2d(filters, 3, convolve, kernel_initializer=glorot_uniform(2**0.5), name=name)


def conv1x1(filters: int, conv2d: Callable = Conv2D, name: str | None = None) -> keras.layers.Layer:
    """A shortcut's 1x1 convolution, with gain 1."""
    return conv2d(filters, 1, kernel_initializer=glorot_uniform(1.0), name=name)


@tf.custom_gradient
def relu_of_sum(values: tf.Tensor):
    """ReLU of a block's output, [B, H, W, C], which the next block's shortcut takes as well.

    Not `tf.nn.relu`: TensorFlow's graph optimizer would fuse that with the addition before it, find that the shortcut
    needs the sum too, and then give up all its fusions of the graph ("remapper failed").
    """
    rectified = tf.maximum(values, tf.zeros([], values.dtype))
    return rectified, lambda upstream: tf.raw_ops.ReluGrad(gradients=upstream, features=rectified)


class GeneratorBlock(keras.layers.Layer):
    """cBN, ReLU, (up), conv3x3, cBN, ReLU, conv3x3, plus the shortcut (up), conv1x1 where the shape changes.

    Args:
        filters: number of output channels.
        num_classes: number of classes of the conditional batch norm.
        upsample: whether the block doubles the sides of the image.
        recompute: whether the gradient computes the block once more instead of keeping what is inside of it in memory
            (Chen et al., "Training deep nets with sublinear memory cost", 2016).
        name: name of the layer.
    """

    def __init__(
        self, filters: int, num_classes: int, upsample: bool, recompute: bool = False, name: str | None = None
    ):
        super().__init__(name=name)
        self.filters = filters
        self.upsample = upsample
        self.recompute = recompute
        # Named with their block, for messages about single layers.
        self.norm_1 = ConditionalBatchNorm(num_classes, name=f"{self.name}_norm_1")
        self.norm_2 = ConditionalBatchNorm(num_classes, name=f"{self.name}_norm_2")
        self.conv_1 = conv3x3(
            filters, convolve=upsample_and_convolve if upsample else convolve, name=f"{self.name}_conv_1"
        )
        self.conv_2 = conv3x3(filters, name=f"{self.name}_conv_2")
        self.conv_shortcut = None

    def build(self, input_shape):
        """Creates the 1x1 shortcut where inputs [B, H, W, C] change shape in the block."""
        if self.upsample or input_shape[-1] != self.filters:
            self.conv_shortcut = conv1x1(self.filters, name=f"{self.name}_conv_shortcut")
        # `normalize` is not a layer's call, which would build it.
        self.norm_1.build(input_shape)
        self.norm_2.build((*input_shape[:-1], self.filters))
        super().build(input_shape)

    def call(self, images, labels, training=False):
        """Maps [B, H, W, C] and labels [B] to [B, H, W, filters], or [B, 2H, 2W, filters] with upsampling."""

        def forward(images):
            return self._forward(images, labels, training)

        images, *statistics = (tf.recompute_grad(forward) if self.recompute else forward)(images)
        if training:
            # Here and not in the forward pass, which the gradient may compute once more.
            for norm, observed in zip((self.norm_1, self.norm_2), statistics):
                norm.observe(observed)
        return images

    def _forward(self, images, labels, training):
        hidden, statistics_1 = self.norm_1.normalize(images, labels, training)
        hidden = self.conv_1(tf.nn.relu(hidden))
        hidden, statistics_2 = self.norm_2.normalize(hidden, labels, training)
        hidden = self.conv_2(tf.nn.relu(hidden))
        shortcut = images if self.conv_shortcut is None else self.conv_shortcut(images)
        # Repeating pixels and a 1x1 convolution commute; this order does a quarter of the arithmetic.
        shortcut = upsample(shortcut) if self.upsample else shortcut
        return hidden + shortcut, statistics_1, statistics_2


class DiscriminatorBlock(keras.layers.Layer):
    """ReLU, conv3x3, ReLU, conv3x3, (pool), plus the shortcut conv1x1, (pool) where the shape changes.

    The hidden width is the input's. The first block of a discriminator works on an image instead of features: it has no
    ReLU before its first convolution, the hidden width of its output, and pools before its shortcut's convolution.

    Args:
        filters: number of output channels.
        downsample: whether the block halves the sides of the image.
        conv2d: class of the convolutions (`SpectralNormConv2D` or `Conv2D`).
        first: whether the block's input is an image.
        recompute: see `GeneratorBlock`.
        name: name of the layer.
    """

    def __init__(
        self,
        filters: int,
        downsample: bool,
        conv2d: Callable,
        first: bool = False,
        recompute: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.filters = filters
        self.downsample = downsample
        self.conv2d = conv2d
        self.first = first
        self.recompute = recompute
        self.conv_1 = self.conv_2 = self.conv_shortcut = None

    def build(self, input_shape):
        """Creates the convolutions for inputs [B, H, W, C]; the hidden width depends on C."""
        hidden = self.filters if self.first else input_shape[-1]
        self.conv_1 = conv3x3(
            hidden, self.conv2d, convolve_image if self.first else convolve, name=f"{self.name}_conv_1"
        )
        last = convolve_and_downsample if self.downsample else convolve
        self.conv_2 = conv3x3(self.filters, self.conv2d, last, name=f"{self.name}_conv_2")
        if self.first or self.downsample or input_shape[-1] != self.filters:
            self.conv_shortcut = conv1x1(self.filters, self.conv2d, name=f"{self.name}_conv_shortcut")
        super().build(input_shape)

    def call(self, images):
        """Maps [B, H, W, C] to [B, H, W, filters], or [B, H/2, W/2, filters] with downsampling."""
        return (tf.recompute_grad(self._forward) if self.recompute else self._forward)(images)

    def _forward(self, images):
        hidden = self.conv_1(images if self.first else relu_of_sum(images))
        hidden = self.conv_2(tf.nn.relu(hidden))
        if self.conv_shortcut is None:
            return hidden + images
        # Pooling and a 1x1 convolution commute; pooling first, in every block, does a quarter of the arithmetic.
        return hidden + self.conv_shortcut(downsample(images) if self.downsample else images)
