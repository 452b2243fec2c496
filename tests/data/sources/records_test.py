import dataclasses
import io
import logging
import os
import pathlib
import re

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.batches import training_batches
from robgan_tf.data.sources import dataset_manifest as _manifest
from robgan_tf.data.sources.records import tfrecord_images

SIZE, CLASSES = 16, 3


def jpeg(image, **settings):
    output = io.BytesIO()
    PIL.Image.fromarray(image).save(output, "JPEG", **settings)
    return output.getvalue()


def pairs(count, seed=0, size=SIZE):
    """Encoded images of noise and their labels: half of class 0, a third of class 1, a sixth of class 2."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    return [(jpeg(image), (0, 0, 0, 1, 1, 2)[number % 6]) for number, image in enumerate(images)]


@pytest.fixture
def folder(write_records):
    return write_records(SIZE, CLASSES, train=pairs(60), validation=pairs(12, 1), test=pairs(6, 2))


def pillow_pixels(encoded):
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)))


def first_line(caught):
    """Of the exception's text: gin adds a line that names the configurable."""
    return str(caught.value).split("\n  In call to configurable")[0]


def test_images_are_those_that_pillow_decodes_and_classes_those_of_the_manifest(folder):
    data = tfrecord_images(str(folder))
    assert data.name == "records" and data.class_names == ("n00000000", "n00000001", "n00000002")
    assert data.image_shape == (SIZE, SIZE, 3) and data.num_classes == CLASSES
    assert [len(split) for split in (data.train, data.validation, data.test)] == [60, 12, 6]
    for split, written in ((data.train.read(), pairs(60)), (data.validation, pairs(12, 1)), (data.test, pairs(6, 2))):
        stored = sum((written[shard::3] for shard in range(3)), [])
        np.testing.assert_array_equal(split.images, [pillow_pixels(encoded) for encoded, _ in stored])
        np.testing.assert_array_equal(split.labels, [label for _, label in stored])


def test_training_images_keep_their_labels(folder):
    data = tfrecord_images(str(folder))
    labels = {pillow_pixels(encoded).tobytes(): label for encoded, label in pairs(60)}
    for images, batch_labels in training_batches(data.train, 20, steps=3, seed=0):
        pixels = preprocessing.to_uint8(images).numpy()
        assert [labels[image.tobytes()] for image in pixels] == batch_labels.numpy().tolist()


def test_grey_images_are_decoded_as_asked(write_records):
    grey = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    folder = write_records(SIZE, 1, train=[(jpeg(grey), 0)], test=[(jpeg(grey), 0)], shards=1)
    rgb, one = tfrecord_images(str(folder)).test, tfrecord_images(str(folder), channels=1).test
    np.testing.assert_array_equal(one.images[0, :, :, 0], pillow_pixels(jpeg(grey)))
    np.testing.assert_array_equal(rgb.images, np.repeat(one.images, 3, axis=3))


def test_a_subset_is_reproducible_nested_and_has_the_classes_of_the_whole(folder):
    train = tfrecord_images(str(folder)).train
    subset = train.take(12, seed=1)
    assert np.bincount(subset.labels).tolist() == [6, 4, 2]
    np.testing.assert_array_equal(subset.images, train.take(12, seed=1).images)
    np.testing.assert_array_equal(subset.images[:5], train.take(5, seed=1).images)
    assert len({image.tobytes() for image in subset.images}) == 12
    assert not np.array_equal(subset.images, train.take(12, seed=2).images)
    labels = {pillow_pixels(encoded).tobytes(): label for encoded, label in pairs(60)}
    assert [labels[image.tobytes()] for image in subset.images] == subset.labels.tolist()
    assert len(train.take(0)) == 0 and len(train.take(100)) == 60
    with pytest.raises(ValueError, match="count must be 0 or more, got -1"):
        train.take(-1)


