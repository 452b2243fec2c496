"""The generator: a conditional ResNet (Miyato & Koyama, ICLR 2018; Rob-GAN, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.layers.convolution import Conv2D, convolve_to_image
from robgan_tf.layers.residual import GeneratorBlock, glorot_uniform
from robgan_tf.values import checked, several, switch, whole

# Side of the first feature map.
BOTTOM = 4


@gin.configurable
@checked(
    num_classes=whole(1),
    base_width=whole(1),
    multipliers=several(whole(1)),
    upsample=several(switch()),
    latent_dim=whole(1),
    recompute=switch(),
)
class Generator(keras.Model):
    """Maps noise and class labels to images in [-1, 1].

    A linear layer to a 4x4 map, a residual block for each further entry of `multipliers`, then batch norm, ReLU, 3x3
    convolution and tanh.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels) of the images; checked against what the blocks make.
        base_width: the networks' `ch` (64 in the paper).
        multipliers: widths as multiples of `base_width`: of the 4x4 map, then of each block.
        upsample: for each block, whether it doubles the sides of the image.
        latent_dim: length of the noise vector z ~ N(0, I).
        recompute: whether gradients compute each block once more instead of keeping its inner results in memory: less
            memory, more time, the same gradients.
        name: name of the model.

    Raises:
        ValueError: where `upsample` does not fit `multipliers`, or the blocks do not make `image_shape`.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        base_width: int = 64,
        multipliers: Sequence[int] = gin.REQUIRED,
        upsample: Sequence[bool] = gin.REQUIRED,
        latent_dim: int = 128,
        recompute: bool = False,
        name: str = "generator",
    ):
        super().__init__(name=name)
        if len(multipliers) != len(upsample) + 1:
            raise ValueError(
                f"Generator.multipliers has {len(multipliers)} entries and Generator.upsample {len(upsample)}: "
                f"multipliers needs one more, for the 4x4 map in front of the first block."
            )
        side = BOTTOM * 2 ** sum(upsample)
        if tuple(image_shape[:2]) != (side, side):
            raise ValueError(
                f"The generator's blocks make {side}x{side} images, the data has {image_shape[0]}x{image_shape[1]}: "
                f"set the data's image_size to {side}, or give Generator.upsample as many True entries as doublings "
                f"from {BOTTOM} px (now {sum(upsample)})."
            )
        # Not a dictionary, which Keras would track as a part of the network.
        self._another = partial(
            Generator,
            num_classes=num_classes,
            image_shape=tuple(image_shape),
            base_width=base_width,
            multipliers=tuple(multipliers),
            upsample=tuple(upsample),
            latent_dim=latent_dim,
            recompute=recompute,
        )
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        widths = [base_width * multiplier for multiplier in multipliers]
        self.bottom_width = widths[0]
        self.dense = keras.layers.Dense(BOTTOM * BOTTOM * widths[0], kernel_initializer=glorot_uniform(1.0))
        self.blocks = [
            GeneratorBlock(width, num_classes, upsample=up, recompute=recompute, name=f"block_{index}")
            for index, (width, up) in enumerate(zip(widths[1:], upsample))
        ]
        self.norm = BatchNorm()
        self.to_image = Conv2D(
            image_shape[-1], 3, convolve_to_image, kernel_initializer=glorot_uniform(1.0), name="to_image"
        )
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self((tf.zeros([1, latent_dim]), tf.zeros([1], tf.int32)))

    def call(self, inputs, training=False):
        """Generates images.

        Args:
            inputs: noise float32 [B, latent_dim] and labels int32 [B].
            training: whether batch norm takes its statistics from this batch (and moves its running averages) or from
                the running averages.

        Returns:
            Images float32 [B, H, W, C] in [-1, 1].
        """
        noise, labels = inputs
        images = tf.reshape(self.dense(noise), [-1, BOTTOM, BOTTOM, self.bottom_width])
        for block in self.blocks:
            images = block(images, labels, training=training)
        images = tf.nn.relu(self.norm(images, training=training))
        return tf.tanh(tf.cast(self.to_image(images), tf.float32))

    def another(self, name: str = "average_generator") -> Generator:
        """Returns another one with the same arguments and weights of its own, e.g. for the moving average."""
        return self._another(name=name)

    @property
    def batch_norm_layers(self) -> list[BatchNorm]:
        """All batch-norm layers, from the noise to the image."""
        return [norm for block in self.blocks for norm in (block.norm_1, block.norm_2)] + [self.norm]
