"""What all tests share: two logical devices, a clean slate for each test, small networks."""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))  # they are scripts, not a package
from broken import networks  # noqa: E402

# The number of threads decides into how many parts a sum is cut, and so how it is rounded. The golden runs were made
# with two; on machines with one core or sixteen they are repeated with two as well.
tf.config.threading.set_intra_op_parallelism_threads(2)
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
def tfgan():
    """TF-GAN, an independent implementation of scores and distances; it imports on no TensorFlow newer than 2.15."""
    if tuple(map(int, tf.__version__.split(".")[:2])) > (2, 15):
        pytest.skip("tensorflow-gan runs on TensorFlow 2.15 alone")
    return pytest.importorskip("tensorflow_gan")


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


# ---- a small classifier of real digits, adversarially trained in seconds


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits at 8 px, 1,297 for training and 500 for the test."""
    return networks.digits()


@pytest.fixture(scope="session")
def honest(digits):
    """Logits of a network with two layers, trained against PGD at epsilon 0.2."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, activation="relu", padding="same", input_shape=(8, 8, 1)),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu", padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.Adam(3e-3)
    attacker = Attacker(LInf(0.2), 3, relative_step_size=0.5)
    images = tf.constant(digits.train.images / np.float32(127.5) - 1)
    labels = tf.constant(digits.train.labels)

    @tf.function
    def step(rows):
        batch, right = tf.gather(images, rows), tf.gather(labels, rows)
        batch = attacker(batch, lambda images: class_loss(network(images), right))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(class_loss(network(batch), right))
        optimizer.apply_gradients(zip(tape.gradient(loss, network.trainable_variables), network.trainable_variables))

    random = np.random.default_rng(0)
    for _ in range(300):
        step(tf.constant(random.integers(0, len(labels), 64)))
    return lambda images: network(images, training=False)
