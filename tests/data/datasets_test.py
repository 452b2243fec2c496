import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data import datasets, preprocessing
from robgan_tf.data.datasets import Examples

DATA_DIR = os.environ.get("ROBGAN_DATA_DIR")
needs_data = pytest.mark.skipif(not DATA_DIR, reason="ROBGAN_DATA_DIR is unset: no real images at hand")
AUGMENT = (preprocessing.pad_and_crop, preprocessing.random_flip)


def numbered_examples(count, size=4):
    """Examples whose label is their number, sorted, and whose pixels hold it too."""
    labels = np.arange(count, dtype=np.int32)
    images = np.broadcast_to((labels % 256)[:, None, None, None], (count, size, size, 3)).astype(np.uint8)
    return Examples(images, labels)


def collect(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


# ---- batches


@pytest.mark.parametrize("count, batch_size", [(20, 5), (23, 5), (7, 20), (1, 3), (2, 3)])
def test_every_pass_visits_every_example_once_across_batch_borders(count, batch_size):
    steps = -(-4 * count // batch_size)
    batches = datasets.training_batches(numbered_examples(count), batch_size, steps=steps, seed=5)
    labels = np.concatenate([labels for _, labels in collect(batches)])
    assert len(labels) == steps * batch_size
    passes = labels[: 4 * count].reshape(4, count)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(count), (4, 1)))
    if count > 10:
        assert len({one.tobytes() for one in passes}) == 4


def test_shuffling_leaves_no_trace_of_the_stored_order_or_of_the_pass_before():
    # TensorFlow's index_shuffle with its defaults fails both: 0.3 and 0.7.
    count = 10000
    batches = datasets.training_batches(numbered_examples(count, size=1), 1000, steps=30, seed=0)
    passes = np.concatenate([labels for _, labels in collect(batches)]).reshape(3, count)
    correlation = np.corrcoef(np.vstack([np.arange(count), passes]))
    assert np.abs(correlation - np.eye(4)).max() < 0.05  # five standard deviations


def test_images_and_labels_stay_together_and_on_the_networks_scale():
    for images, labels in collect(datasets.training_batches(numbered_examples(50), 16, steps=5, seed=0)):
        assert images.dtype == np.float32 and labels.dtype == np.int32
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels.astype(np.float32) / 127.5 - 1)


def test_resuming_at_a_step_gives_bit_identical_batches():
    arguments = dict(steps=12, seed=7, augment=AUGMENT, noise=1 / 128)
    whole = collect(datasets.training_batches(numbered_examples(30), 8, **arguments))
    rest = collect(datasets.training_batches(numbered_examples(30), 8, first_step=5, **arguments))
    assert (len(whole), len(rest)) == (12, 7)
    for (images, labels), (resumed_images, resumed_labels) in zip(whole[5:], rest):
        np.testing.assert_array_equal(images, resumed_images)
        np.testing.assert_array_equal(labels, resumed_labels)


def test_another_seed_gives_another_order_and_another_step_another_augmentation():
    examples = numbered_examples(30)
    first, other = (collect(datasets.training_batches(examples, 30, steps=2, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first[0][1], other[0][1])
    one = Examples(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8), np.zeros(1, np.int32))
    (images, _), (next_images, _) = collect(datasets.training_batches(one, 4, steps=2, seed=1, augment=AUGMENT))
    assert not np.array_equal(images, next_images)


def test_noise_moves_pixels_up_by_at_most_its_width_and_not_past_white():
    arguments = dict(steps=2, seed=3)
    examples = Examples(np.full([10, 4, 4, 3], 100, np.uint8), np.arange(10, dtype=np.int32))
    examples.images[5:] = 255
    clean = collect(datasets.training_batches(examples, 10, **arguments))
    noisy = collect(datasets.training_batches(examples, 10, noise=1 / 128, **arguments))
    for (images, labels), (noisy_images, noisy_labels) in zip(clean, noisy):
        np.testing.assert_array_equal(labels, noisy_labels)
        assert (noisy_images - images)[labels < 5].max() > 0.005
        assert (noisy_images >= images).all() and (noisy_images - images).max() <= 1 / 128 + 1e-6
        assert noisy_images.max() == 1.0


def test_batches_have_static_shapes_and_a_known_number():
    examples = numbered_examples(10)
    training = datasets.training_batches(examples, 4, steps=9, first_step=2, seed=0, augment=AUGMENT)
    assert [spec.shape for spec in training.element_spec] == [[4, 4, 4, 3], [4]]
    assert training.cardinality() == 7
    assert [spec.shape for spec in datasets.evaluation_batches(examples, 4).element_spec] == [[4, 4, 4, 3], [4], [4]]


def test_evaluation_counts_every_example_once_and_masks_the_padding():
    batches = collect(datasets.evaluation_batches(numbered_examples(10), 4))
    assert len(batches) == 3
    assert [mask.tolist() for _, _, mask in batches] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]
    images, labels, mask = (np.concatenate(parts) for parts in zip(*batches))
    np.testing.assert_array_equal(labels[mask == 1], np.arange(10))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels.astype(np.float32) / 127.5 - 1)


