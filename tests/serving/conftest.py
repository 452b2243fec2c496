"""A served model for the tests of the wire: an export of a small network, in two versions, behind a server."""

import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.serving import saved_model

ROOT = pathlib.Path(__file__).parents[2]
for folder in ("tests/serving", "tools/serving"):
    sys.path.insert(0, str(ROOT / folder))

IMAGE_SHAPE = (12, 12, 3)
CLASS_NAMES = ("cat", "dog", "Wölfe")
MODEL = "robgan"


@pytest.fixture(scope="session")
def make_export():
    """A function that exports the next version of a small network, averaging over its pixels, into a folder."""

    def make(root, seed=0, options=None, image_shape=IMAGE_SHAPE, about=None):
        keras.utils.set_random_seed(seed)
        network = keras.Sequential(
            [
                keras.layers.Conv2D(8, 3, activation="relu", input_shape=image_shape),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(len(CLASS_NAMES), kernel_initializer=keras.initializers.RandomNormal(stddev=5.0)),
            ]
        )
        return saved_model.export_classifier(
            lambda images: network(images, training=False),
            network.variables,
            image_shape=image_shape,
            class_names=CLASS_NAMES,
            export_root=str(root),
            check_images=np.random.default_rng(0).integers(0, 256, [4, *image_shape], np.uint8),
            options=options,
            about=about,
        )

    return make


@pytest.fixture(scope="session")
def export_root(make_export, tmp_path_factory):
    """A folder with versions 1 and 2, of different weights."""
    root = tmp_path_factory.mktemp("served") / "export"
    make_export(root, seed=0)
    make_export(root, seed=1)
    return root


@pytest.fixture(scope="session")
def loaded(export_root):
    """What `tf.saved_model.load` makes of both versions, by number."""
    return {version: tf.saved_model.load(str(export_root / str(version))) for version in (1, 2)}


CONFIG = """
model_config_list {{ config {{
  name: "{model}" base_path: "{root}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
}} }}
"""


@pytest.fixture(scope="session", params=["conformance_server", "tensorflow_model_server"])
def server(request, export_root, tmp_path_factory):
    """`rest` and `grpc`: where the model is served, by the conformance server and, where there is one, the real one."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
    import conformance_server

    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(CONFIG.format(model=MODEL, root=export_root))
    if request.param == "conformance_server":
        started = conformance_server.Server(conformance_server.Models(conformance_server.read_config(config), True))
        yield types.SimpleNamespace(rest=f"http://127.0.0.1:{started.rest_api_port}", grpc=f"127.0.0.1:{started.port}")
        started.stop()
        return
    if not shutil.which("tensorflow_model_server"):
        pytest.skip("tensorflow_model_server is not on the PATH: only the conformance server was run")
    port, rest_port = conformance_server.free_port(), conformance_server.free_port()
    process = subprocess.Popen(
        [
            "tensorflow_model_server",
            f"--port={port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models=true",
        ]
    )
    address = types.SimpleNamespace(rest=f"http://127.0.0.1:{rest_port}", grpc=f"127.0.0.1:{port}")
    conformance_server.wait_for(f"{address.rest}/v1/models/{MODEL}")
    yield address
    process.terminate()
    process.wait(timeout=30)
