"""The discriminator: a ResNet with two heads, real/fake and class (Rob-GAN, section 3.3 and Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.convolution import Conv2D
from robgan_tf.layers.residual import DiscriminatorBlock, glorot_uniform
from robgan_tf.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense, SpectralNormLayer, cached_kernels
from robgan_tf.values import checked, several, switch, whole


class Verdict(NamedTuple):
    """What the discriminator says of a batch of B images.

    Attributes:
        source: logit of "real" against "fake", float32 [B] (S in the paper).
        classes: logits of the classes, float32 [B, K] (C in the paper).
    """

    source: tf.Tensor
    classes: tf.Tensor


@gin.configurable
@checked(
    num_classes=whole(1),
    base_width=whole(1),
    multipliers=several(whole(1)),
    downsample=several(switch()),
    spectral_norm=switch(),
    recompute=switch(),
    class_bias=switch(),
)
class Discriminator(keras.Model):
    """Tells real from fake images, and the class of both.

    A residual block for each entry of `multipliers`, ReLU, global sum pooling and two linear heads. It has no layer
    whose output depends on `training` or on the other images of a batch.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels) of the images.
        base_width: the networks' `ch` (64 in the paper).
        multipliers: width of each block as a multiple of `base_width`.
        downsample: for each block, whether it halves the sides of the image.
        spectral_norm: whether every layer is spectrally normalised (the authors' released code has none).
        recompute: whether gradients compute each block once more instead of keeping its inner results in memory: less
            memory, more time, the same gradients.
        class_bias: whether the class head has a bias; without one it is the embedding of a projection discriminator
            (see `losses.projection`).
        name: name of the model.

    Raises:
        ValueError: where `downsample` does not fit `multipliers`, or the image has odd sides, or can't be halved that
            often.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        base_width: int = 64,
        multipliers: Sequence[int] = gin.REQUIRED,
        downsample: Sequence[bool] = gin.REQUIRED,
        spectral_norm: bool = True,
        recompute: bool = False,
        class_bias: bool = True,
        name: str = "discriminator",
    ):
        super().__init__(name=name)
        if len(multipliers) != len(downsample):
            raise ValueError(
                f"Discriminator.multipliers has {len(multipliers)} entries and Discriminator.downsample "
                f"{len(downsample)}: each block needs one of both."
            )
        divisor = 2 ** max(sum(downsample), 1)  # even, for the fast gradient of `convolve_image`
        if any(side % divisor for side in image_shape[:2]):
            raise ValueError(
                f"The discriminator's blocks halve the image {sum(downsample)} times, which {image_shape[0]}x"
                f"{image_shape[1]} px does not allow: use sides divisible by {divisor} or, if they are even, fewer "
                f"True entries in Discriminator.downsample."
            )
        # Not a dictionary, which Keras would track as a part of the network.
        self._another = partial(
            Discriminator,
            num_classes=num_classes,
            image_shape=tuple(image_shape),
            base_width=base_width,
            multipliers=tuple(multipliers),
            downsample=tuple(downsample),
            spectral_norm=spectral_norm,
            recompute=recompute,
            class_bias=class_bias,
            name=name,
        )
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        conv2d = SpectralNormConv2D if spectral_norm else Conv2D
        dense = SpectralNormDense if spectral_norm else keras.layers.Dense
        self.blocks = [
            DiscriminatorBlock(base_width * multiplier, down, conv2d, index == 0, recompute, name=f"block_{index}")
            for index, (multiplier, down) in enumerate(zip(multipliers, downsample))
        ]
        # The heads are float32 under every precision: they are small, and losses and attacks are built on them.
        self.source_head = dense(1, kernel_initializer=glorot_uniform(1.0), dtype="float32", name="source_head")
        self.class_head = dense(
            num_classes,
            use_bias=class_bias,
            kernel_initializer=glorot_uniform(1.0),
            dtype="float32",
            name="class_head",
        )
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))

    def call(self, images, training=False):
        """Judges images float32 [B, H, W, C] in [-1, 1]; returns a `Verdict`. `training` makes no difference."""
        features = self.features(images)
        return Verdict(tf.squeeze(self.source_head(features), axis=-1), self.class_head(features))

    def features(self, images) -> tf.Tensor:
        """Returns what the heads see of images [B, H, W, C]: float32 [B, D], D the width of the last block."""
        features = images
        for block in self.blocks:
            features = block(features)
        return tf.reduce_sum(tf.cast(tf.nn.relu(features), tf.float32), axis=[1, 2])

    def power_iteration(self):
        """Moves u of every spectrally normalised layer by one power iteration (see `SpectralNormLayer`)."""
        for layer in self.spectral_norm_layers:
            layer.power_iteration()

    def another(self) -> Discriminator:
        """Returns another one with the same arguments, made under the current strategy and precision."""
        return self._another()

    def inference_copy(self) -> Discriminator:
        """Returns one that judges alike without spectral normalisation, W / sigma for each W; made as `another`."""
        copy = self._another(spectral_norm=False)
        copy.set_weights(self.inference_weights())
        return copy

    def inference_weights(self) -> list[np.ndarray]:
        """Returns the weights of `inference_copy`."""
        normalized = {id(layer.kernel): layer.normalized_kernel().numpy() for layer in self.spectral_norm_layers}
        return [normalized.get(id(weight), weight.numpy()) for weight in self.trainable_variables]

    def cached_kernels(self):
        """A context in which W / sigma is computed once for all passes, see `layers.spectral_norm.cached_kernels`."""
        return cached_kernels(self.spectral_norm_layers)

    @property
    def spectral_norm_layers(self) -> list[SpectralNormLayer]:
        """The spectrally normalised layers of the network, from the image to the heads; empty before `build`."""
        layers = [layer for block in self.blocks for layer in (block.conv_1, block.conv_2, block.conv_shortcut)]
        return [layer for layer in [*layers, self.source_head, self.class_head] if isinstance(layer, SpectralNormLayer)]
