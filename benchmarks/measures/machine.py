"""What figures depend on: processor, devices, versions, load."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "gin-config")
PEERS = ("torch", "jax", "foolbox", "adversarial-robustness-toolbox")


def machine() -> dict:
    """Returns what the figures depend on."""
    from robgan_tf.run.machine import machine

    flags = re.search(r"^flags\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    found = flags.group(1).split() if flags else []
    return {
        **machine(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in found],
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in (*PACKAGES, *filter(is_there, PEERS))},
    }


def is_there(package: str) -> bool:
    """Whether a package is installed."""
    try:
        importlib.metadata.version(package)
        return True
    except importlib.metadata.PackageNotFoundError:
        return False
