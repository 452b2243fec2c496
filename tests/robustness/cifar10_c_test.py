"""CIFAR-10-C: a few images, prepared by tensorflow-datasets under the names and with the features of the real set."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.expected import MissingDataError
from robgan_tf.data.sources.cifar10_c import CIFAR10C, CORRUPTIONS, NAME
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness.cifar10_c import cifar10_c_accuracy
from robgan_tf.robustness.corruptions import corruption_accuracy
from robgan_tf.robustness.evaluation import RobustnessEvaluation

COUNT = 20
# Of each severity so many of the images have another class's brightness.
WRONG = {"fog": (0, 2, 4, 6, 8), "jpeg_compression": (1, 1, 1, 1, 20)}


def images_of(corruption, severity):
    """Images of a single value, 25 times their class, or the next one where they are spoilt; and the classes."""
    labels = np.arange(COUNT) % 10
    seen = np.where(np.arange(COUNT) < WRONG[corruption][severity - 1], (labels + 1) % 10, labels)
    return np.broadcast_to((25 * seen)[:, None, None, None], [COUNT, 32, 32, 3]).astype(np.uint8), labels


def by_brightness(images):
    """Logits of ten classes: the nearest brightness wins."""
    levels = 25 * tf.range(10, dtype=tf.float32) / 127.5 - 1
    return -tf.abs(tf.reduce_mean(images, [1, 2, 3])[:, tf.newaxis] - levels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two of the corruptions, prepared by the real builder but for where its images come from."""

    class Few(tfds.builder_cls(NAME), skip_registration=True):
        name = NAME

        def _split_generators(self, dl_manager):
            return [tfds.core.SplitGenerator(name="test", gen_kwargs={"data_dir": None})]

        def _generate_examples(self, data_dir):
            images, labels = images_of(self.builder_config.corruption, self.builder_config.severity)
            for place, (image, label) in enumerate(zip(images, labels)):
                yield place, {"image": image, "label": label}

    tfds.disable_progress_bar()
    path = tmp_path_factory.mktemp("tfds")
    for corruption in WRONG:
        for severity in range(1, 6):
            Few(config=f"{corruption}_{severity}", data_dir=path).download_and_prepare()
    return str(path)


@pytest.fixture(scope="module")
def examples():
    images, labels = images_of("fog", 1)
    return Examples(images, labels.astype(np.int32))


def test_accuracy_is_that_of_the_prepared_images_at_each_severity(folder, examples):
    found = cifar10_c_accuracy(by_brightness, examples, 8, 0, data_dir=folder, corruptions=tuple(WRONG))
    expected = {name: [1 - wrong / COUNT for wrong in counts] for name, counts in WRONG.items()}
    assert found["by_corruption"] == expected
    assert found["mean"] == pytest.approx(np.mean(list(expected.values())))
    assert (found["name"], found["version"]) == ("CIFAR-10-C", "cifar10_corrupted/1.0.0")
    assert found["examples"] == COUNT


def test_fewer_images_can_be_asked_for(folder, examples):
    options = {"data_dir": folder, "corruptions": ["fog"], "corrupted_examples": 5}
    found = cifar10_c_accuracy(by_brightness, examples, 8, 0, **options)
    assert found["examples"] == 5 and found["by_corruption"]["fog"][0] == 1.0


def test_the_benchmarks_corruptions_are_15_of_the_sets_own():
    known = {name.rsplit("_", 1)[0] for name in tfds.builder_cls(NAME).builder_configs}
    assert len(set(CORRUPTIONS)) == 15 and known - set(CORRUPTIONS) == {
        *("gaussian_blur", "saturate", "spatter", "speckle_noise")
    }


def test_what_is_not_prepared_is_told_in_one_line_before_any_attack(folder, examples):
    data = ImageData("cifar10", tuple("0123456789"), examples, examples, examples)
    evaluation = RobustnessEvaluation(
        [PGD(LInf(0.1), 5, relative_step_size=0.5)],
        (0.0, 0.1),
        corruptions=lambda *given: cifar10_c_accuracy(*given, data_dir=folder),
    )
    lines = []
    with pytest.raises(
        MissingDataError, match="65 of 75 configurations are not prepared in .*gaussian_noise_1: run "
    ) as e:
        evaluation(by_brightness, data, lines.append)
    assert str(e.value).splitlines()[0].endswith("to where they are.") and not lines  # gin adds where it was called


@pytest.mark.parametrize(
    "corruptions, message", [(["smog"], "some of brightness, .*got \\['smog'\\]"), ((), "corruptions must be some of")]
)
def test_unknown_corruptions_are_refused(corruptions, message):
    with pytest.raises(ValueError, match=message):
        CIFAR10C(None, corruptions)


def test_other_classifiers_are_refused():
    small = Examples(np.zeros([2, 8, 8, 3], np.uint8), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="this one has 10 of 8 x 8 x 3: take @corruption_accuracy"):
        cifar10_c_accuracy(by_brightness, small, 2, 0)


def test_our_own_corruptions_have_another_name(examples):
    assert corruption_accuracy(by_brightness, examples, 20, 0)["name"] == "corruptions of robgan_tf"
