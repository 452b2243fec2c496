"""Residual networks with pre-activation (He et al., "Identity mappings in deep residual networks", ECCV 2016).

PreActResNet-18, and the block and the beginning that it shares with wide residual networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.layers.convolution import Conv2D, convolve, convolve_image, convolve_with_stride_2, pick_and_convolve
from robgan_tf.players.classifiers.class_branch import PooledClassifier
from robgan_tf.values import checked, one_of, optional, switch, whole

# PyTorch's default, with which such classifiers are trained.
EPSILON = 1e-5
ACTIVATIONS = {"relu": tf.nn.relu, "silu": tf.nn.silu}
STEMS = ("small", "imagenet")
# The largest side that begins with a 3x3 convolution, where no stem is chosen.
_LARGEST_SMALL = 128
# Width as a multiple of the base width, and whether it halves the sides of the image, of each block.
_BLOCKS = ((1, False), (1, False), (2, True), (2, False), (4, True), (4, False), (8, True), (8, False))


class PreActBlock(keras.layers.Layer):
    """BN, activation, conv3x3 (stride 2), BN, activation, conv3x3, plus the shortcut, conv1x1 where the shape changes.

    The shortcut's convolution takes what the first BN and activation give; convolutions have no bias.

    Args:
        filters: number of output channels.
        downsample: whether the block halves the sides of the image, rounded up.
        activation: a name in `ACTIVATIONS`.
        recompute: whether the gradient computes the block once more instead of keeping what is inside of it in memory
            (Chen et al., "Training deep nets with sublinear memory cost", 2016).
        name: name of the layer.
    """

    def __init__(
        self,
        filters: int,
        downsample: bool,
        activation: str = "relu",
        recompute: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.filters = filters
        self.downsample = downsample
        self.activation = ACTIVATIONS[activation]
        self.recompute = recompute
        self.norm_1 = BatchNorm(name=f"{self.name}_norm_1", epsilon=EPSILON)
        self.norm_2 = BatchNorm(name=f"{self.name}_norm_2", epsilon=EPSILON)
        self.conv_1 = _convolution(
            filters, 3, convolve_with_stride_2 if downsample else convolve, f"{self.name}_conv_1"
        )
        self.conv_2 = _convolution(filters, 3, convolve, f"{self.name}_conv_2")
        self.conv_shortcut = None

    def build(self, input_shape):
        """Creates the 1x1 shortcut where inputs [B, H, W, C] change shape in the block."""
        if self.downsample or input_shape[-1] != self.filters:
            form = pick_and_convolve if self.downsample else convolve
            self.conv_shortcut = _convolution(self.filters, 1, form, f"{self.name}_conv_shortcut")
        # `normalize` is not a layer's call, which would build it.
        self.norm_1.build(input_shape)
        self.norm_2.build((*input_shape[:-1], self.filters))
        super().build(input_shape)

    def call(self, images, training=False):
        """Maps [B, H, W, C] to [B, H, W, filters], or [B, H/2, W/2, filters] with downsampling."""

        def forward(images):
            return self._forward(images, training)

        images, *statistics = (tf.recompute_grad(forward) if self.recompute else forward)(images)
        if training:
            # Here and not in the forward pass, which the gradient may compute once more.
            for norm, observed in zip((self.norm_1, self.norm_2), statistics):
                norm.observe(observed)
        return images

    def _forward(self, images, training):
        active, statistics_1 = self.norm_1.normalize(images, training)
        active = self.activation(active)
        hidden, statistics_2 = self.norm_2.normalize(self.conv_1(active), training)
        hidden = self.conv_2(self.activation(hidden))
        shortcut = tf.cast(images, hidden.dtype) if self.conv_shortcut is None else self.conv_shortcut(active)
        return hidden + shortcut, statistics_1, statistics_2


class PreActNetwork(PooledClassifier):
    """Base of residual networks with pre-activation: a convolution, blocks, and what `PooledClassifier` does.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels).
        stem: "small", a 3x3 convolution; "imagenet", a 7x7 convolution and a 3x3 maximum, each with stride 2; None for
            "small" up to 128 px, else "imagenet".
        filters: number of channels of the first convolution.
        another: see `PooledClassifier`.
        name: name of the model.
    """

    def __init__(self, num_classes, image_shape, stem: str | None, filters: int, another, name: str):
        super().__init__(num_classes, image_shape, another, name)
        if stem is None:
            stem = "small" if max(image_shape[:2]) <= _LARGEST_SMALL else "imagenet"
        self.stem = stem
        size, form = (3, convolve_image) if stem == "small" else (7, convolve_with_stride_2)
        self.conv = _convolution(filters, size, form, "conv")

    def feature_maps(self, images, training) -> tf.Tensor:
        """See `PooledClassifier`."""
        hidden = self.conv(images)
        if self.stem == "imagenet":
            hidden = tf.nn.max_pool2d(hidden, ksize=3, strides=2, padding="SAME")
        for block in self.blocks:
            hidden = block(hidden, training=training)
        return hidden


@gin.configurable
@checked(
    num_classes=whole(1),
    base_width=whole(1),
    activation=one_of(*ACTIVATIONS),
    stem=optional(one_of(*STEMS)),
    recompute=switch(),
)
class PreActResNet18(PreActNetwork):
    """PreActResNet-18 as in kuangliu/pytorch-cifar: eight blocks, an average over the image, and a linear layer.

    As there, and other than in He et al., there is no batch norm behind the last block.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels), of any size; odd sides are rounded up where they are halved.
        base_width: width of the first blocks; 64 in the paper.
        activation: "relu", or "silu" as in Gowal et al., "Uncovering the limits of adversarial training" (2020).
        stem: see `PreActNetwork`.
        recompute: whether gradients compute each block once more instead of keeping its inner results in memory: less
            memory, more time, the same gradients.
        name: name of the model.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        base_width: int = 64,
        activation: str = "relu",
        stem: str | None = None,
        recompute: bool = False,
        name: str = "preact_resnet18",
    ):
        another = partial(
            PreActResNet18, num_classes, tuple(image_shape), base_width, activation, stem, recompute, name
        )
        super().__init__(num_classes, image_shape, stem, base_width, another, name)
        self.blocks = [
            PreActBlock(base_width * multiplier, down, activation, recompute, name=f"block_{index}")
            for index, (multiplier, down) in enumerate(_BLOCKS)
        ]
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))


def _convolution(filters: int, size: int, convolve, name: str) -> Conv2D:
    return Conv2D(filters, size, convolve, kernel_initializer="he_normal", use_bias=False, name=name)
