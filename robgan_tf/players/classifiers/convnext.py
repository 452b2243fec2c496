"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022), with the stem of Singh et al. (NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.convolution import Conv2D, convolve, convolve_patches, convolve_with_stride_2
from robgan_tf.players.classifiers.class_branch import PooledClassifier
from robgan_tf.values import checked, one_of, several, switch, whole

EPSILON = 1e-6
# What each block's residual is multiplied with at the start.
_LAYER_SCALE = 1e-6


class ConvNeXtBlock(keras.layers.Layer):
    """Depthwise conv7x7, layer norm, linear to four times the width, GELU, linear, scale, plus the input.

    Args:
        filters: number of channels, of input and output.
        recompute: whether the gradient computes the block once more instead of keeping what is inside of it in memory.
        name: name of the layer.
    """

    def __init__(self, filters: int, recompute: bool = False, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.recompute = recompute
        self.depthwise = keras.layers.DepthwiseConv2D(
            7, padding="same", depthwise_initializer=_initializer(), name=f"{self.name}_depthwise"
        )
        self.norm = _norm(f"{self.name}_norm")
        self.expand = _convolution(4 * filters, 1, convolve, f"{self.name}_expand")
        self.reduce = _convolution(filters, 1, convolve, f"{self.name}_reduce")

    def build(self, input_shape):
        """Creates the scale of each channel, for inputs [B, H, W, filters]."""
        initial = keras.initializers.Constant(_LAYER_SCALE)
        self.scale = self.add_weight(name="scale", shape=(self.filters,), initializer=initial)
        super().build(input_shape)

    def call(self, images):
        """Maps [B, H, W, filters] to the same shape."""
        return (tf.recompute_grad(self._forward) if self.recompute else self._forward)(images)

    def _forward(self, images):
        hidden = self.expand(self.norm(self.depthwise(images)))
        hidden = self.reduce(tf.nn.gelu(hidden))
        return images + hidden * tf.cast(self.scale, hidden.dtype)


@gin.configurable
@checked(
    num_classes=whole(1),
    depths=several(whole(1)),
    widths=several(whole(1)),
    stem=one_of("conv", "patches"),
    recompute=switch(),
)
class ConvNeXt(PooledClassifier):
    """ConvNeXt: a stem, groups of blocks with a reduction between two, average, layer norm, and a linear layer.

    The defaults are ConvNeXt-T + ConvStem of Singh et al., "Revisiting adversarial training for ImageNet" (2023). It
    has no batch norm, so it can be trained in parts (`FineTuning.accumulation`); and no stochastic depth.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels); sides divisible by 4 * 2 ** (groups - 1), 32 for the paper's.
        depths: number of blocks of each group.
        widths: number of channels of each group; the first one even.
        stem: "conv", Singh et al.'s two 3x3 convolutions with stride 2, each with layer norm and GELU behind it, the
            first one of half the width; "patches", Liu et al.'s 4x4 convolution with stride 4 and a layer norm.
        recompute: see `PreActResNet18`.
        name: name of the model.

    Raises:
        ValueError: for sides that can't be divided, or other than a width for each depth.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        stem: str = "conv",
        recompute: bool = False,
        name: str = "convnext",
    ):
        if len(depths) != len(widths):
            raise ValueError(
                f"ConvNeXt.depths has {len(depths)} entries and ConvNeXt.widths {len(widths)}: each group needs both."
            )
        if widths[0] % 2:
            raise ValueError(f"ConvNeXt.widths must begin with an even number, got {widths[0]}.")
        divisor = 4 * 2 ** (len(depths) - 1)
        if any(side % divisor for side in image_shape[:2]):
            raise ValueError(
                f"ConvNeXt divides the image's sides by {divisor}, which {image_shape[0]}x{image_shape[1]} px do not "
                f"allow: use sides divisible by {divisor}, or another classifier, such as @WideResNet."
            )
        another = partial(
            ConvNeXt, num_classes, tuple(image_shape), tuple(depths), tuple(widths), stem, recompute, name
        )
        super().__init__(num_classes, image_shape, another, name)
        if stem == "conv":
            sizes = (widths[0] // 2, widths[0])
            self.stem = [_convolution(size, 3, convolve_with_stride_2, f"stem_{i}") for i, size in enumerate(sizes)]
        else:
            self.stem = [_convolution(widths[0], 4, convolve_patches, "stem_0")]
        self.stem_norms = [_norm(f"stem_norm_{index}") for index in range(len(self.stem))]
        self.stem_activation = tf.nn.gelu if stem == "conv" else tf.identity
        self.reduction_norms = [_norm(f"reduction_norm_{group}") for group in range(1, len(widths))]
        self.reductions = [
            _convolution(width, 2, convolve_patches, f"reduction_{group}") for group, width in enumerate(widths[1:], 1)
        ]
        self.groups = [
            [ConvNeXtBlock(width, recompute, name=f"block_{group}_{index}") for index in range(depth)]
            for group, (depth, width) in enumerate(zip(depths, widths))
        ]
        # Float32 under every precision, as the linear layer behind it.
        self.norm = keras.layers.LayerNormalization(epsilon=EPSILON, dtype="float32", name="norm")
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))

    def feature_maps(self, images, training) -> tf.Tensor:
        """See `PooledClassifier`; `training` makes no difference."""
        hidden = images
        for convolution, norm in zip(self.stem, self.stem_norms):
            hidden = self.stem_activation(norm(convolution(hidden)))
        for group, blocks in enumerate(self.groups):
            if group:
                hidden = self.reductions[group - 1](self.reduction_norms[group - 1](hidden))
            for block in blocks:
                hidden = block(hidden)
        return hidden

    def _pooled(self, images, training) -> tf.Tensor:
        return self.norm(super()._pooled(images, training))


def _initializer():
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _convolution(filters: int, size: int, convolve, name: str) -> Conv2D:
    return Conv2D(filters, size, convolve, kernel_initializer=_initializer(), name=name)


def _norm(name: str) -> keras.layers.LayerNormalization:
    """Layer norm over the channels of each pixel."""
    return keras.layers.LayerNormalization(epsilon=EPSILON, name=name)
