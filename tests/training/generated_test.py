"""Sources of generated images: the same draws on any number of replicas, and files that are checked; augmentation."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf
from small_stages import make_generator as small_generator

from robgan_tf.data import preprocessing
from robgan_tf.data.augmentation import cutout
from robgan_tf.data.preprocessing import random_flip, to_pixel_range, to_uint8
from robgan_tf.training import generated
from robgan_tf.training.generated import (
    Augmented,
    FromFile,
    FromGenerator,
    augmented,
    sample_file,
    this_generator,
    write_samples,
)
from robgan_tf.training.randomness import generator_inputs

SEED = tf.constant([3, 4])
CLASSES = 3


@pytest.fixture
def write(tmp_path):
    def make(images=None, labels=None, **others):
        images = np.random.default_rng(0).integers(0, 256, [10, 8, 8, 3], np.uint8) if images is None else images
        labels = np.arange(len(images)) % CLASSES if labels is None else labels
        np.savez(tmp_path / "samples.npz", images=images, labels=labels, **others)
        return str(tmp_path / "samples.npz")

    return make


def on_replicas(strategy, source, count):
    """The images and labels of all replicas, in order."""
    with strategy.scope():
        sample = tf.function(lambda: strategy.run(source.sample, args=(SEED, count)))
        images, labels = (strategy.experimental_local_results(part) for part in sample())
    return np.concatenate(images), np.concatenate(labels)


def test_a_generator_is_asked_in_inference_mode_with_the_stages_noise_and_labels(make_generator):
    generator = make_generator()
    before = [weight.numpy() for weight in generator.weights]
    images, labels = FromGenerator(generator).sample(SEED, 4)
    noise, expected = generator_inputs(SEED, 4, generator.latent_dim, CLASSES)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(images, generator((noise, expected), training=False))
    assert all(np.array_equal(old, new) for old, new in zip(before, generator.weights))


def test_truncation_and_balanced_labels_reach_the_generator(make_generator):
    generator = make_generator()
    source = this_generator(generator, CLASSES, truncation=0.3, balanced_labels=True)
    images, labels = source.sample(SEED, 6)
    noise, expected = generator_inputs(SEED, 6, generator.latent_dim, CLASSES, balanced=True, truncation=0.3)
    assert np.abs(noise).max() <= 0.3 and np.bincount(labels).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(images, generator((noise, expected), training=False))


def test_a_file_is_drawn_from_with_its_labels_and_its_pixels_on_the_networks_scale(write):
    path = write()
    with np.load(path) as file:
        stored, classes = file["images"], file["labels"]
    images, labels = FromFile(path, CLASSES).sample(SEED, 64)
    assert images.shape == (64, 8, 8, 3) and images.dtype == tf.float32 and labels.dtype == tf.int32
    pixels = (images.numpy() + 1) * 127.5
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-4)
    rows = [int(np.flatnonzero((stored == image).all(axis=(1, 2, 3)))[0]) for image in np.round(pixels)]
    np.testing.assert_array_equal(labels, classes[rows])
    assert set(rows) == set(range(10))  # all of them: the chance that one is missing is 1 %


def test_two_replicas_draw_what_one_draws(write, make_generator, two_replicas):
    path = write()
    one, two = FromFile(path, CLASSES).sample(SEED, 8), on_replicas(two_replicas, FromFile(path, CLASSES), 4)
    np.testing.assert_allclose(one[0], two[0], atol=2e-7)  # a graph multiplies by 1 / 127.5
    np.testing.assert_array_equal(one[1], two[1])
    with two_replicas.scope():
        generator = make_generator()
    alone = make_generator()
    alone.set_weights(generator.get_weights())
    one, two = FromGenerator(alone).sample(SEED, 8), on_replicas(two_replicas, FromGenerator(generator), 4)
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_without_a_generator_there_are_no_images_of_this_run():
    assert this_generator(None, CLASSES) is None


def test_a_sample_file_needs_no_generator(write):
    source = sample_file(None, CLASSES, path=write())
    assert source.num_classes == CLASSES and source.image_shape == (8, 8, 3)
    assert source.nbytes == 10 * (4 + 8 * 8 * 3)


def test_a_large_sample_file_is_read_as_it_is_drawn_from_and_gives_the_same(write, monkeypatch):
    in_memory = sample_file(None, CLASSES, path=write()).sample(SEED, 8)
    monkeypatch.setattr(generated, "_IN_MEMORY", 10 * 8 * 8 * 3 - 1)
    source = sample_file(None, CLASSES, path=write())
    assert source.nbytes == 10 * 4  # its labels; images stay in the file
    for expected, found in zip(in_memory, source.sample(SEED, 8)):
        np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"images": np.zeros([4, 8, 8, 3], np.float32)},
            "images must be uint8 .* got float32 of shape \\[4, 8, 8, 3\\]",
        ),
        ({"images": np.zeros([4, 8, 8], np.uint8)}, "images must be uint8 of shape \\[N, H, W, C\\]"),
        ({"images": np.zeros([0, 8, 8, 3], np.uint8)}, "with N > 0"),
        (
            {"labels": np.zeros([4], np.int32)},
            "labels must be integers of shape \\[10\\], .* of shape \\[4\\]",
        ),
        ({"labels": np.zeros([10])}, "labels must be integers .* got float64"),
        ({"labels": np.full([10], 3)}, "labels are from 3 to 3, the data has the classes 0 to 2"),
        ({"labels": np.full([10], -1)}, "labels are from -1 to -1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(write, content, message):
    with pytest.raises(ValueError, match=message):
        FromFile(write(**content), CLASSES)


def test_what_is_no_sample_file_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", pictures=np.zeros([2]))
    np.save(tmp_path / "array.npy", np.zeros([2]))
    np.savez(tmp_path / "pickled.npz", images=np.array([{}]), labels=np.zeros([1], np.int32))
    for name in ("text.npz", "other.npz", "array.npy", "pickled.npz", "missing.npz"):
        with pytest.raises(ValueError, match=f"{name} can't be read .* --what=samples") as error:
            FromFile(str(tmp_path / name), CLASSES)
        assert "\n" not in str(error.value)


def test_images_of_another_size_or_number_of_classes_are_refused(write, make_generator):
    for source in (FromFile(write(), CLASSES), FromGenerator(make_generator())):
        source.check(CLASSES, (8, 8, 3))
        with pytest.raises(ValueError, match="has classes 3, the classifier 4"):
            source.check(4, (8, 8, 3))
        with pytest.raises(ValueError, match="has image shape \\(8, 8, 3\\), the classifier \\(16, 16, 3\\)"):
            source.check(CLASSES, (16, 16, 3))


def test_samples_are_written_in_chunks_and_read_again(make_generator, tmp_path, monkeypatch):
    generator, path = make_generator(), tmp_path / "samples.npz"
    monkeypatch.setattr("robgan_tf.training.generated._CHUNK", 4)
    write_samples(generator, str(path), 10, seed=1)
    assert os.listdir(tmp_path) == ["samples.npz"]
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    assert images.shape == (10, 8, 8, 3) and images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), [4, 3, 3])
    # Of the generator, with noise of its own for each.
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10
    source = FromFile(str(path), CLASSES)
    assert source.image_shape == (8, 8, 3)
    # A longer set begins alike; another seed gives other images.
    write_samples(generator, str(path), 6, seed=1)
    with np.load(path) as file:
        np.testing.assert_array_equal(file["images"], images[:6])
    write_samples(generator, str(path), 6, seed=2)
    with np.load(path) as file:
        assert not np.array_equal(file["images"], images[:6])


def test_a_file_is_never_seen_half_written(make_generator, tmp_path, monkeypatch):
    generator, path = make_generator(), tmp_path / "samples.npz"
    write_samples(generator, str(path), 4, seed=0)
    before = path.read_bytes()

    def broken(*arguments):
        yield np.zeros([2, 8, 8, 3], np.uint8)
        raise OSError("disk full")

    monkeypatch.setattr("robgan_tf.training.generated._chunks", broken)
    with pytest.raises(OSError, match="disk full"):
        write_samples(generator, str(path), 4, seed=1)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["samples.npz"]


def test_a_file_without_images_of_a_class_is_refused(write):
    source = FromFile(write(labels=np.arange(10) % 2), CLASSES)
    with pytest.raises(ValueError, match=r"no image of 1 of the data's 3 classes \(2\): take more samples"):
        source.check(CLASSES, (8, 8, 3))


def test_each_image_is_that_of_the_source_or_its_mirror_image():
    source = FromGenerator(small_generator())
    plain, labels = source.sample(SEED, 20)
    found, found_labels = Augmented(source, [random_flip]).sample(SEED, 20)
    plain = to_pixel_range(to_uint8(plain)).numpy()
    np.testing.assert_array_equal(labels, found_labels)
    mirrored = (found.numpy() == plain[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found.numpy() == plain).all(axis=(1, 2, 3))).all() and 3 < mirrored.sum() < 17
    other, _ = Augmented(source, [random_flip]).sample(SEED + 1, 20)
    assert not np.array_equal(found, other)


def test_any_number_of_replicas_sees_the_same_images(two_replicas):
    generator = small_generator()
    whole, _ = Augmented(FromGenerator(generator), [random_flip, cutout]).sample(SEED, 8)
    with two_replicas.scope():
        twin = small_generator()
        twin.set_weights(generator.get_weights())
        source = Augmented(FromGenerator(twin), [random_flip, cutout])
        shares = two_replicas.run(tf.function(lambda: source.sample(SEED, 4)[0]))
    parts = two_replicas.experimental_local_results(shares)
    # Rounding to 8 bits may go the other way after float32's.
    np.testing.assert_allclose(tf.concat(parts, 0), whole, atol=1.01 / 127.5)
    assert np.mean(np.abs(tf.concat(parts, 0) - whole)) < 1e-3


def test_it_is_bound_in_gin_and_is_nothing_without_a_source():
    gin.parse_config("augmented.source = @this_generator\naugmented.augment = (@random_flip, @pad_and_crop)")
    source = augmented(small_generator(), 3)
    assert source.origin == "the generator of this run" and len(source.augment) == 2
    source.check(3, (8, 8, 1))
    with pytest.raises(ValueError, match="it has classes 3, the classifier 4"):
        source.check(4, (8, 8, 1))
    assert augmented(None, 3) is None


def test_what_can_not_be_augmented_is_refused():
    with pytest.raises(ValueError, match="augmented.augment makes"):
        Augmented(FromGenerator(small_generator()), [lambda images, seed: images[:, 1:]])
    with pytest.raises(ValueError, match="augmented.source must be a reference such as @sample_file"):
        augmented(None, 3, "sample_file", [preprocessing.random_flip])
