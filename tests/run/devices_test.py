"""Strategy, precision and seeds."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.run import devices


def test_one_replica_needs_no_mirroring_and_two_get_it():
    assert devices.configure().num_replicas_in_sync == 1
    strategy = devices.configure(replicas=2)
    assert isinstance(strategy, tf.distribute.MirroredStrategy) and strategy.num_replicas_in_sync == 2


def test_precision_is_set_and_a_typo_named_with_what_is_allowed():
    devices.configure(precision="mixed_bfloat16")
    assert keras.mixed_precision.global_policy().compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match="one of float32, mixed_bfloat16, mixed_float16, got 'bf16'"):
        devices.configure(precision="bf16")


def test_precision_within_a_block_ends_with_it():
    devices.configure(precision="mixed_bfloat16")
    with devices.precision("float32"):
        assert keras.mixed_precision.global_policy().name == "float32"
    assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"


def test_the_seed_decides_the_initial_weights():
    def kernel(seed):
        devices.configure(seed=seed)
        layer = keras.layers.Dense(3)
        layer.build([1, 4])
        return layer.kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Physical devices cannot be modified after being initialized"), ValueError("virtual devices")],
)
def test_gpus_that_were_set_up_before_are_used_as_they_are(monkeypatch, caplog, error):
    """There is no GPU here: what TensorFlow says of one is put in its place."""

    def refuse(gpu, enable):
        raise error

    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    assert devices.configure().num_replicas_in_sync == 1
    assert str(error) in caplog.text
