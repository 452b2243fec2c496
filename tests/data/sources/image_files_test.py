import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data.batches import training_batches
from robgan_tf.data.sources.image_files import ImageFiles
from robgan_tf.data.sources.image_folder import image_folder


def noise(height, width, channels=3):
    random = np.random.default_rng(height * 1000 + width)
    array = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
    return PIL.Image.fromarray(array[:, :, 0] if channels == 1 else array)


@pytest.fixture
def folder(tmp_path):
    """Two classes; files of every format, colour mode and shape, one of them turned by its EXIF orientation."""
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    files = {
        "rgb.jpg": noise(30, 41),
        "wide.JPEG": noise(9, 200),
        "cmyk.jpg": noise(20, 20).convert("CMYK"),
        "grey.jpg": noise(17, 12, 1),
        "turned.jpg": noise(13, 20),
        "alpha.png": noise(20, 12, 4),
        "grey16.png": PIL.Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150),
        "palette.gif": noise(15, 16).convert("P"),
        "bitmap.bmp": noise(15, 15),
        "web.webp": noise(16, 31),
    }
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for name, image in files.items():
                image.save(tmp_path / split / label / name, **({"exif": turned} if name == "turned.jpg" else {}))
    return tmp_path


def read(folder, **settings):
    settings = {"image_size": 8, "validation_examples": 4, **settings}
    return image_folder(str(folder), **settings)


@pytest.mark.parametrize("channels", [3, 1])
def test_every_kind_of_file_gives_the_batches_that_it_gives_in_memory(folder, channels):
    on_disk = read(folder, in_memory=False, channels=channels)
    in_memory = read(folder, channels=channels)
    assert isinstance(on_disk.train, ImageFiles) and on_disk.image_shape == (8, 8, channels)
    assert on_disk.class_names == in_memory.class_names and on_disk.name == in_memory.name
    for ours, theirs in ((on_disk.validation, in_memory.validation), (on_disk.test, in_memory.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    arguments = dict(batch_size=5, steps=7, seed=2)  # two passes over 16 images
    for ours, theirs in zip(
        training_batches(on_disk.train, **arguments), training_batches(in_memory.train, **arguments)
    ):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_a_subset_is_the_one_of_the_images_in_memory(folder):
    on_disk, in_memory = read(folder, in_memory=False).train, read(folder).train
    for count in (0, 5, 100):
        ours, theirs = on_disk.take(count, seed=3), in_memory.take(count, seed=3)
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    with pytest.raises(ValueError, match="count must be 0 or more, got -1"):
        on_disk.take(-1)


def test_broken_files_are_left_out_before_training(folder, caplog):
    whole = (folder / "train" / "a" / "rgb.jpg").read_bytes()
    (folder / "train" / "a" / "rgb.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "a" / "text.jpg").write_text("no image")
    noise(1, 1).save(folder / "train" / "b" / "pixel.png")
    train = read(folder, in_memory=False, max_corrupt_share=0.2, validation_examples=0).train
    assert len(train) == 19 and np.bincount(train.labels).tolist() == [9, 10]
    assert "left out 3 of 22" in caplog.text
    for name in ("a/rgb.jpg", "a/text.jpg", "b/pixel.png (it has 1x1 pixels)"):
        assert name in caplog.text
    assert len(list(training_batches(train, 19, steps=2, seed=0))) == 2
    with pytest.raises(ValueError, match="3 of 22 images in .* can't be decoded, over max_corrupt_share"):
        read(folder, in_memory=False)


def test_a_file_that_is_lost_during_the_run_stops_it_by_name(folder):
    train = read(folder, in_memory=False).train
    (folder / "train" / "a" / "rgb.jpg").unlink()
    (folder / "train" / "b" / "rgb.jpg").unlink()
    with pytest.raises(tf.errors.InvalidArgumentError, match="rgb.jpg .*No such file"):
        list(training_batches(train, 16, steps=1, seed=0))
    with pytest.raises(ValueError, match="rgb.jpg .*No such file"):
        train.read()


def test_images_that_stay_on_disk_do_not_count_as_memory(folder):
    limit = 30 * 8 * 8 * 3 / 2**30  # 20 of train/ and 20 of val/, 4 of the former for validation
    message = "40 images of .* need .*; set image_folder.in_memory = False, .*python -m robgan_tf.prepare"
    with pytest.raises(ValueError, match=message):
        read(folder, memory_limit_gib=limit)
    assert len(read(folder, in_memory=False, memory_limit_gib=limit).train) == 16
    with pytest.raises(ValueError, match="24 images of"):
        read(folder, in_memory=False, memory_limit_gib=limit / 2)


def test_imagewoof_from_disk_is_imagewoof_in_memory(data_dir):
    settings = dict(image_size=64, validation_examples=100)
    on_disk = image_folder(f"{data_dir}/imagewoof128", in_memory=False, **settings)
    in_memory = image_folder(f"{data_dir}/imagewoof128", **settings)
    (ours,), (theirs,) = (list(training_batches(data.train, 64, steps=1, seed=0)) for data in (on_disk, in_memory))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
