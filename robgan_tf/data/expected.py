"""Data that are not there yet: what a configuration expects of them, so that a run can be planned without them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import gin
import numpy as np

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.names import first_line
from robgan_tf.data.sources.record_stream import Records
from robgan_tf.values import checked, switch, whole

_may_prepare = contextvars.ContextVar("may_prepare", default=True)


class MissingDataError(ValueError):
    """The data are not where the configuration says. A source of your own may raise it, or a FileNotFoundError."""


@contextlib.contextmanager
def nothing_prepared() -> Iterator[None]:
    """Within it, sources neither download nor write: they read what is there, or raise `MissingDataError`."""
    token = _may_prepare.set(False)
    try:
        yield
    finally:
        _may_prepare.reset(token)


def may_prepare() -> bool:
    """Whether a source may download and write, see `nothing_prepared`."""
    return _may_prepare.get()


def data_or_expected(data: Callable, expected: Callable | None) -> tuple[ImageData, str | None]:
    """Returns a data set, or what is expected of it where it is missing. For a dry run.

    Args:
        data: makes the data set.
        expected: makes what takes its place, see `expected_data`; None for nothing.

    Returns:
        The data, and where they are missing what is said of that, else None.

    Raises:
        MissingDataError: where the data are missing, and nothing is expected of them.
    """
    try:
        with nothing_prepared():
            return data(), None
    except (MissingDataError, FileNotFoundError) as error:
        if expected is not None:
            return expected(), first_line(error)
        raise MissingDataError(
            f"{first_line(error)} For a dry run without them, say what they will be: Experiment.expected_data = "
            f"@expected_data, and expected_data.train_images, validation_images, test_images, num_classes, image_size."
        ) from error


@gin.configurable
@may_change()
@checked(
    train_images=whole(1),
    validation_images=whole(0),
    test_images=whole(1),
    num_classes=whole(2),
    image_size=whole(1),
    channels=whole(1),
    in_memory=switch(),
)
def expected_data(
    train_images: int = gin.REQUIRED,
    validation_images: int = gin.REQUIRED,
    test_images: int = gin.REQUIRED,
    num_classes: int = gin.REQUIRED,
    image_size: int = gin.REQUIRED,
    channels: int = 3,
    in_memory: bool = True,
) -> ImageData:
    """What a configuration expects its data to be: for a dry run (`Experiment.expected_data`) where they are missing.

    Args:
        train_images: number of images that are trained on, without those for validation.
        validation_images: number of images that are kept out of training.
        test_images: number of test images.
        num_classes: number of classes, with as many images each.
        image_size: side in pixels.
        channels: 3 for RGB, 1 for grey.
        in_memory: whether the training images will be held in memory, which counts in what the run needs.

    Returns:
        ImageData of the right sizes, whose images are black and take no memory. It can be counted, not trained on.

    Raises:
        ValueError: if a number is out of its range.
    """
    shape = (image_size, image_size, channels)

    def black(count: int) -> Examples:
        # A view of one byte, which tells the size of the whole.
        return Examples(np.broadcast_to(np.uint8(0), (count, *shape)), _labels(count, num_classes))

    if in_memory:
        train = black(train_images)
    else:
        counts = np.bincount(_labels(train_images, num_classes), minlength=num_classes).tolist()
        train = Records((), tuple(counts), image_size, channels)
    names = [f"class {label}" for label in range(num_classes)]
    return ImageData("expected data", tuple(names), train, black(validation_images), black(test_images), {})


def _labels(count: int, num_classes: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32) % num_classes
