"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), in the form in which adversarial training uses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.players.classifiers.preact_resnet import ACTIVATIONS, EPSILON, STEMS, PreActBlock, PreActNetwork
from robgan_tf.values import checked, one_of, optional, switch, whole

# Width of the first convolution; that of the three groups is a multiple of it times `width`.
_BASE = 16


@gin.configurable
@checked(
    num_classes=whole(1),
    depth=whole(10),
    width=whole(1),
    activation=one_of(*ACTIVATIONS),
    stem=optional(one_of(*STEMS)),
    recompute=switch(),
)
class WideResNet(PreActNetwork):
    """WRN-depth-width: three groups of (depth - 4) / 6 blocks, batch norm, activation, average, and a linear layer.

    The groups have 16, 32 and 64 times `width` channels, and the second and the third halve the image. With "silu" the
    network of Gowal et al., "Uncovering the limits of adversarial training against norm-bounded adversarial examples"
    (2020), which Rebuffi et al. (2021) and Wang et al. (2023) train, too; with "relu" that of Zagoruyko & Komodakis.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels), of any size; odd sides are rounded up where they are halved.
        depth: 6 n + 4; the field's are 28, 34 and 70.
        width: the factor of the widths; the field's are 10 and 16.
        activation: "relu" or "silu".
        stem: see `PreActNetwork`.
        recompute: see `PreActResNet18`.
        name: name of the model.

    Raises:
        ValueError: for a depth that is not 6 n + 4.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        depth: int = 28,
        width: int = 10,
        activation: str = "relu",
        stem: str | None = None,
        recompute: bool = False,
        name: str = "wide_resnet",
    ):
        if (depth - 4) % 6:
            lower = depth - (depth - 4) % 6
            raise ValueError(f"WideResNet.depth must be 6 n + 4, got {depth}: use {lower} or {lower + 6}.")
        another = partial(WideResNet, num_classes, tuple(image_shape), depth, width, activation, stem, recompute, name)
        super().__init__(num_classes, image_shape, stem, _BASE, another, name)
        self.blocks = [
            PreActBlock(
                2**group * _BASE * width, group > 0 and index == 0, activation, recompute, name=f"block_{group}_{index}"
            )
            for group in range(3)
            for index in range((depth - 4) // 6)
        ]
        self.norm = BatchNorm(name="norm", epsilon=EPSILON)
        self.activation = ACTIVATIONS[activation]
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))

    def feature_maps(self, images, training) -> tf.Tensor:
        """See `PooledClassifier`."""
        return self.activation(self.norm(super().feature_maps(images, training), training=training))
