"""What all tests share: two logical devices, a clean slate for each test, small networks."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported

import gin
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras

# Two logical devices, for the tests of several replicas. Only possible before TensorFlow has made its first tensor.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def clean_slate():
    """No gin bindings, float32 and the same random numbers at the start of each test, whichever ran before."""
    gin.clear_config(clear_constants=False)
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    # After it too: fixtures of a module or a session are set up before the lines above.
    gin.clear_config(clear_constants=False)
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def data_dir():
    """The folder of prepared data sets."""
    folder = os.environ.get("ROBGAN_DATA_DIR")
    if not folder:
        pytest.skip("ROBGAN_DATA_DIR is unset: no prepared data sets at hand")
    return folder


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two replicas, on the two logical devices."""
    from robgan_tf.run.devices import mirrored

    return mirrored(("CPU:0", "CPU:1"))


@pytest.fixture
def make_generator():
    """Makes a generator of 8 px images, of width 8 and 4."""
    from robgan_tf.players.generator import Generator

    def make(num_classes=3, image_shape=(8, 8, 3), **options):
        options = {"base_width": 4, "multipliers": (2, 1), "upsample": (True,), "latent_dim": 6, **options}
        return Generator(num_classes, image_shape, **options)

    return make


@pytest.fixture
def make_discriminator():
    """Makes a discriminator of 8 px images, of width 4 and 8."""
    from robgan_tf.players.discriminator import Discriminator

    def make(num_classes=3, image_shape=(8, 8, 3), **options):
        options = {"base_width": 4, "multipliers": (1, 2, 2), "downsample": (True, False, False), **options}
        return Discriminator(num_classes, image_shape, **options)

    return make
