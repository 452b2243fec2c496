"""Listing of folders of images: what is read, what is left out, what is named before anything starts."""

import io
import os
import shutil
import unicodedata

import numpy as np
import PIL.Image
import pytest

from robgan_tf.data.names import shown
from robgan_tf.data.preparation import sources, writing
from robgan_tf.data.sources.class_folders import TEST, TRAIN, ClassFolders
from robgan_tf.data.sources.dataset_manifest import DatasetManifest
from robgan_tf.data.sources.image_folder import image_folder


def image(file_format="PNG", seed=0):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image() if content is None else content)


@pytest.fixture
def folder(tmp_path):
    """Two classes with three images in train/ and one in val/."""
    for name in ("cat", "dog"):
        for number in range(3):
            write(tmp_path / "train" / name / f"{number}.png")
        write(tmp_path / "val" / name / "0.png")
    return tmp_path


def names(folder, split=TRAIN):
    listed = ClassFolders(folder)
    return {name: [file.name for file in listed.files(split, name)] for name in listed.classes}


READ = {
    "a.JPG": "JPEG",
    "b.jpeg": "JPEG",
    "c.jpe": "JPEG",
    "d.JFIF": "JPEG",
    "e.Png": "PNG",
    "f.bmp": "BMP",
    "g.gif": "GIF",
    "h.webp": "WEBP",
    "i.tif": "TIFF",
    "j.TIFF": "TIFF",
    "k.ppm": "PPM",
    "no_suffix": "JPEG",
    "photo.1": "PNG",
    "flickr.com_77": "WEBP",
    "2020.12.24 tree": "TIFF",
    "wrong.png": "JPEG",
    "below/deep.er/l.jpg": "JPEG",
}


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_suffix_and_none_are_read_at_any_depth(tmp_path, in_memory):
    for split in ("train", "val"):
        for name, file_format in READ.items():
            write(tmp_path / split / "only" / name, image(file_format))
    data = image_folder(str(tmp_path), image_size=8, validation_examples=0, in_memory=in_memory)
    assert len(data.train) == len(data.test) == len(READ)
    settings = writing.Settings(image_size=8, classes="all", min_side=0, validation_per_class=0)
    manifest = writing.prepare(sources.Folder(str(tmp_path)), tmp_path / "out", settings, 1)
    assert manifest.splits["train"].class_counts == manifest.splits["test"].class_counts == (len(READ),)
    assert DatasetManifest.read(tmp_path / "out") == manifest


def test_what_is_left_out_is_counted_and_named_by_kind_once(folder, caplog):
    write(folder / "train/cat/notes.txt")
    write(folder / "train/cat/more.txt", b"text")
    write(folder / "train/dog/IMG_1.HEIC", b"\0\0\0\x18ftypheic")
    write(folder / "train/dog/.hidden.png")
    write(folder / "train/dog/@eaDir/thumbnail.png")
    write(folder / "train/dog/README", b"text")
    write(folder / "train/stray.png")
    write(folder / "train/__MACOSX/dog/0.png")
    os.symlink("nowhere", folder / "val/cat/broken.png")
    image_folder(str(folder), image_size=8, validation_examples=0)
    (record,) = [record for record in caplog.records if "left out" in record.message]
    for part in (
        "left out 9 of 17 files in ",
        "2 .txt (train/cat/more.txt, train/cat/notes.txt)",
        "1 .heic, which Pillow does not read: convert them to JPEG or PNG (train/dog/IMG_1.HEIC)",
        "3 hidden (train/__MACOSX, train/dog/.hidden.png, train/dog/@eaDir)",
        "1 no images by their content (train/dog/README)",
        "1 outside of the class folders (train/stray.png)",
        "1 that are no files (val/cat/broken.png)",
    ):
        assert part in record.message


def test_images_below_their_class_count_for_it_and_that_is_said(folder):
    write(folder / "train/cat/siamese/0.png")
    os.symlink("..", folder / "train/cat/siamese/loop")
    listed = ClassFolders(folder)
    assert [file.name for file in listed.files(TRAIN, "cat")] == ["0.png", "1.png", "2.png", "siamese/0.png"]
    assert listed.remarks() == [
        "1 images lie in folders below that of their class, and count for it: train/cat/siamese/0.png"
    ]


@pytest.fixture
def tiny_imagenet(tmp_path):
    for name in ("n01", "n02"):
        for number in range(3):
            write(tmp_path / f"train/{name}/images/{name}_{number}.JPEG", image("JPEG"))
        write(tmp_path / f"train/{name}/{name}_boxes.txt", b"")
    for number in range(4):
        write(tmp_path / f"val/images/val_{number}.JPEG", image("JPEG", number))
    lines = [f"val_{number}.JPEG\tn0{2 - number % 2}\t0\t0\t62\t62\n" for number in range(4)]
    (tmp_path / "val/val_annotations.txt").write_text("".join(lines))
    write(tmp_path / "test/images/test_0.JPEG", image("JPEG"))
    return tmp_path


