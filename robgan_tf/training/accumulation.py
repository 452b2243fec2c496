"""Batches that do not fit in memory: a function of a batch, computed in parts, one part after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf


def over_parts(function: Callable, tensors: Sequence[tf.Tensor], parts: int):
    """Returns `function(*tensors)`, computed on `parts` equal parts of the batch in turn.

    The memory is that of one part. The result is that of the whole batch, but for the rounding of sums, if the images
    of a batch have no part in each other's results: there must be no batch norm in training within `function`. It may
    assign nothing, and must make no use of the other replicas: it runs in a loop.

    Args:
        function: of tensors [b, ...]; returns a pair of nested structures: of tensors [b, ...] with a row for each
            image, and of tensors that are sums over the images.
        tensors: [B, ...] each, with a static B that `parts` divides.
        parts: number of parts; 1 calls `function` as it is.
    """
    if parts == 1:
        return function(*tensors)
    pieces = [tf.reshape(tensor, [parts, tensor.shape[0] // parts, *tensor.shape[1:]]) for tensor in tensors]

    def compute(index):
        per_image, sums = function(*(tf.gather(piece, index) for piece in pieces))
        return per_image, tf.nest.map_structure(tf.convert_to_tensor, sums)

    # Not tf.map_fn: it would stack the sums, which are as large as all weights of a network, of all parts.
    per_image, sums = compute(0)
    arrays = tf.nest.map_structure(lambda values: tf.TensorArray(values.dtype, parts).write(0, values), per_image)

    def step(index, arrays, sums):
        per_image, added = compute(index)
        arrays = tf.nest.map_structure(lambda array, values: array.write(index, values), arrays, per_image)
        return index + 1, arrays, tf.nest.map_structure(tf.add, sums, added)

    _, arrays, sums = tf.while_loop(
        lambda index, *_: index < parts, step, (1, arrays, sums), parallel_iterations=1, maximum_iterations=parts - 1
    )
    joined = tf.nest.map_structure(
        lambda array, values: tf.ensure_shape(array.concat(), [parts * values.shape[0], *values.shape[1:]]),
        arrays,
        per_image,
    )
    return joined, sums
