import numpy as np
import pytest

from robgan_tf.data.datasets import Examples


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