def test_batches_are_divided_among_replicas_and_workers_by_data():
    for dataset in (datasets.training_batches(numbered_examples(4), 2, steps=2, seed=0),
                    datasets.evaluation_batches(numbered_examples(4), 2)):
        policy = dataset.options().experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.DATA


@pytest.mark.parametrize("call, message", [
    (lambda e: datasets.training_batches(e.take(0), 4, steps=1, seed=0), "no examples"),
    (lambda e: datasets.training_batches(e, 0, steps=1, seed=0), "batch_size must be 1 or more, got 0"),
    (lambda e: datasets.training_batches(e, 4, steps=1, first_step=2, seed=0), "first_step <= steps, got 2 and 1"),
    (lambda e: datasets.training_batches(e, 4, steps=1, seed=0, noise=-1.0), "noise must be 0 or more"),
    (lambda e: datasets.evaluation_batches(e.take(0), 4), "no examples"),
    (lambda e: datasets.evaluation_batches(e, -1), "batch_size must be 1 or more, got -1"),
    (lambda e: e.take(-1), "count must be 0 or more, got -1"),
    (lambda e: Examples(e.images.astype(np.float32), e.labels), "must be uint8 .* got float32"),
    (lambda e: Examples(e.images, e.labels[:3]), "must be int32 .10., one for each image"),
])
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbered_examples(10))


def test_a_subset_is_reproducible_mixed_and_nested():
    labels = np.repeat(np.arange(4, dtype=np.int32), 50)
    images = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    examples = Examples(images, labels)
    subset = examples.take(20, seed=1)
    np.testing.assert_array_equal(np.bincount(subset.labels), [5, 5, 5, 5])
    np.testing.assert_array_equal(subset.images, examples.take(20, seed=1).images)
    np.testing.assert_array_equal(subset.images[:8], examples.take(8, seed=1).images)
    assert not np.array_equal(subset.images, examples.take(20, seed=2).images)
    assert len(examples.take(500)) == 200


# ---- image folders


def save(path, array, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, PIL.Image.Image) else PIL.Image.fromarray(array)
    image.save(path, **settings)


@pytest.fixture
def folder(tmp_path):
    """Two classes, ten training and four held-out images each, of different sizes; red and blue."""
    for split, count in (("train", 10), ("val", 4)):
        for name, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
            for number in range(count):
                array = np.full([20 + number, 30, 3], colour, np.uint8)
                save(tmp_path / split / name / f"{number}.{'png' if number % 2 else 'JPEG'}", array)
    return tmp_path


def read(folder, **settings):
    return datasets.image_folder(str(folder), **{"image_size": 8, "validation_examples": 4, **settings})


def first_line(caught):
    """Of the exception's text: gin adds a line that names the configurable."""
    return str(caught.value).split("\n  In call to configurable")[0]


