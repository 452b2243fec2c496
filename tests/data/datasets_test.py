import re

import numpy as np
import pytest

from robgan_tf.data.datasets import Examples, validation_cut


def numbered_examples(count, size=4):
    """Examples whose label is their number, sorted, and whose pixels hold it too."""
    labels = np.arange(count, dtype=np.int32)
    images = np.broadcast_to((labels % 256)[:, None, None, None], (count, size, size, 3)).astype(np.uint8)
    return Examples(images, labels)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e: e.take(-1), "count must be 0 or more, got -1"),
        (lambda e: Examples(e.images.astype(np.float32), e.labels), "must be uint8 .* got float32"),
        (lambda e: Examples(e.images, e.labels[:3]), "must be int32 .10., one for each image"),
    ],
)
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


def test_validation_leaves_each_class_an_image_to_train_on():
    labels = np.repeat(np.arange(3, dtype=np.int32), [2, 8, 20])
    with pytest.raises(ValueError, match="pets: validation_examples must be within 0..[0-9]+, .* got 29") as caught:
        validation_cut("pets", "abc", labels, 29, seed=0)
    most = int(re.search(r"within 0\.\.(\d+)", str(caught.value))[1])
    chosen, kept = validation_cut("pets", "abc", labels, most, seed=0)
    assert len(chosen) == most and set(labels[kept]) == {0, 1, 2}
    assert sorted([*chosen, *kept]) == list(range(30))
    with pytest.raises(ValueError, match=f"got {most + 1}, which takes all of a"):  # the bound is the true one
        validation_cut("pets", "abc", labels, most + 1, seed=0)
    with pytest.raises(ValueError, match="got -1[.]"):
        validation_cut("pets", "abc", labels, -1, seed=0)


def test_a_class_without_training_images_is_named():
    with pytest.raises(ValueError, match="pets: there is no training image of b, d; add some or leave the class out"):
        validation_cut("pets", "abcd", np.array([0, 2, 2], np.int32), 0, seed=0)
