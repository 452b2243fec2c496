"""Devices, precision and seeds."""

from __future__ import annotations

import contextlib
import functools

import gin
import tensorflow as tf
from absl import logging

from robgan_tf.keras2 import keras
from robgan_tf.run.workers import cluster_size
from robgan_tf.values import checked, one_of, switch, whole

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


# Its seed is that of the experiment: one that gin bound here would do nothing.
@gin.configurable(denylist=["seed"])
@checked(seed=whole(0), precision=one_of(*PRECISIONS), deterministic=switch(), replicas=whole(0))
def configure(
    seed: int = 0, precision: str = "float32", deterministic: bool = False, replicas: int = 0, tpu: str | None = None
):
    """Sets up TensorFlow for a run and returns the distribution strategy to build and train everything under.

    Where the environment has a TF_CONFIG with several workers, this process is one of them, and the strategy spans the
    GPUs of all. On one machine it spans its GPUs.

    Args:
        seed: seed of the initial weights; noise, data and attacks take seeds of their own.
        precision: "float32", "mixed_bfloat16" or "mixed_float16": of activations; variables are always float32.
        deterministic: whether to use deterministic (on GPUs slower) kernels.
        replicas: number of replicas; 0 for one on each GPU, or one where there is none. On a machine without GPUs more
            than one means that many logical CPU devices, to try out the code of several replicas. With several workers
            it must be 0.
        tpu: name or address of a TPU, "local" on a TPU machine; None for none.

    Raises:
        ValueError: for an unknown precision, more replicas than there are devices, a TF_CONFIG that can't be used, or
            settings that contradict each other.
    """
    several_workers = cluster_size() > 1
    if several_workers + (tpu is not None) + (replicas > 0) > 1:
        raise ValueError(
            f"Several workers (TF_CONFIG is {'set' if several_workers else 'not set'}), configure.tpu = {tpu!r} and "
            f"configure.replicas = {replicas} exclude each other: choose one of them."
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.get_visible_devices("GPU")
    _take_memory_as_needed(gpus)
    if gpus and replicas > len(gpus):
        raise ValueError(f"configure.replicas is {replicas}, this machine has {len(gpus)} GPUs; 0 takes all of them.")
    if several_workers:
        strategy = across_workers()  # before anything else runs on a device
    elif tpu is not None:
        strategy = _tpu_strategy(tpu)
    else:
        devices = [f"GPU:{index}" for index in range(replicas or len(gpus))] if gpus else _cpus(max(replicas, 1))
        strategy = mirrored(tuple(devices)) if len(devices) > 1 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_global_policy(precision)
    return strategy


def _take_memory_as_needed(gpus: list):
    """Lets other processes have what of the GPUs' memory this one does not need."""
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:  # whoever used TensorFlow before, in this process, has set them up
        logging.warning("the memory of the GPUs is taken as it was set up before (%s)", error)


@functools.cache
def across_workers() -> tf.distribute.MultiWorkerMirroredStrategy:
    """Returns the strategy over the workers that TF_CONFIG names, the same one at each call; waits for all of them."""
    print(f"waiting for the {cluster_size()} workers of TF_CONFIG", flush=True)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu_strategy(tpu: str) -> tf.distribute.TPUStrategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"configure.tpu = {tpu!r} can't be reached: {str(error).splitlines()[0]}") from error
    return tf.distribute.TPUStrategy(resolver)


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Returns the strategy over `devices`, the same one at each call.

    Each strategy numbers its collective operations from the start, and two of the same devices in one process would
    take each other's for their own ("Shape mismatch in the collective instance").
    """
    return tf.distribute.MirroredStrategy(list(devices))


def _cpus(count: int) -> list[str]:
    """Returns the names of `count` logical CPU devices, made of the first physical one where there are too few."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    # Asked like this, since to list the logical devices would fix their number.
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return [f"CPU:{index}" for index in range(count)]


@contextlib.contextmanager
def precision(name: str):
    """Makes the networks built within compute in precision `name`."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
