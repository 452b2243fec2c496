import pathlib
import subprocess
import sys

import numpy as np
import pytest

from robgan_tf.data.sources.digits import prepared_digits
from robgan_tf.data.sources.tfds_images import digits

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def data(data_dir):
    return digits(data_dir=data_dir)


def test_digits_have_ten_classes_and_every_image_of_scikit_learn(data):
    assert data.class_names == tuple("0123456789") and data.num_classes == 10
    assert data.image_shape == (16, 16, 1)
    assert (len(data.train), len(data.validation), len(data.test)) == (1287, 150, 360)


@pytest.mark.parametrize("split, share", [("test", 0.2), ("validation", 150 / 1797)])
def test_every_split_has_the_class_proportions_of_the_whole(data, split, share):
    everything = sum(np.bincount(getattr(data, name).labels) for name in ("train", "validation", "test"))
    assert np.abs(np.bincount(getattr(data, split).labels) - share * everything).max() <= 1


def test_stored_pixels_are_scikit_learns_scaled_to_255(data_dir):
    from sklearn.datasets import load_digits

    stored = digits(data_dir=data_dir, image_size=8, validation_examples=0)
    images = np.concatenate([stored.train.images, stored.test.images])
    expected = np.round(load_digits().images[..., None] * 255 / 16).astype(np.uint8)
    assert images.max() == 255
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in expected)


def test_images_of_train_and_test_are_bright_on_dark_at_any_size(data_dir):
    large = digits(data_dir=data_dir, image_size=32)
    assert large.image_shape == (32, 32, 1)
    assert large.train.images[:, 0, 0].mean() < 10 < 50 < large.train.images[:, 12:20, 12:20].mean()


def test_processes_that_start_at_once_prepare_one_readable_set_in_silence(tmp_path):
    code = f"from robgan_tf.data.sources.tfds_images import digits; assert len(digits({str(tmp_path)!r}).test) == 360"
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "", "HOME": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert [output for output, _ in outputs] == ["", "", ""]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_a_folder_that_can_not_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="give a writable data_dir") as caught:
        prepared_digits(str(tmp_path / "file"))
    assert "\n" not in str(caught.value)


def test_fewer_training_images_become_test_images_and_none_is_lost_or_in_two_splits(data, data_dir):
    few = digits(data_dir=data_dir, train_examples=250)
    assert (len(few.train), len(few.validation), len(few.test)) == (100, 150, 1547)
    splits = {name: getattr(few, name) for name in ("train", "validation", "test")}
    for split in splits.values():
        share = np.bincount(split.labels) / len(split)
        np.testing.assert_allclose(share, np.bincount(data.test.labels) / 360, atol=0.02)

    def count(of):
        splits = [getattr(of, name) for name in ("train", "validation", "test")]
        return sorted((image.tobytes(), label) for split in splits for image, label in zip(split.images, split.labels))

    assert count(few) == count(data)
    np.testing.assert_array_equal(few.test.images[:360], data.test.images)
    again = digits(data_dir=data_dir, train_examples=250, seed=1)  # chooses other images for validation alone
    np.testing.assert_array_equal(again.test.images, few.test.images)
    assert again.validation.images.tobytes() != few.validation.images.tobytes()


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1438, r"digits: train_examples must be within 1..1437, or None for all, got 1438"),
        (0, "digits.train_examples"),
        (120, "digits: validation_examples must be within"),
    ],
)
def test_a_number_of_training_images_that_is_not_there_is_refused(count, message, data_dir):
    with pytest.raises(ValueError, match=message):
        digits(data_dir=data_dir, train_examples=count)