def test_the_buffer_mixes_shards_that_are_sorted_by_class(write_records):
    encoded = jpeg(np.zeros([SIZE, SIZE, 3], np.uint8))
    rows = [(encoded, label) for label in range(4)] * 40
    folder = write_records(SIZE, 4, shards=4, train=rows, test=rows[:4])  # a shard holds a single class
    batches = training_batches(tfrecord_images(str(folder)).train, 40, steps=4, seed=0)
    counts = np.stack([np.bincount(labels, minlength=4) for _, labels in batches])
    assert counts.min() >= 3  # 10 expected, standard deviation 2.4
    in_order = training_batches(tfrecord_images(str(folder), shuffle_buffer=1).train, 8, steps=1, seed=0)
    assert len(set(next(iter(in_order))[1].numpy())) == 1


def test_a_subset_of_the_validation_images_can_be_asked_for(folder):
    assert np.bincount(tfrecord_images(str(folder), validation_examples=6).validation.labels).tolist() == [3, 2, 1]
    assert len(tfrecord_images(str(folder), validation_examples=0).validation) == 0


def test_a_preparation_without_validation_images_is_warned_of(write_records, caplog):
    folder = write_records(SIZE, CLASSES, train=pairs(12), test=pairs(6))
    with caplog.at_level(logging.WARNING):
        assert len(tfrecord_images(str(folder)).validation) == 0
    assert "no validation images, which fine-tuning needs; python -m robgan_tf.prepare cuts them" in caplog.text


def unfinished(folder):
    (folder / _manifest.FILE_NAME).unlink()


def missing_shard(folder):
    (folder / "train-00001-of-00003.tfrecord").unlink()


def truncated_shard(folder):
    path = folder / "train-00001-of-00003.tfrecord"
    path.write_bytes(path.read_bytes()[:-20])


def flipped_byte(folder):
    path = folder / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, settings, message",
    [
        (unfinished, {}, "there is no .*manifest.json; prepare the folder with python -m robgan_tf.prepare"),
        (missing_shard, {"verify": False}, "1 of 9 shards in .* are damaged: train-00001-of-00003.tfrecord is missing"),
        (truncated_shard, {"verify": False}, "train-00001-of-00003.tfrecord has .* bytes instead of"),
        (flipped_byte, {}, "train-00001-of-00003.tfrecord has a wrong checksum"),
        (None, {"image_size": 32}, "image_size is 32, the records of .* have 16"),
        (None, {"num_classes": 143}, "num_classes is 143, the records of .* have 3"),
        (
            None,
            {"class_names": ["n00000000", "n00000002", "n00000001"]},
            "first at label 1: expected 'n00000002', found 'n00000001'",
        ),
        (None, {"class_names": ["n00000000", "n00000001"]}, "first at label 2: expected None, found 'n00000002'"),
        (None, {"validation_examples": 13}, "validation_examples must be within 0..12, .* got 13"),
        (None, {"channels": 2}, r"channels must be 3 \(RGB\) or 1 \(grey\), got 2"),
        (None, {"shuffle_buffer": 0}, "tfrecord_images.shuffle_buffer must be a whole number >= 1, got 0"),
        (None, {"memory_limit_gib": 1e-6}, "18 images of validation and test of .* need .* GiB"),
    ],
)
def test_a_folder_that_can_not_be_used_is_refused_in_one_line(folder, damage, settings, message):
    if damage:
        damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        tfrecord_images(str(folder), **settings)
    assert "\n" not in first_line(caught) and "\n" not in str(caught.value.__cause__ or "")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="tfrecord_images: there is no .*nowhere"):
        tfrecord_images(str(tmp_path / "nowhere"))


def test_a_matching_expectation_is_accepted(folder):
    names = ("n00000000", "n00000001", "n00000002")
    assert tfrecord_images(str(folder), image_size=SIZE, num_classes=CLASSES, class_names=names).num_classes == 3


