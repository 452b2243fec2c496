"""Keras 2 beside every TensorFlow, and a line that says what to install where it is missing."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from robgan_tf import keras2

NEWER = tuple(map(int, tf.__version__.split(".")[:2])) > (2, 15)


def test_it_is_keras_2():
    assert issubclass(keras2.keras.Model, tf.Module)  # Keras 3's is none


@pytest.mark.parametrize(
    "tensorflow, tf_keras, message",
    [
        ("2.14.1", None, "needs TensorFlow 2.15 to 2.21, found 2.14.1: pip install 'tensorflow~=2.15.1'"),
        ("2.19.0", None, r"TensorFlow 2.19.0 comes with Keras 3, .* pip install 'tf-keras~=2.19.0'"),
        ("2.21.0", "2.20.1", r"tf-keras 2.20.1 does not go with TensorFlow 2.21.0: pip install 'tf-keras~=2.21.0'"),
    ],
)
def test_what_does_not_go_together_is_named_with_what_to_install(tmp_path, monkeypatch, tensorflow, tf_keras, message):
    for name in [name for name in sys.modules if name.split(".")[0] == "tf_keras"]:
        monkeypatch.delitem(sys.modules, name)
    if tf_keras is None:
        monkeypatch.setitem(sys.modules, "tf_keras", None)  # as where it is not installed
    else:
        (tmp_path / "tf_keras.py").write_text(f"__version__ = '{tf_keras}'")
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=message) as caught:
        keras2._find_keras(tensorflow)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not NEWER, reason="TensorFlow 2.15 has no Keras 3")
@pytest.mark.parametrize("variable", [None, "0", "1"])
def test_a_notebook_that_imported_keras_3_before_is_no_hindrance(variable):
    script = """
import keras
assert keras.__version__.startswith("3.")
keras.layers.Dense(2)
import tensorflow as tf
tf.keras.layers.Dense
from robgan_tf import Generator
network = Generator(3, (8, 8, 3), base_width=4, multipliers=(2, 1), upsample=(True,), latent_dim=6)
print(network((tf.zeros([2, 6]), tf.zeros([2], tf.int32))).shape)
"""

    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    if variable is not None:
        environment["TF_USE_LEGACY_KERAS"] = variable
        script = script.replace("tf.keras.layers.Dense\n", "")
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert answer.stdout.strip() == "(2, 8, 8, 3)", answer.stderr
