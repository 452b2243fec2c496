"""The diversity of generated images, and that of real ones to compare it with."""

import types

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.run.directory import RunDirectory
from robgan_tf.training.samples import SampleGrids


def diversities(tmp_path, validation_images):
    """What is measured of a generator of grey images; half of the real ones are black, half white."""
    images = np.zeros([validation_images, 4, 4, 1], np.uint8)
    images[::2] = 255
    labels = np.repeat(np.arange(2), validation_images // 2).astype(np.int32)
    examples = Examples(images, labels)

    def generator(inputs, training):
        return tf.zeros([len(inputs[0]), 4, 4, 1])

    generator.latent_dim = 3
    stage = types.SimpleNamespace(
        average_generator=generator, attacker=None, attack=None, standardize_average_generator=lambda batches: None
    )
    data = ImageData("black and white", ("first", "second"), examples, examples, examples)
    return SampleGrids(stage, data, RunDirectory(tmp_path), seed=0).write(step=1)


def test_real_images_are_measured_as_generated_ones_are(tmp_path):
    assert diversities(tmp_path, 16) == {"diversity": 0.0, "real_diversity": pytest.approx(1.0)}
    assert (tmp_path / "samples/generated_0000001.png").exists()


def test_with_fewer_validation_images_than_generated_ones_there_is_nothing_to_compare(tmp_path):
    assert set(diversities(tmp_path, 14)) == {"diversity"}