def test_folders_are_classes_and_validation_is_cut_from_training(folder):
    (folder / "train" / ".DS_Store").write_text("")
    (folder / "train" / "red" / "notes.txt").write_text("not an image")
    data = read(folder)
    assert data.name == folder.name and data.class_names == ("blue", "red")
    assert data.image_shape == (8, 8, 3)
    for examples, count in ((data.train, 16), (data.validation, 4), (data.test, 8)):
        assert np.bincount(examples.labels).tolist() == [count // 2, count // 2]
        reddish = examples.images[..., 0].mean(axis=(1, 2)) > 200
        np.testing.assert_array_equal(reddish, examples.labels == 1)


def test_validation_and_training_share_no_image_and_lose_none(tmp_path):
    for split in ("train", "val"):
        for number in range(12):
            save(tmp_path / split / "abc"[number % 3] / f"{number}.png", np.full([8, 8, 3], number * 20, np.uint8))
    data = read(tmp_path, validation_examples=5, seed=3)
    validation, train = (set(e.images[:, 0, 0, 0].tolist()) for e in (data.validation, data.train))
    assert len(validation) == 5 and len(train) == 7 and not validation & train
    again = read(tmp_path, validation_examples=5, seed=3)
    np.testing.assert_array_equal(again.validation.images, data.validation.images)


def test_a_test_folder_serves_where_there_is_no_val(folder):
    (folder / "val").rename(folder / "test")
    assert len(read(folder).test) == 8


def test_every_colour_mode_becomes_rgb(tmp_path):
    grey = PIL.Image.new("L", (10, 10), 100)
    images = {
        "cmyk.jpg": PIL.Image.new("RGB", (10, 10), (100, 100, 100)).convert("CMYK"),
        "grey.png": grey,
        "grey16.png": PIL.Image.fromarray(np.full([10, 10], 100 * 257, np.uint16)),
        "alpha.png": PIL.Image.new("RGBA", (10, 10), (100, 100, 100, 30)),
        "greyalpha.png": PIL.Image.new("LA", (10, 10), (100, 30)),
        "palette.gif": grey.convert("P"),
        "bitmap.bmp": grey,
        "web.webp": grey.convert("RGB"),
    }
    for split in ("train", "val"):
        for name, image in images.items():
            save(tmp_path / split / "only" / name, image)
    data = read(tmp_path, validation_examples=0)
    assert len(data.train) == len(images)
    assert np.abs(data.train.images.astype(int) - 100).max() <= 3  # JPEG and WebP are lossy
    assert read(tmp_path, validation_examples=0, channels=1).image_shape == (8, 8, 1)


def test_exif_orientation_is_applied(tmp_path):
    array = np.zeros([16, 16, 3], np.uint8)
    array[:8] = 255  # bright above; orientation 3 says: turn by 180 degrees
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    for split in ("train", "val"):
        save(tmp_path / split / "only" / "turned.jpg", array, exif=exif)
    image = read(tmp_path, validation_examples=0).train.images[0]
    assert image[:3].max() < 10 and image[-3:].min() > 245


def test_pillow_and_tensorflow_cut_and_resize_alike(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (90, 61, 3)).astype(np.uint8)
    for split in ("train", "val"):
        save(tmp_path / split / "only" / "noise.png", array)
    ours = read(tmp_path, image_size=16, validation_examples=0).train.images[0].astype(int)
    assert np.abs(ours - preprocessing.centre_square(tf.constant(array), 16).numpy()).max() <= 1


def test_few_corrupt_files_are_left_out_with_a_warning_that_names_them(folder, caplog):
    good = (folder / "train" / "red" / "0.JPEG").read_bytes()
    (folder / "train" / "red" / "0.JPEG").write_bytes(good[: len(good) // 2])
    (folder / "train" / "blue" / "1.png").write_bytes(b"nothing")
    data = read(folder, max_corrupt_share=0.1)
    assert len(data.train) == 14
    assert "left out 2 of 20" in caplog.text and "0.JPEG" in caplog.text and "1.png" in caplog.text
    with pytest.raises(ValueError, match="2 of 20 images in .* can't be decoded, over max_corrupt_share"):
        read(folder)


def empty_class(folder):
    (folder / "train" / "green").mkdir()
    (folder / "train" / "green" / "readme.txt").write_text("")


def flat_validation(folder):
    (folder / "val").rename(folder / "old")
    save(folder / "val" / "0.png", np.zeros([8, 8, 3], np.uint8))


@pytest.mark.parametrize("damage, settings, message", [
    (lambda f: (f / "val").rename(f / "other"), {}, "there is no folder .*val; expected .*val/<class>/"),
    (lambda f: (f / "train").rename(f / "other"), {}, "there is no folder .*train; expected"),
    (lambda f: (f / "val" / "red").rename(f / "val" / "rot"), {}, "only in train: red; only in val: rot"),
    (empty_class, {}, "no images in green of .*train; expected files ending in .jpg"),
    (flat_validation, {}, "val holds images, but no class folders"),
    (lambda f: None, {"memory_limit_gib": 1e-6}, "28 images of .* need .* over image_folder.memory_limit_gib"),
    (lambda f: None, {"validation_examples": 20}, "leave something of the 20 training images, got 20"),
    (lambda f: None, {"channels": 4}, "channels must be 3 .* got 4"),
    (lambda f: None, {"image_size": 0}, "image_size must be 1 pixel or more, got 0"),
])
def test_a_folder_that_can_not_be_used_is_refused_in_one_line(folder, damage, settings, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        read(folder, **settings)
    assert "\n" not in first_line(caught)


def test_a_missing_folder_is_named():
    with pytest.raises(ValueError, match="there is no folder /no/such; data_dir must hold train/<class>/"):
        read(pathlib.Path("/no/such"))


# ---- tensorflow-datasets


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    datasets.digits(data_dir=path)
    return path


def test_any_prepared_set_is_read_by_name_with_classes_and_sizes_of_choice(digits_dir):
    data = datasets.tfds_images("digits", data_dir=digits_dir, image_size=12, class_range=(3, 5), validation_examples=9)
    assert data.class_names == ("3", "4", "5") and data.image_shape == (12, 12, 1)
    assert set(data.test.labels.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="no image of split 'train' of 'digits' is left"):
        datasets.tfds_images("digits", data_dir=digits_dir, min_side=9)


@pytest.mark.parametrize("settings, message", [
    (dict(name="digitz"), "knows no 'digitz'; did you mean digits"),
    (dict(name="digits:9.9.9"), "can't use 'digits:9.9.9'"),
    (dict(name="mnist"), r"'mnist' is not prepared in .* \(there: digits\); set tfds_images.download = True"),
    (dict(name="digits", test_split="validation"), "no split 'validation'; it has test, train"),
    (dict(name="digits", test_split="train"), "both 'train'; they must not overlap"),
    (dict(name="digits", memory_limit_gib=1e-5), "1797 images of digits need .* over tfds_images.memory_limit_gib"),
    (dict(name="digits", memory_limit_gib=1e-5, class_range=(0, 8)), "does not fit in tfds_images.memory_limit_gib"),
    (dict(name="digits", class_range=(8, 10)), r"within 0..9, got \(8, 10\)"),
    (dict(name="digits", validation_examples=1437), "leave something of the 1437 training images"),
    (dict(name="digits", image_size=-1), "image_size must be 1 pixel or more"),
])
def test_a_set_that_can_not_be_used_is_refused_in_one_line(digits_dir, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.tfds_images(**{"data_dir": digits_dir, **settings})
    assert "\n" not in first_line(caught)


@needs_data
def test_cifar10_is_read_as_released():
    data = datasets.tfds_images(
        "cifar10", data_dir=f"{DATA_DIR}/tfds", train_split="train[:2000]", validation_examples=200
    )
    assert data.image_shape == (32, 32, 3) and data.class_names[3] == "cat"
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 10000)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


@needs_data
def test_imagewoof_is_read_as_an_image_folder():
    data = datasets.image_folder(f"{DATA_DIR}/imagewoof128", image_size=64, validation_examples=100)
    assert data.num_classes == 10 and data.class_names[0] == "n02086240"
    assert np.bincount(data.train.labels).tolist() == [290] * 10
    assert np.bincount(data.test.labels).tolist() == [50] * 10
    assert 90 < data.train.images.mean() < 140
