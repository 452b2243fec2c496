"""VGG16 with batch norm, for small images (Simonyan & Zisserman, ICLR 2015, configuration D)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import gin
import tensorflow as tf

from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.layers.convolution import Conv2D, convolve, convolve_image
from robgan_tf.players.classifiers.class_branch import PooledClassifier
from robgan_tf.values import checked, whole

# PyTorch's default, with which such classifiers are trained.
EPSILON = 1e-5
# Widths as multiples of the base width, of the convolutions between two poolings.
_GROUPS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


@gin.configurable
@checked(num_classes=whole(1), base_width=whole(1))
class VGG16(PooledClassifier):
    """VGG16 as in kuangliu/pytorch-cifar: conv3x3, BN, ReLU thirteen times, and one linear layer.

    After each group of convolutions a 2x2 maximum halves the image, as long as it is larger than one pixel; what is
    left of it at the end (one pixel of a 32 px image) is averaged. The network of the paper's Fig. 2.

    Args:
        num_classes: number of classes.
        image_shape: (height, width, channels); the sides are powers of two.
        base_width: width of the first convolutions; 64 in the paper.
        name: name of the model.

    Raises:
        ValueError: for sides that are not equal powers of two.
    """

    def __init__(self, num_classes: int, image_shape: Sequence[int], base_width: int = 64, name: str = "vgg16"):
        another = partial(VGG16, num_classes, tuple(image_shape), base_width, name)
        super().__init__(num_classes, image_shape, another, name)
        height, width = image_shape[:2]
        if height != width or height & (height - 1):
            raise ValueError(
                f"VGG16 halves the image five times, which {height}x{width} px does not allow: use a power of two."
            )
        self.convolutions = [
            [
                Conv2D(
                    base_width * multiplier,
                    3,
                    convolve_image if (group, index) == (0, 0) else convolve,
                    kernel_initializer="he_normal",
                    name=f"conv_{group}_{index}",
                )
                for index, multiplier in enumerate(multipliers)
            ]
            for group, multipliers in enumerate(_GROUPS)
        ]
        self.norms = [
            [BatchNorm(name=f"norm_{group}_{index}", epsilon=EPSILON) for index in range(len(multipliers))]
            for group, multipliers in enumerate(_GROUPS)
        ]
        # Makes the weights now: optimizers and checkpoints need them before the first step.
        self(tf.zeros([1, *image_shape]))

    def feature_maps(self, images, training) -> tf.Tensor:
        """See `PooledClassifier`."""
        hidden = images
        for convolutions, norms in zip(self.convolutions, self.norms):
            for convolution, norm in zip(convolutions, norms):
                hidden = tf.nn.relu(norm(convolution(hidden), training=training))
            if hidden.shape[1] > 1:
                hidden = tf.nn.max_pool2d(hidden, ksize=2, strides=2, padding="VALID")
        return hidden
