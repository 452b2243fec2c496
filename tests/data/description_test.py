"""What a run keeps of its data, and what is said of data that differ."""

import numpy as np
import PIL.Image
import pytest

from robgan_tf.data import description
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.sources.image_folder import image_folder

NAMES = ("apple", "beetle", "cup")


def examples(*labels):
    images = np.arange(len(labels) * 48, dtype=np.int64).reshape(-1, 4, 4, 3).astype(np.uint8)
    return Examples(images, np.asarray(labels, np.int32))


def described(names=NAMES, train=(0, 0, 1, 2), **options):
    return description.describe(ImageData("d", names, examples(*train), examples(1), examples(0, 1, 2), **options))


def test_a_description_has_shape_classes_counts_and_fingerprint():
    found = described(fingerprint={"version": "3.0"})
    assert found == {
        "image_shape": [4, 4, 3],
        "class_names": ["apple", "beetle", "cup"],
        "counts": {"train": [2, 1, 1], "validation": [0, 1, 0], "test": [1, 1, 1]},
        "fingerprint": {"version": "3.0"},
    }
    assert description.differences(found, found) == ""


def test_data_without_a_fingerprint_are_told_by_their_images_and_labels():
    assert described() == described()
    changed = described(train=(0, 0, 2, 1))
    assert description.differences(described(), changed) == "train: other files than before"


def test_a_renamed_class_is_named_with_all_labels_that_it_shifts():
    renamed = described(("beetle", "cup", "zebra"), train=(0, 1, 2, 2), fingerprint={})
    assert description.differences(described(fingerprint={}), renamed) == (
        "class 'apple' (label 0) is gone; class 'zebra' (label 2) is new; class 'beetle' had label 1, has 0; "
        "class 'cup' had label 2, has 1; validation: class 'beetle' had 1 images, has 0; validation: class 'cup' had 0 "
        "images, has 1"
    )


def test_counts_sizes_and_versions_that_differ_are_named():
    before = described(fingerprint={"version": "3.0.1"})
    after = {**described(train=(0, 1, 2, 2), fingerprint={"version": "3.0.2"}), "image_shape": [8, 8, 3]}
    assert description.differences(before, after) == (
        "images of shape 4 x 4 x 3 are 8 x 8 x 3 now; train: class 'apple' had 2 images, has 1; "
        "train: class 'cup' had 1 images, has 2; version was 3.0.1, is 3.0.2"
    )


def test_of_many_differences_some_are_named_and_the_rest_counted():
    names = tuple(f"{number:03}" for number in range(500))
    before = {**described(fingerprint={}), "class_names": names, "counts": {"train": [1] * 500}}
    after = {**before, "counts": {"train": [2] * 500}}
    found = description.differences(before, after)
    assert found.count("had 1 images, has 2") == 8 and found.endswith("; and 492 more")


def test_something_else_is_no_description():
    with pytest.raises(ValueError, match="it has no image_shape, class_names, counts, fingerprint"):
        description.differences({}, described())


@pytest.fixture
def folder(tmp_path):
    """Six images of each of two classes to train on, two each to test, of sizes of their own."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("apple", "cup"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                image = PIL.Image.fromarray(random.integers(0, 256, [12 + number, 12, 3], np.uint8))
                image.save(tmp_path / "data" / split / name / f"{number}.png")
    return tmp_path / "data"


def of_folder(folder, **options):
    return description.describe(image_folder(str(folder), image_size=8, validation_examples=2, **options))


def test_a_folder_that_was_moved_is_the_same_data_and_so_is_one_that_is_read_another_way(folder, tmp_path):
    before = of_folder(folder)
    folder.rename(tmp_path / "elsewhere")
    assert description.differences(before, of_folder(tmp_path / "elsewhere")) == ""
    assert description.differences(before, of_folder(tmp_path / "elsewhere", in_memory=False)) == ""


def test_an_image_that_was_replaced_is_noticed_in_its_class(folder):
    before = of_folder(folder)
    PIL.Image.new("RGB", (30, 30)).save(folder / "train" / "cup" / "3.png")
    assert description.differences(before, of_folder(folder)) == "train/cup: other files than before"


def test_a_folder_that_is_not_there_is_said_to_be_relative_and_to_what(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"no folder photos \(a relative path, looked for in {tmp_path}\)"):
        image_folder("photos", image_size=8)


def test_classes_far_from_equally_large_are_said_with_the_extremes():
    assert description.uneven_classes(described(train=[0] * 5 + [1, 2])) is None
    sentence = description.uneven_classes(described(train=[0] + [1] * 6 + [2]))
    assert sentence.startswith("The classes have from 1 (apple) to 6 (beetle) training images")
