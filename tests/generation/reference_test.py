"""Statistics of real images that are kept: read again, or refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.generation.extractors import Extractor
from robgan_tf.generation.image_sources import StoredImages
from robgan_tf.generation.reference import reference_statistics


@pytest.fixture
def statistics(digits, tmp_path):
    """Makes or reads the statistics of 200 digits, and the number of batches that the extractor saw."""

    def make(data=digits, checksum="a" * 64, count=200, folder=tmp_path / "kept"):
        calls = []

        def network(images):
            tf.py_function(lambda: calls.append(1), [], [])
            features = tf.reshape(images, [-1, 64])[:, 20:28]
            return features, features

        extractor = Extractor(network, "pixels", checksum)
        images = StoredImages(data.train, 0, {"split": "train"})
        return reference_statistics(extractor, images, data, count, 50, 2, 0, 100, folder), len(calls)

    return make


def test_the_second_time_they_are_read(statistics, tmp_path):
    made, batches = statistics()
    again, none = statistics()
    assert (batches, none) == (2, 0)
    for name, value in dataclasses.asdict(made).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    (file,) = (tmp_path / "kept").iterdir()
    assert file.name == "small_digits_train_8_200_50_0_aaaaaaaaaaaa.npz"


def test_another_extractor_or_count_has_a_file_of_its_own(statistics, tmp_path):
    statistics()
    assert statistics(checksum="b" * 64)[1] == 2 and statistics(count=100)[1] == 1
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_other_images_under_the_same_name_are_refused(statistics, digits):
    statistics()
    train = digits.train.select(np.arange(1000))
    with pytest.raises(ValueError, match=r"made from something else: available is 1297 there and 1000 here; images is"):
        statistics(data=dataclasses.replace(digits, train=train))


def test_a_file_of_another_extractor_put_in_its_place_is_refused(statistics, tmp_path):
    statistics()
    (file,) = (tmp_path / "kept").iterdir()
    file.rename(file.with_name(file.name.replace("a" * 12, "b" * 12)))
    with pytest.raises(ValueError, match=f"extractor is '{'a' * 64}' there and '{'b' * 64}' here"):
        statistics(checksum="b" * 64)


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2]])
def test_a_damaged_file_is_named(statistics, tmp_path, damage):
    statistics()
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="holds no statistics of features: delete it"):
        statistics()