@pytest.mark.parametrize("counted", [(30, 20, 9), (30, 20, 11)])
def test_more_or_fewer_records_than_the_manifest_says_are_refused(folder, counted):
    train = tfrecord_images(str(folder)).train
    message = "holds other numbers of records than its manifest says"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(train, class_counts=counted).read()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(train, class_counts=(1, 1, 100)).take(80)


BAD_RECORDS = {
    "another size": (lambda: (jpeg(np.zeros([8, 8, 3], np.uint8)), 0), r"no image of 16x16 pixels.*\[8 8 3\].*/5.jpg"),
    "no image": (lambda: (b"nothing", 0), "JPEG"),
    "a label out of range": (lambda: "label", r"none of the 3 classes of the manifest.*\[7\]"),
    "no example": (lambda: b"nothing", "Could not parse example input"),
}


@pytest.fixture
def bad_record(write_records):
    """Writes records of which the sixth of a split is bad; returns the folder."""

    def write(split, make):
        bad = make()
        splits = {"train": pairs(12), "test": pairs(12, 2)}
        if bad == "label":
            # Put the record into a set of more classes, and rename the set's classes to fewer.
            splits[split][5] = (splits[split][5][0], 7)
            folder = write_records(SIZE, 8, **splits)
            text = (folder / _manifest.FILE_NAME).read_text()
            manifest = _manifest.DatasetManifest.read(folder)
            counts = manifest.splits[split].class_counts
            assert counts[7] == 1
            content = re.sub(r'"class_counts": \[[^]]*\]', '"class_counts": [6, 4, 2]', text)
            content = re.sub(r'"class_names": \[[^]]*\]', '"class_names": ["a", "b", "c"]', content)
            (folder / _manifest.FILE_NAME).write_text(content)
            return folder
        splits[split][5] = bad
        return write_records(SIZE, CLASSES, **splits)

    return write


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_a_bad_test_record_is_refused_at_the_start(bad_record, kind):
    make, message = BAD_RECORDS[kind]
    with pytest.raises(ValueError, match=message) as caught:
        tfrecord_images(str(bad_record("test", make)))
    assert "\n" not in first_line(caught) and "test-00002-of-00003.tfrecord" in first_line(caught)


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_a_bad_training_record_stops_the_batches_with_what_is_wrong(bad_record, kind):
    make, message = BAD_RECORDS[kind]
    train = tfrecord_images(str(bad_record("train", make))).train
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(training_batches(train, 4, steps=3, seed=0))


def test_a_shard_that_breaks_during_the_run_stops_it(folder):
    data = tfrecord_images(str(folder))
    flipped_byte(folder)
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        list(training_batches(data.train, 20, steps=3, seed=0))


def test_what_resuming_skips_is_not_decoded(bad_record):
    make, _ = BAD_RECORDS["another size"]
    train = tfrecord_images(str(bad_record("train", make))).train
    good = []
    with pytest.raises(tf.errors.InvalidArgumentError):
        for batch in training_batches(train, 1, steps=12, seed=0):
            good.append(batch)
    failed_at = len(good)
    assert failed_at < 11
    assert len(list(training_batches(train, 1, first_step=failed_at + 1, steps=12, seed=0))) == 11 - failed_at


@pytest.mark.slow
def test_memory_stays_flat_over_many_passes(write_records):
    random = np.random.default_rng(0)
    rows = [(jpeg(random.integers(0, 256, (128, 128, 3)).astype(np.uint8), quality=95), 0) for _ in range(100)]
    size = 4000 * len(rows[0][0]) / 2**20  # MiB of records, all of which are in the buffer at the end of a pass
    train = tfrecord_images(str(write_records(128, 1, shards=20, train=rows * 40, test=rows[:1]))).train
    memory = []
    # One row of a batch is decoded: the work is in reading and shuffling.
    for step, _ in enumerate(training_batches(train, 400, steps=150, seed=0, workers=400)):
        if step % 10 == 9:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    assert max(memory[5:]) - min(memory[5:]) < size, memory
