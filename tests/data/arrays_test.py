"""Data sets of NumPy arrays."""

import numpy as np
import pytest

from robgan_tf.data.arrays import data_from_arrays


def arrays(count, side=4, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, [count, side, side, 1], np.uint8), random.integers(0, 2, [count])


def test_arrays_become_the_splits_and_labels_may_be_a_column():
    (images, labels), test = arrays(6), arrays(4, seed=1)
    data = data_from_arrays((images, labels[:, None]), test, ["no", "yes"], name="mine")
    assert (data.name, data.class_names, data.image_shape) == ("mine", ("no", "yes"), (4, 4, 1))
    np.testing.assert_array_equal(data.train.images, images)
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.images, test[0])
    assert data.train.labels.dtype == np.int32 and len(data.validation) == 0


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"mine: training images are \(4, 4, 1\), test images \(5, 5, 1\)"):
        data_from_arrays(arrays(6), arrays(4, side=5), ["no", "yes"], name="mine")


def test_labels_that_have_no_name_are_refused():
    images, labels = arrays(6)
    with pytest.raises(ValueError, match="within 0..1, for 2 classes; they go from 2 to 3"):
        data_from_arrays((images, labels % 2 + 2), arrays(4), ["no", "yes"])
