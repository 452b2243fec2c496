import numpy as np
import pytest
import tensorflow_datasets as tfds

from robgan_tf.data.preparation import writing
from robgan_tf.data.preparation.sources import TfdsSet
from robgan_tf.data.sources.records import tfrecord_images
from robgan_tf.data.sources.tfds_images import digits, tfds_images


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    digits(data_dir=path)
    return path


def first_line(caught):
    """Of the exception's text: gin adds a line that names the configurable."""
    return str(caught.value).split("\n  In call to configurable")[0]


def test_any_prepared_set_is_read_by_name_with_classes_and_sizes_of_choice(digits_dir):
    data = tfds_images("digits", data_dir=digits_dir, image_size=12, class_range=(3, 5), validation_examples=9)
    assert data.class_names == ("3", "4", "5") and data.image_shape == (12, 12, 1)
    assert set(data.test.labels.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="no image of split 'train' of 'digits' is left"):
        tfds_images("digits", data_dir=digits_dir, min_side=9)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(name="digitz"), "knows no 'digitz'; did you mean digits"),
        (dict(name="digits:9.9.9"), "can't use 'digits:9.9.9'"),
        (dict(name="mnist"), r"'mnist' is not prepared in .* \(there: digits\); set tfds_images.download = True"),
        (dict(name="digits", test_split="validation"), "no split 'validation'; it has test, train"),
        (dict(name="digits", test_split="train"), "both 'train'; they must not overlap"),
        (dict(name="digits", memory_limit_gib=1e-5), "1797 images of digits need .* over tfds_images.memory_limit_gib"),
        (
            dict(name="digits", memory_limit_gib=1e-5, class_range=(0, 8)),
            "does not fit in tfds_images.memory_limit_gib",
        ),
        (dict(name="digits", class_range=(8, 10)), r"within 0..9, got \(8, 10\)"),
        (
            dict(name="digits", validation_examples=1437),
            "so that of the 1437 .* each class keeps one",
        ),
        (dict(name="digits", image_size=-1), "tfds_images.image_size must be a whole number >= 1, or None, got"),
    ],
)
def test_a_set_that_can_not_be_used_is_refused_in_one_line(digits_dir, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        tfds_images(**{"data_dir": digits_dir, **settings})
    assert "\n" not in first_line(caught)


def test_cifar10_is_read_as_released(data_dir):
    data = tfds_images("cifar10", data_dir=f"{data_dir}/tfds", train_split="train[:2000]", validation_examples=200)
    assert data.image_shape == (32, 32, 3) and data.class_names[3] == "cat"
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 10000)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


class FourChannels(tfds.core.GeneratorBasedBuilder):
    """Images with transparency, which is half everywhere."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(9, 9, 4)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for number in range(4):
            image = np.full([9, 9, 4], 60 * number, np.uint8)
            image[..., 3] = 128
            yield number, {"image": image, "label": number % 2}


def test_a_set_with_four_channels_is_refused_at_once_and_prepared_as_rgb(tmp_path):
    FourChannels(data_dir=str(tmp_path / "tfds")).download_and_prepare()
    with pytest.raises(
        ValueError, match=r"'four_channels' are uint8 \(9, 9, 4\); .* 3 .RGB. channels: prepare records"
    ):
        tfds_images("four_channels", data_dir=str(tmp_path / "tfds"))
    settings = writing.Settings(image_size=9, classes="all", min_side=0, quality=100, validation_per_class=0)
    writing.prepare(TfdsSet("four_channels", str(tmp_path / "tfds")), tmp_path / "out", settings, 1)
    data = tfrecord_images(str(tmp_path / "out"))
    assert data.image_shape == (9, 9, 3)
    assert sorted(data.test.images[:, 4, 4, 0].tolist()) == [0, 60, 120, 180]
