"""Batches that other machines make: tf.data services, for where the trainer's own processors are too slow.

A batch stays a function of (seed, step): every service makes a fixed part of the rows of each one, and the trainer puts
the parts together. So it does not matter how many there are, and a run may go on with more, fewer or none.
`tools/data_service.py` starts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from robgan_tf.data import pipelines

_service = tf.data.experimental.service


def served_batches(
    make: Callable[[int, int], tf.data.Dataset], services: Sequence[str], workers: int = 1, worker: int = 0
) -> tf.data.Dataset:
    """Returns the `worker`-th of `workers` parts of every batch, made by `services`; by this process if there are none.

    Args:
        make: (count, index) -> dataset of the `index`-th of `count` parts of every batch.
        services: addresses of tf.data services, "grpc://host:port", of one tf.data worker each. They need the same
            files at the same paths.
        workers: how many processes share each batch.
        worker: which of them this is, from 0.
    """
    if not services:
        return make(workers, worker)
    parts = []
    for number, address in enumerate(services):
        part = make(workers * len(services), worker * len(services) + number)
        # OFF: a service makes the whole dataset that it is given; what is given to each is its part.
        parts.append(part.apply(_service.distribute(_service.ShardingPolicy.OFF, address)))
    batches = tf.data.Dataset.zip(tuple(parts))
    batches = batches.map(lambda *parts: tuple(tf.concat(tensors, axis=0) for tensors in zip(*parts)))
    return batches.with_options(pipelines.options()).prefetch(2)  # those of the parts went to the services