def test_tiny_imagenet_is_read_with_its_annotations(tiny_imagenet):
    assert names(tiny_imagenet, TEST) == {"n01": ["val_1.JPEG", "val_3.JPEG"], "n02": ["val_0.JPEG", "val_2.JPEG"]}
    data = image_folder(str(tiny_imagenet), image_size=16, validation_examples=0)
    assert data.class_names == ("n01", "n02") and data.test.labels.tolist() == [0, 0, 1, 1]
    for position, number in enumerate((1, 3, 0, 2)):
        with PIL.Image.open(tiny_imagenet / f"val/images/val_{number}.JPEG") as expected:
            np.testing.assert_array_equal(data.test.images[position], np.asarray(expected))
    settings = writing.Settings(image_size=16, classes="all", min_side=0, validation_per_class=0)
    manifest = writing.prepare(sources.Folder(str(tiny_imagenet)), tiny_imagenet / "out", settings, 1)
    assert manifest.splits["test"].class_counts == (2, 2) and manifest.splits["train"].class_counts == (3, 3)


def test_tiny_imagenet_is_named_where_its_annotations_do_not_fit(tiny_imagenet):
    write(tiny_imagenet / "val/images/more.JPEG")
    listed = ClassFolders(tiny_imagenet)
    listed.files(TEST, "n01")
    assert "1 not in val_annotations.txt (val/images/more.JPEG)" in listed.remarks()[0]
    (tiny_imagenet / "val/val_annotations.txt").write_text("val_0.JPEG n01\n")
    with pytest.raises(ValueError, match="val_annotations.txt, line 1: expected an image and its class with a tab"):
        ClassFolders(tiny_imagenet)


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def rename(old, new):
    return lambda folder: (folder / old).rename(os.fsdecode(os.fsencode(folder) + b"/" + new))


def both_forms(folder):
    for name in (NFC, NFD):
        write(folder / "train" / name / "0.png")


@pytest.mark.parametrize(
    "damage, message, command",
    [
        (
            lambda folder: [
                (folder / split / "cat").rename(folder / split / name) for split, name in (("train", NFC), ("val", NFD))
            ],
            "names of train/ and val/ differ in their Unicode form (NFC and NFD), $'caf\\u00e9' and $'cafe\\u0301'",
            "mv -T $'val/cafe\\u0301' $'val/caf\\u00e9'",
        ),
        (both_forms, "$'cafe\\u0301' and $'caf\\u00e9' in ", "move the images of one into the other"),
        (
            rename("val/dog", b"val/Dog "),
            "names of train/ and val/ differ in upper and lower case, or spaces, $'dog' and $'Dog '",
            "mv -T $'val/Dog ' $'val/dog'",
        ),
        (
            rename("train/cat", b"train/caf\xe9"),
            "the name of the class folder $'caf\\xe9' in ",
            "mv -T $'train/caf\\xe9' $'train/caf\\u00e9' (if it is Latin-1)",
        ),
        (
            rename("train/cat", b"train/c\na\tt"),
            "the name of the class folder $'c\\u000aa\\u0009t' in ",
            "mv -T $'train/c\\u000aa\\u0009t' $'train/c a t'",
        ),
    ],
)
def test_names_of_classes_that_can_not_be_used_are_named_with_the_fix(folder, tmp_path, damage, message, command):
    damage(folder)
    settings = writing.Settings(image_size=8, classes="all", min_side=0, validation_per_class=0)
    for function in (
        lambda: image_folder(str(folder), image_size=8),
        lambda: writing.prepare(sources.Folder(str(folder)), tmp_path / "out", settings, 1),
    ):
        with pytest.raises(ValueError) as caught:
            function()
        line = str(caught.value).split("\n  In call to configurable")[0]
        assert message in line and command in line and "\n" not in line
        assert line.isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="the fix is a line for bash")
def test_the_fix_that_is_named_is_one(folder):
    for split, name in (("train", NFC), ("val", NFD)):
        (folder / split / "cat").rename(folder / split / name)
    with pytest.raises(ValueError) as caught:
        image_folder(str(folder), image_size=8)
    command = "mv -T" + str(caught.value).split("mv -T")[1].split(".\n")[0]
    assert os.system(f'cd {folder} && LC_ALL=C.UTF-8 bash -c "{command}"') == 0
    assert len(image_folder(str(folder), image_size=8, validation_examples=2).test) == 2


def test_names_of_files_may_be_any_bytes(folder, caplog):
    for name in (b"caf\xe9.png", b"new\nline.png"):
        with open(os.path.join(os.fsencode(folder), b"train/cat", name), "wb") as file:
            file.write(image())
    with open(os.path.join(os.fsencode(folder), b"train/cat/br\xf6ken.png"), "wb") as file:
        file.write(b"nothing")
    data = image_folder(str(folder), image_size=8, validation_examples=0, max_corrupt_share=0.2)
    assert len(data.train) == 8 and "br\\xf6ken.png (it is no image)" in caplog.text
    settings = writing.Settings(image_size=8, classes="all", min_side=0, validation_per_class=0)
    manifest = writing.prepare(sources.Folder(str(folder)), folder / "out", settings, 1, max_corrupt_share=0.5)
    assert manifest.splits["train"].corrupt == ("train/cat/br\\xf6ken.png (it is no image)",)
    assert DatasetManifest.read(folder / "out") == manifest


def test_a_name_is_shown_in_ascii_only_where_it_must_be():
    assert shown("café") == "café" and shown("a\nb\udcff") == "a\\u000ab\\xff"
