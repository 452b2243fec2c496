"""Labelled images in an .npz file: sets of generated images, or images from elsewhere."""

from __future__ import annotations

import zipfile

import numpy as np

from robgan_tf.data.datasets import Examples


def read_samples(path: str, num_classes: int) -> Examples:
    """Reads a sample set, as `python -m robgan_tf.sample --what=samples` writes it.

    Args:
        path: an .npz file with `images` uint8 [N, H, W, C] in 0..255 and `labels`, integers [N].
        num_classes: number of classes of the data that the set is used with.

    Raises:
        ValueError: for a file that is none, or that holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not such a file"
        raise ValueError(
            f"{path} can't be read ({reason}): it must be an .npz file with images and labels, as "
            f"python -m robgan_tf.sample --run_dir=R --what=samples --out=FILE.npz writes it."
        ) from error
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"{path}: images must be uint8 of shape [N, H, W, C] with N > 0, got {images.dtype} of shape "
            f"{list(images.shape)}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels must be integers of shape [{len(images)}], one for each image, got {labels.dtype} of "
            f"shape {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{path}: labels are from {labels.min()} to {labels.max()}, the data has the classes 0 to "
            f"{num_classes - 1}: take samples of a generator of the same data."
        )
    return Examples(images, labels.astype(np.int32))
