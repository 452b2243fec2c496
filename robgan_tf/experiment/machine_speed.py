"""What the machine at hand has and gives: memory, arithmetic, images a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import tensorflow as tf

from robgan_tf.data.batches import training_batches

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment


def host_memory() -> int | None:
    """Returns the bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def gpu_memory() -> list[int]:
    """Returns the bytes of memory of each NVIDIA GPU of this machine, as its driver's `nvidia-smi` tells them."""
    # TensorFlow tells how much it uses, and not how much there is.
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if shutil.which(command[0]) is None:
        return []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line) * 2**20 for line in result.stdout.split() if line.isdigit()]


def matrix_product_rate(dtype: str, seconds: float = 0.5) -> float:
    """Returns the floating-point operations a second of a large matrix product on the first device."""
    side = 8192 if tf.config.list_logical_devices("GPU") else 1024
    left = tf.cast(tf.random.stateless_uniform([side, side], [0, 0]), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(left, left)), autograph=False)
    product().numpy()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        product().numpy()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)  # the best, since other processes may disturb


def reader_rate(experiment: Experiment, batch_size: int, noise: float, seconds: float = 2.0) -> float:
    """Returns how many training images a second are read and augmented; what comes first, warming up, is left out."""
    batches = training_batches(
        experiment.data.train,
        batch_size,
        steps=10**9,
        seed=experiment.configuration.seed,
        augment=experiment.configuration.augment,
        noise=noise,
    )
    iterator = iter(batches)
    for _ in range(3):
        next(iterator)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not count:
        next(iterator)
        count += batch_size
    return count / (time.perf_counter() - start)
