"""What a device gives at best, and how exact it is: matrix products and convolutions, in each precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import flags

from measures.timing import Series, alternate, timed

FLAGS = flags.FLAGS
# Side of the matrix product that achieved rates are held against; a GPU does the smaller one while Python calls it.
MATRIX, MATRIX_OF_GPU = 2048, 8192
CHANNELS = 128
# Norm of the error by that of the result: float32 may be TF32, which rounds factors to 11 bits; bfloat16
# rounds results to 8, float16 to 11.
LARGEST_ERROR = {"float32": 2e-3, "bfloat16": 1e-2, "float16": 2e-3}


def on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def matrix_side() -> int:
    """Rows and columns of the matrix product."""
    return MATRIX_OF_GPU if on_gpu() else MATRIX


def operations(dtype: str) -> dict[str, tuple[Callable[[], tf.Tensor], float]]:
    """Returns matrix products and a 3x3 convolution of [batch, 32, 32, 128], and the arithmetic of each."""
    side, batch = matrix_side(), 256 if on_gpu() else 16
    a, b = (tf.cast(tf.random.normal([side, side]), dtype) for _ in range(2))
    images = tf.cast(tf.random.normal([batch, 32, 32, CHANNELS]), dtype)
    kernel = tf.cast(tf.random.normal([3, 3, CHANNELS, CHANNELS]), dtype)
    product, convolution = tf.function(tf.linalg.matmul), tf.function(tf.nn.conv2d)
    compiled = tf.function(tf.linalg.matmul, jit_compile=True)
    return {
        "matrix product": (lambda: product(a, b), 2.0 * side**3),
        "convolution": (lambda: convolution(images, kernel, 1, "SAME"), 2.0 * batch * 32**2 * 9 * CHANNELS**2),
        "matrix product by XLA": (lambda: compiled(a, b), 2.0 * side**3),
    }


def errors(dtype: str) -> dict[str, float]:
    """Returns the relative error of a matrix product and of a convolution against float64 on the CPU."""
    random = np.random.default_rng(0)
    shapes = {"matrix product": ([512, 512], [512, 512]), "convolution": ([8, 16, 16, 32], [3, 3, 32, 32])}
    functions = {"matrix product": tf.linalg.matmul, "convolution": lambda x, k: tf.nn.conv2d(x, k, 1, "SAME")}
    found = {}
    for name, function in functions.items():
        # In bfloat16 the factors themselves are rounded; what counts is what is made of them.
        factors = [tf.cast(tf.constant(random.normal(size=shape), tf.float32), dtype) for shape in shapes[name]]
        with tf.device("CPU:0"):
            wanted = function(*(tf.cast(factor, tf.float64) for factor in factors)).numpy()
        error = tf.cast(function(*factors), tf.float64).numpy() - wanted
        found[name] = float(np.linalg.norm(error) / np.linalg.norm(wanted))
    return found


def measure_device() -> Iterator[Series]:
    """Rates of both in each precision, and errors."""
    for precision in FLAGS.precision:
        dtype = precision.replace("mixed_", "")
        measured = operations(dtype)
        series = alternate({name: timed(function) for name, (function, _) in measured.items()})
        for name, (_, count) in measured.items():
            yield dataclasses.replace(series[name], name=f"{dtype} {name}", flops=count)
        for name, error in errors(dtype).items():
            yield Series(f"{dtype} {name}, relative error", [error], "", at_most=LARGEST_ERROR[dtype])
