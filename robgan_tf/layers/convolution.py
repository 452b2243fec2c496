"""Convolutions, alone or with the halving or doubling of the image that follows or precedes them in residual blocks.

A 3x3 convolution and a 2x2 average after it, or a repetition of pixels before it, are linear and local: together they
are one 4x4 convolution with steps of two pixels, or its transpose. That takes 16 instead of 36 multiplications for four
pixels of the larger image, and gives the same result but for rounding. docs/performance.md has what it gains.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.values import checked, switch, whole


def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves images [B, H, W, in] with a float32 kernel [size, size, in, out], "same", in the images' dtype."""
    return tf.nn.conv2d(images, tf.cast(kernel, images.dtype), strides=1, padding="SAME")


def convolve_with_stride_2(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Every other row and column of `convolve` with a kernel of odd size, from the first on.

    [B, H, W, in] -> [B, H/2, W/2, out], odd sides rounded up.
    """
    # "SAME" would begin at the second row and column. Not the operation's own padding: in bfloat16 its gradients take a
    # kernel that is 14 times slower.
    (height, width), margin = images.shape[1:3], kernel.shape[0] // 2
    sides = [[margin, margin - 1 + side % 2] for side in (height, width)]
    images = tf.pad(images, [[0, 0], *sides, [0, 0]])
    return tf.nn.conv2d(images, tf.cast(kernel, images.dtype), strides=2, padding="VALID")


def pick_and_convolve(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Every other row and column of `convolve` with a 1x1 kernel: [B, H, W, in] -> [B, H/2, W/2, out], see above."""
    # Not a stride of the convolution: on CPUs TensorFlow 2.15's gradient of the kernel then writes beyond its memory.
    return convolve(images[:, ::2, ::2], kernel)


def convolve_patches(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves patches as large as the kernel, side by side: [B, H, W, in] -> [B, H/size, W/size, out]."""
    size = kernel.shape[0]
    return tf.nn.conv2d(images, tf.cast(kernel, images.dtype), strides=size, padding="VALID")


def convolve_and_downsample(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As `convolve` with a 3x3 kernel and then `downsample`: [B, H, W, in] -> [B, H/2, W/2, out], for even H and W."""
    return tf.nn.conv2d(images, tf.cast(_spread(kernel) / 4, images.dtype), strides=2, padding="SAME")


def upsample_and_convolve(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As `upsample` and then `convolve` with a 3x3 kernel: [B, H, W, in] -> [B, 2H, 2W, out]."""
    # A transposed convolution turns its kernel round.
    transposed = _spread(tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2]))
    shape = [tf.shape(images)[0], 2 * images.shape[1], 2 * images.shape[2], kernel.shape[-1]]
    return tf.nn.conv2d_transpose(images, tf.cast(transposed, images.dtype), shape, strides=2, padding="SAME")


def convolve_to_image(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As `convolve` with a 3x3 kernel, in less time where there are few output channels; H and W must be even.

    Processors compute 16 channels at once. An image has 3; its pixels four at a time have 12.
    """
    places = [[[0, 1], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [1, 0]]]
    four = tf.concat([tf.pad(kernel, [*place, [0, 0], [0, 0]]) for place in places], axis=-1)
    return tf.nn.depth_to_space(tf.nn.conv2d(images, tf.cast(four, images.dtype), strides=2, padding="SAME"), 2)


def convolve_image(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As `convolve` with a 3x3 kernel, in less time where an attack needs the gradient in images of few channels.

    That gradient is a convolution to few channels: see `convolve_to_image`, for which H and W must be even.
    """
    if any(side % 2 for side in images.shape[1:3]):
        return convolve(images, kernel)

    @tf.custom_gradient
    def convolution(images, kernel):
        def gradient(upstream):
            in_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=images, filter_sizes=kernel.shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
            )
            return convolve_to_image(upstream, tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2])), in_kernel

        return tf.nn.conv2d(images, kernel, strides=1, padding="SAME"), gradient

    return convolution(images, tf.cast(kernel, images.dtype))


def _spread(kernel: tf.Tensor) -> tf.Tensor:
    """The sum of a kernel [3, 3, in, out] over its four places on a grid of 4x4 cells."""
    rows = tf.pad(kernel, [[1, 0], [0, 0], [0, 0], [0, 0]]) + tf.pad(kernel, [[0, 1], [0, 0], [0, 0], [0, 0]])
    return tf.pad(rows, [[0, 0], [1, 0], [0, 0], [0, 0]]) + tf.pad(rows, [[0, 0], [0, 1], [0, 0], [0, 0]])


def upsample(images: tf.Tensor) -> tf.Tensor:
    """Doubles the sides of images [B, H, W, C] by repeating each pixel (nearest neighbour)."""

    @tf.custom_gradient
    def repeat(images):
        batch, height, width, channels = tf.shape(images)[0], *images.shape[1:]
        repeated = tf.tile(images[:, :, tf.newaxis, :, tf.newaxis, :], [1, 1, 2, 1, 2, 1])
        # The gradient of tf.tile would add up along two of six dimensions, which takes several times as long.
        return tf.reshape(repeated, [batch, 2 * height, 2 * width, channels]), lambda upstream: 4 * downsample(upstream)

    return repeat(images)


def downsample(images: tf.Tensor) -> tf.Tensor:
    """Halves the sides of images [B, H, W, C] by averaging 2x2 pixels."""
    return tf.nn.avg_pool2d(images, ksize=2, strides=2, padding="VALID")


@checked(filters=whole(1), kernel_size=whole(1), use_bias=switch())
class Conv2D(keras.layers.Layer):
    """Convolution. Its variables are float32; it computes in the compute dtype of the global policy.

    Not Keras's, which knows neither of the combinations above.

    Args:
        filters: number of output channels.
        kernel_size: side of the square kernel.
        convolve: what it does with images and kernel: `convolve`, or with a 3x3 kernel another of the functions above.
        kernel_initializer: a Keras initializer for the kernel.
        use_bias: whether it has a bias.
        name: name of the layer.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        convolve: Callable = convolve,
        kernel_initializer="glorot_uniform",
        use_bias: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name, dtype="float32", autocast=False)
        self.arithmetic_dtype = keras.mixed_precision.global_policy().compute_dtype
        self.filters = filters
        self.kernel_size = kernel_size
        self.convolve = convolve
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.use_bias = use_bias

    def build(self, input_shape):
        """Creates kernel [size, size, in, filters] and, where it has one, the bias for inputs [B, H, W, in]."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        super().build(input_shape)

    def call(self, images):
        """Maps [B, H, W, in] to [B, H, W, filters], with half or twice the sides where `convolve` does so."""
        images = self.convolve(tf.cast(images, self.arithmetic_dtype), self.kernel)
        return tf.nn.bias_add(images, tf.cast(self.bias, self.arithmetic_dtype)) if self.use_bias else images
