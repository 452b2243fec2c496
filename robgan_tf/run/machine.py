"""The machine and the memory of this process."""

from __future__ import annotations

import os
import pathlib
import platform
import resource
import sys

import tensorflow as tf

from robgan_tf.data.pipelines import cores


def machine() -> dict:
    """Returns what a run's speed depends on: processor, cores that the process may use, memory, GPUs, system."""
    cpu = platform.processor()
    memory = None
    if sys.platform == "linux":
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "cpu": cpu,
        "cores": cores(),
        "memory_gib": memory,
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
        "system": platform.platform(),
    }


def memory_in_use() -> dict:
    """Returns `memory_mib`, the resident memory of this process, and the peak of its first GPU, `gpu_memory_mib`."""
    if sys.platform == "linux":
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        used = {"memory_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)}
    else:  # its peak, which macOS counts in bytes
        used = {"memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)}
    if tf.config.list_logical_devices("GPU"):
        try:
            used["gpu_memory_mib"] = round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20, 1)
        except (ValueError, tf.errors.OpError):  # devices of plug-ins need not keep account
            pass
    return used
