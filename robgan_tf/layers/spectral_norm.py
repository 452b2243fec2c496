"""Spectrally normalised layers: the kernel is divided by its largest singular value.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018. The kernel W is seen as a matrix
with one column per output; sigma(W), its largest singular value, is estimated by power iteration from a vector u that
is kept as state.

What sets these layers apart from those of tensorflow-addons and Keras:

*   The forward pass is a pure function of the kernel and u. It never assigns anything, so an attack or an evaluation
    leaves no trace, whatever `training` says. Only `power_iteration` moves u, and only a training step calls it: once
    for each update of the discriminator.
*   The gradient flows through sigma (and not through u and v), as in the paper, equation 12.
*   Kernel, u and sigma stay float32 under mixed precision; only the finished W / sigma is cast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Callable

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.convolution import convolve
from robgan_tf.values import checked, switch, whole

# Smaller norms are taken for zero, so that an all-zero kernel gives zero and not NaN. (l2_normalize wants its square.)
_TINY = 1e-12


class SpectralNormLayer(keras.layers.Layer):
    """Base of the spectrally normalised layers: a kernel, its u vector and W / sigma(W).

    Args:
        kernel_initializer: a Keras initializer for the kernel.
        dtype: dtype (or mixed-precision policy) of the layer's arithmetic; the global policy if None. The variables are
            float32 in any case.
        name: name of the layer.
    """

    def __init__(self, kernel_initializer="glorot_uniform", dtype=None, name=None):
        # The layer itself is float32 and casts by hand: under a mixed policy Keras would round the kernel to 16 bits
        # before sigma is computed from it.
        super().__init__(name=name, dtype="float32", autocast=False)
        policy = keras.mixed_precision.global_policy() if dtype is None else keras.mixed_precision.Policy(dtype)
        self.arithmetic_dtype = policy.compute_dtype
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._held = None

    def add_kernel(self, shape):
        """Creates the float32 `kernel` of `shape` [..., outputs] and the unit vector `u` [outputs]."""
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer, trainable=True)
        # A plain tf.Variable, for its aggregation: under MirroredStrategy all replicas compute the same new u, and the
        # first one's is taken.
        self.u = tf.Variable(
            lambda: tf.math.l2_normalize(tf.random.normal([shape[-1]]), epsilon=_TINY**2),
            trainable=False,
            name="u",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def power_iteration(self):
        """Moves u by one power iteration: v = Wu / |Wu|, u = W'v / |W'v|.

        To be called in replica context at the top level of a training step, once for each update of the kernel.
        """
        matrix = self._matrix()
        v = tf.math.l2_normalize(tf.linalg.matvec(matrix, self.u), epsilon=_TINY**2)
        u = tf.math.l2_normalize(tf.linalg.matvec(matrix, v, transpose_a=True), epsilon=_TINY**2)
        # A kernel of zeros has no direction: u would stay zero for ever.
        self.u.assign(tf.where(tf.reduce_any(u != 0.0), u, self.u))

    def sigma(self) -> tf.Tensor:
        """Returns the estimate of the kernel's largest singular value, a float32 scalar.

        sigma = v'Wu with v = Wu / |Wu|, which is |Wu|. Its gradient with respect to W is v u': that of v'Wu with u and
        v held fixed (Miyato et al., eq. 12).
        """
        # Normalised here too, since a moving average of u, a mean of unit vectors, is shorter than one.
        u = tf.math.l2_normalize(self.u, epsilon=_TINY**2)
        return tf.norm(tf.linalg.matvec(self._matrix(), u))

    def normalized_kernel(self) -> tf.Tensor:
        """Returns W / sigma(W), float32; within `cached_kernels` that of its beginning."""
        return self.kernel / tf.maximum(self.sigma(), _TINY) if self._held is None else self._held

    def _matrix(self) -> tf.Tensor:
        return tf.reshape(self.kernel, [-1, self.kernel.shape[-1]])


@contextlib.contextmanager
def cached_kernels(layers: Iterable[SpectralNormLayer]):
    """Within it, W / sigma of `layers` is not computed in each pass, but once, at its beginning.

    For passes between which kernels and u stay as they are, such as the steps of an attack.
    """
    layers = list(layers)
    before = [layer._held for layer in layers]
    for layer in layers:
        layer._held = layer.normalized_kernel()
    try:
        yield
    finally:
        for layer, held in zip(layers, before):
            layer._held = held


@checked(filters=whole(1), kernel_size=whole(1))
class SpectralNormConv2D(SpectralNormLayer):
    """As `Conv2D`, its kernel spectrally normalised.

    Args:
        filters: number of output channels.
        kernel_size: side of the square kernel.
        convolve: see `Conv2D`.
        **layer_options: `kernel_initializer`, `dtype` and `name`, see `SpectralNormLayer`.
    """

    def __init__(self, filters: int, kernel_size: int, convolve: Callable = convolve, **layer_options):
        super().__init__(**layer_options)
        self.filters = filters
        self.kernel_size = kernel_size
        self.convolve = convolve

    def build(self, input_shape):
        """Creates kernel [size, size, in, filters], u and bias for inputs [B, H, W, in]."""
        self.add_kernel((self.kernel_size, self.kernel_size, input_shape[-1], self.filters))
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        super().build(input_shape)

    def call(self, images):
        """Maps [B, H, W, in] to [B, H, W, filters], with half or twice the sides where `convolve` does so."""
        images = self.convolve(tf.cast(images, self.arithmetic_dtype), self.normalized_kernel())
        return tf.nn.bias_add(images, tf.cast(self.bias, self.arithmetic_dtype))


@checked(units=whole(1), use_bias=switch())
class SpectralNormDense(SpectralNormLayer):
    """Linear layer, its kernel spectrally normalised.

    Args:
        units: number of outputs.
        use_bias: whether it has a bias.
        **layer_options: `kernel_initializer`, `dtype` and `name`, see `SpectralNormLayer`.
    """

    def __init__(self, units: int, use_bias: bool = True, **layer_options):
        super().__init__(**layer_options)
        self.units = units
        self.use_bias = use_bias

    def build(self, input_shape):
        """Creates kernel [in, units], u and, where it has one, the bias for inputs [B, in]."""
        self.add_kernel((input_shape[-1], self.units))
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        super().build(input_shape)

    def call(self, features):
        """Maps [B, in] to [B, units]."""
        features = tf.cast(features, self.arithmetic_dtype)
        kernel = tf.cast(self.normalized_kernel(), self.arithmetic_dtype)
        outputs = tf.linalg.matmul(features, kernel)
        return outputs + tf.cast(self.bias, self.arithmetic_dtype) if self.use_bias else outputs
