"""Keras 2, which the project is written for: TensorFlow's own up to 2.15, tf-keras where TensorFlow is newer.

The only module that imports Keras. It needs no environment variable, and works where Keras 3 was imported before.
"""

from __future__ import annotations

import importlib

import tensorflow as tf

_OLDEST, _FIRST_WITH_KERAS_3 = (2, 15), (2, 16)


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _find_keras(tensorflow_version: str):
    """Returns the module of Keras 2 that goes with a TensorFlow.

    Raises:
        ImportError: for a TensorFlow that is too old, or a tf-keras that is missing or of another minor version; the
            message says what to install.
    """
    found = _minor(tensorflow_version)
    if found < _OLDEST:
        raise ImportError(
            f"robgan_tf needs TensorFlow 2.15 to 2.21, found {tensorflow_version}: pip install 'tensorflow~=2.15.1' "
            f"(Python 3.9 to 3.11), or 'tensorflow~=2.21.0' 'tf-keras~=2.21.0' (Python 3.10 to 3.13).",
            name="tensorflow",
        )
    if found < _FIRST_WITH_KERAS_3:
        return importlib.import_module("tensorflow").keras
    needed = f"pip install 'tf-keras~={found[0]}.{found[1]}.0'"
    try:
        tf_keras = importlib.import_module("tf_keras")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"TensorFlow {tensorflow_version} comes with Keras 3, and robgan_tf needs Keras 2: {needed}.",
            name="tf_keras",
        ) from error
    if _minor(tf_keras.__version__) != found:
        raise ImportError(
            f"tf-keras {tf_keras.__version__} does not go with TensorFlow {tensorflow_version}: {needed}.",
            name="tf_keras",
        )
    return tf_keras


keras = _find_keras(tf.__version__)

__all__ = ["keras"]
