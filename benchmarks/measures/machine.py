"""What figures depend on: processor, devices, versions, load, commit."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "gin-config")
PEERS = ("torch", "foolbox", "adversarial-robustness-toolbox")


def machine() -> dict:
    """Returns what the figures depend on."""
    import tensorflow as tf

    lines = [line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    cpu = {key.strip(): value.strip() for key, value in lines}
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cores": cores(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in cpu.get("flags", "").split()],
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in (*PACKAGES, *filter(is_there, PEERS))},
    }


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def is_there(package: str) -> bool:
    """Whether a package is installed."""
    try:
        importlib.metadata.version(package)
        return True
    except importlib.metadata.PackageNotFoundError:
        return False


def git_commit() -> str | None:
    """Returns the repository's commit, with "-dirty" where files differ from it; None where there is none."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
