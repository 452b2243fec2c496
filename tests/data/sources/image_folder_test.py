import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.sources.image_folder import image_folder


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
    return image_folder(str(folder), **{"image_size": 8, "validation_examples": 4, **settings})


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
    save(folder / "val" / "green" / "0.png", np.zeros([8, 8, 3], np.uint8))


def flat_validation(folder):
    (folder / "val").rename(folder / "old")
    save(folder / "val" / "0.png", np.zeros([8, 8, 3], np.uint8))


@pytest.mark.parametrize(
    "damage, settings, message",
    [
        (lambda f: (f / "val").rename(f / "other"), {}, "there is no folder .*val; expected .*val/<class>/"),
        (lambda f: (f / "train").rename(f / "other"), {}, "there is no folder .*train; expected"),
        (lambda f: (f / "val" / "red").rename(f / "val" / "rot"), {}, "only in train: red; only in val: rot"),
        (empty_class, {}, "no images in .*train/green .there: train/green/readme.txt.; expected files ending in .jpg"),
        (flat_validation, {}, "val holds images, but no class folders"),
        (lambda f: None, {"memory_limit_gib": 1e-6}, "28 images of .* need .* over image_folder.memory_limit_gib"),
        (
            lambda f: None,
            {"validation_examples": 20},
            "so that of the 20 .* each class keeps one, got 20",
        ),
        (lambda f: None, {"channels": 4}, "channels must be 3 .* got 4"),
        (lambda f: None, {"image_size": 0}, "image_folder.image_size must be a whole number >= 1, got 0"),
    ],
)
def test_a_folder_that_can_not_be_used_is_refused_in_one_line(folder, damage, settings, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        read(folder, **settings)
    assert "\n" not in first_line(caught)


def test_a_missing_folder_is_named():
    with pytest.raises(ValueError, match="there is no folder /no/such; data_dir must hold train/<class>/"):
        read(pathlib.Path("/no/such"))


def test_imagewoof_is_read_as_an_image_folder(data_dir):
    data = image_folder(f"{data_dir}/imagewoof128", image_size=64, validation_examples=100)
    assert data.num_classes == 10 and data.class_names[0] == "n02086240"
    assert np.bincount(data.train.labels).tolist() == [290] * 10
    assert np.bincount(data.test.labels).tolist() == [50] * 10
    assert 90 < data.train.images.mean() < 140
