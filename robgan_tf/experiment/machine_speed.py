"""What the machine at hand has and gives: memory, arithmetic, images a second."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import tensorflow as tf

from robgan_tf.data import pipelines
from robgan_tf.data.batches import training_batches

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment
    from robgan_tf.training.stage import Stage


def host_memory() -> int | None:
    """Returns the bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_memory() -> int | None:
    """Returns the bytes of memory that other programs leave; all of it where the system does not tell."""
    told = pathlib.Path("/proc/meminfo")
    found = told.exists() and re.search(r"^MemAvailable: *(\d+) kB", told.read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else host_memory()


def gpu_memory(kind: str = "total") -> list[int]:
    """Returns the bytes of memory of each NVIDIA GPU of this machine, as its driver's `nvidia-smi` tells them.

    Args:
        kind: "total", or "free" for what other programs, and this one, leave.
    """
    # TensorFlow tells how much it uses, and not how much there is.
    command = ["nvidia-smi", f"--query-gpu=memory.{kind}", "--format=csv,noheader,nounits"]
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


def reader_rate(experiment: Experiment, stage: Stage, seconds: float = 2.0) -> float:
    """Returns how many training images a second are read and augmented; what comes first, warming up, is left out."""
    iterator = iter(batches_of(experiment, stage))
    for _ in range(3):
        next(iterator)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not count:
        next(iterator)
        count += stage.images_per_step
    return count / (time.perf_counter() - start)


def batches_of(experiment: Experiment, stage: Stage) -> tf.data.Dataset:
    """Returns the batches that a stage trains on, without an end; always the same random images where data are missing.

    Args:
        experiment: all parts.
        stage: one of its stages, or one like it with other batches.
    """
    choices, data = experiment.configuration, experiment.data
    if experiment.missing is not None:
        random = tf.random.Generator.from_seed(0)
        images = random.uniform([stage.images_per_step, *data.image_shape], -1, 1)
        labels = random.uniform([stage.images_per_step], 0, data.num_classes, tf.int32)
        return tf.data.Dataset.from_tensors((images, labels)).repeat().with_options(pipelines.options())
    noise = choices.cotraining_noise if stage.name_of_stage == "cotraining" else 0.0
    options = {"seed": choices.seed, "augment": choices.augment, "noise": noise}
    return training_batches(data.train, stage.images_per_step, steps=10**9, **options).repeat()
