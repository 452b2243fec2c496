"""PreActResNet-18 for small images (He et al., "Identity mappings in deep residual networks", ECCV 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.layers.convolution import Conv2D, convolve, convolve_image, convolve_with_stride_2, pick_and_convolve
from robgan_tf.players.classifiers.class_branch import PooledClassifier
from robgan_tf.values import checked, whole

# PyTorch's default, with which such classifiers are trained.
EPSILON = 1e-5
# Width as a multiple of the base width, and whether it halves the sides of the image, of each block.
_BLOCKS = ((1, False), (1, False), (2, True), (2, False), (4, True), (4, False), (8, True), (8, False))


class PreActBlock(keras.layers.Layer):
    """BN, ReLU, conv3x3 (stride 2), BN, ReLU, conv3x3, plus the shortcut, conv1x1 where the shape changes.

    The shortcut's convolution takes what the first BN and ReLU give; convolutions have no bias.

    Args:
        filters: number of output channels.
        downsample: whether the block halves the sides of the image.
        name: name of the layer.
    """

    def __init__(self, filters: int, downsample: bool, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.downsample = downsample
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
        super().build(input_shape)

    def call(self, images, training=False):
        """Maps [B, H, W, C] to [B, H, W, filters], or [B, H/2, W/2, filters] with downsampling."""
        active = tf.nn.relu(self.norm_1(images, training=training))
        hidden = self.conv_1(active)
        hidden = self.conv_2(tf.nn.relu(self.norm_2(hidden, training=training)))
        return hidden + (tf.cast(images, hidden.dtype) if self.conv_shortcut is None else self.conv_shortcut(active))


@gin.configurable
@checked(num_classes=whole(1), base_width=whole(1))
class PreActResNet18(PooledClassifier):
    """PreActResNet-18 as in kuangliu/pytorch-cifar: eight blocks, an average over the image, and a linear layer.

    As there, and other than in He et al., there is no batch norm behind the last block.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels); sides divisible by 8.
        base_width: width of the first blocks; 64 in the paper.
        name: name of the model.

    Raises:
        ValueError: for sides that can't be halved three times.
    """

    def __init__(
        self, num_classes: int, image_shape: Sequence[int], base_width: int = 64, name: str = "preact_resnet18"
    ):
        another = partial(PreActResNet18, num_classes, tuple(image_shape), base_width, name)
        super().__init__(num_classes, image_shape, another, name)
        if any(side % 8 for side in image_shape[:2]):
            raise ValueError(
                f"PreActResNet18 halves the image three times, which {image_shape[0]}x{image_shape[1]} px does not "
                f"allow: use sides divisible by 8."
            )
        self.conv = _convolution(base_width, 3, convolve_image, "conv")
        self.blocks = [
            PreActBlock(base_width * multiplier, down, name=f"block_{index}")
            for index, (multiplier, down) in enumerate(_BLOCKS)
        ]
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))

    def feature_maps(self, images, training) -> tf.Tensor:
        """See `PooledClassifier`."""
        hidden = self.conv(images)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        return hidden


def _convolution(filters: int, size: int, convolve, name: str) -> Conv2D:
    return Conv2D(filters, size, convolve, kernel_initializer="he_normal", use_bias=False, name=name)
