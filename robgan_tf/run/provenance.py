"""How a report was made: versions of the libraries, and the commit of the code."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess

from robgan_tf.keras2 import keras

_LIBRARIES = ("robgan_tf", "tensorflow", "numpy")


def provenance() -> dict:
    """Returns `versions` of Python and libraries, and `git_commit` of the checkout; None where that is unknown."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:  # run from a folder, without installation
            versions[library] = None
    # The one that is used, "keras" or "tf_keras"; Keras 3 may be installed beside the latter.
    versions["keras"] = importlib.metadata.version(keras.__name__.split(".")[0])
    return {"versions": versions, "git_commit": git_commit()}


def git_commit() -> str | None:
    """Returns the commit of the checkout, with "-dirty" where files differ from it; None where there is none."""
    folder = str(pathlib.Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
