"""One file of several: unpacked, labelled, and the images that a classifier is surest of."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.preparation.samples import most_confident_rows, prepare_samples
from robgan_tf.data.sources.sample_files import read_samples

IMAGES = np.random.default_rng(0).integers(0, 256, [30, 4, 4, 1], np.uint8)
IMAGES[:, 0, 0, 0] = np.random.default_rng(1).permutation(30) * 8  # no two are equally sure


def logits(images):
    """Two classes: log-odds are the first pixel's distance from the middle."""
    first = images[:, 0, 0, 0].astype(np.float32) / 10
    return np.stack([first, np.full_like(first, 12.75)], axis=1)


FOUND = logits(IMAGES).argmax(axis=1)


@pytest.fixture
def file(tmp_path):
    def make(name="in.npz", save=np.savez, images=IMAGES, labels=None):
        save(tmp_path / name, image=images, **({} if labels is None else {"label": labels}))
        return str(tmp_path / name)

    return make


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("robgan_tf.data.preparation.samples.BATCH", 7)


def test_compressed_files_are_unpacked_and_joined_in_their_order(file, tmp_path):
    one = file("a.npz", np.savez_compressed, IMAGES[:20], np.arange(20) % 3)
    two = file("b.npz", np.savez, IMAGES[20:], np.arange(10) % 2)
    written = prepare_samples([one, two], str(tmp_path / "out.npz"))
    examples = read_samples(str(tmp_path / "out.npz"), 3)
    np.testing.assert_array_equal(examples.images, IMAGES)
    np.testing.assert_array_equal(examples.labels, [*np.arange(20) % 3, *np.arange(10) % 2])
    assert (written.counts, written.confidence, written.predicted) == ([12, 12, 6], None, 0)


def test_images_without_labels_get_the_classifiers(file, tmp_path):
    given = 1 - FOUND[:10]
    paths = [file("a.npz", images=IMAGES[:10], labels=given), file("b.npz", images=IMAGES[10:])]
    written = prepare_samples(paths, str(tmp_path / "out.npz"), logits)
    examples = read_samples(str(tmp_path / "out.npz"), 2)
    np.testing.assert_array_equal(examples.labels, [*given, *FOUND[10:]])
    assert written.predicted == 20 and sum(written.counts) == 30


def test_of_each_class_the_images_that_the_classifier_is_surest_of_stay(file, tmp_path):
    written = prepare_samples([file()], str(tmp_path / "out.npz"), logits, most_confident=5)
    odds = logits(IMAGES)[:, 0] - 12.75
    sorted_rows = np.argsort(odds)
    expected = np.sort([*sorted_rows[:5], *sorted_rows[-5:]])  # class 1 has the lowest, class 0 the highest
    examples = read_samples(str(tmp_path / "out.npz"), 2)
    np.testing.assert_array_equal(examples.images, IMAGES[expected])
    np.testing.assert_array_equal(examples.labels, FOUND[expected])
    sure = 1 / (1 + np.exp(-np.abs(odds[expected])))
    np.testing.assert_allclose(written.confidence, [sure.min(), sure.max()])
    assert written.counts == [5, 5] and written.predicted == 10


def test_given_labels_count_where_images_are_chosen(file, tmp_path):
    # All of one class: the surest are those with the highest probability of the label, right or wrong.
    prepare_samples([file(labels=np.r_[np.ones(29, int), 0])], str(tmp_path / "out.npz"), logits, most_confident=1)
    examples = read_samples(str(tmp_path / "out.npz"), 2)
    (darkest, last), labels = examples.images, examples.labels
    assert darkest[0, 0, 0] == IMAGES[:29, 0, 0, 0].min() and list(labels) == [1, 0]
    np.testing.assert_array_equal(last, IMAGES[29])


def test_of_equally_sure_ones_the_first_stay():
    labels, sure = np.array([0, 1, 0, 1, 0]), np.array([0.5, 0.9, 0.5, 0.9, 0.6])
    assert list(most_confident_rows(labels, sure, 2, 1)) == [1, 4]
    assert list(most_confident_rows(labels, sure, 2, 2)) == [0, 1, 3, 4]


def test_what_can_not_be_done_is_said_and_nothing_written(file, tmp_path):
    labelled, unlabelled = file("a.npz", labels=FOUND), file("b.npz")
    other_size = file("c.npz", images=np.zeros([3, 5, 5, 1], np.uint8), labels=np.zeros(3, int))
    three_classes = file("d.npz", labels=np.arange(30) % 3)
    out = str(tmp_path / "out.npz")
    for paths, options, message in [
        ([unlabelled], {}, "b.npz has no labels: name a classifier"),
        ([labelled], {"most_confident": 3}, "most_confident needs a classifier"),
        ([labelled, other_size], {}, r"c.npz: images are of shape \(5, 5, 1\), those of .*a.npz \(4, 4, 1\)"),
        ([three_classes], {"logits": logits}, "d.npz: labels are up to 2, the classifier has the classes 0 to 1"),
        ([unlabelled], {"logits": logits, "most_confident": 28}, "most_confident=28 is more than there are: class ."),
    ]:
        with pytest.raises(ValueError, match=message):
            prepare_samples(paths, out, **options)
        assert not os.path.exists(out)
    with pytest.raises(ValueError, match="is one of the files to read"):
        prepare_samples([labelled], labelled)
    with pytest.raises(ValueError, match="must name an .npz file"):
        prepare_samples([labelled], str(tmp_path / "folder"))


@pytest.mark.slow  # starts TensorFlow anew for each command
def test_the_command_labels_by_a_saved_model_and_answers_in_one_line(file, tmp_path):
    classifier = tf.Module()
    classifier.logits = tf.function(
        lambda images: tf.stack([images[:, 0, 0, 0], tf.zeros_like(images[:, 0, 0, 0])], axis=1),
        [tf.TensorSpec([None, 4, 4, 1])],
    )
    tf.saved_model.save(classifier, str(tmp_path / "model"))
    small = file("small.npz", images=np.zeros([3, 2, 2, 1], np.uint8))

    def command(*flags):
        line = [sys.executable, "-m", "robgan_tf.prepare", f"--out={tmp_path}/out.npz", *flags]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    model = f"--classifier={tmp_path}/model"
    done = command(f"--samples={file()}", model, "--most_confident=5")
    assert done.returncode == 0, done.stderr
    assert "class 0: 5 images\nclass 1: 5 images\nwrote" in done.stdout and "10 of them labelled" in done.stdout
    assert len(read_samples(str(tmp_path / "out.npz"), 2)) == 10
    unpacked = command(f"--samples={file('labelled.npz', np.savez_compressed, labels=FOUND)}")
    assert unpacked.returncode == 0 and unpacked.stdout.endswith("out.npz: 30 images\n"), unpacked.stderr
    for flags, message in [
        ([f"--samples={small}", model], "takes no images of 2x2x1"),
        ([f"--samples={small}"], "has no labels"),
        (["--samples=missing.npz"], "missing.npz can't be read (No such file or directory)"),
        ([f"--samples={small}", "--classifier=nowhere"], "nowhere is not an exported model"),
    ]:
        failed = command(*flags)
        assert failed.returncode == 2 and message in failed.stderr, failed.stderr
        # Newer TensorFlow writes lines of its own before.
        assert failed.stderr.splitlines()[-1].startswith("error: "), failed.stderr
        assert failed.stderr.count("error: ") == 1 and "Traceback" not in failed.stderr, failed.stderr
