"""Data of the reader's own, as NumPy arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robgan_tf.data.datasets import Examples, ImageData, image_data


def data_from_arrays(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    name: str = "arrays",
    validation_examples: int = 0,
    seed: int = 0,
) -> ImageData:
    """Makes a data set, for an evaluation or a run, of arrays as `keras.datasets.cifar10.load_data` gives them.

    Args:
        train: images uint8 [N, H, W, C] in 0..255, and labels int [N] or [N, 1], from 0.
        test: held-out ones of the same shape.
        class_names: a name for each class, in the order of the labels.
        name: what reports call the data.
        validation_examples: how many training images are moved to the validation split, which fine-tuning needs.
        seed: of their choice.

    Raises:
        ValueError: for other shapes or types, labels that are no class, or more validation images than there are.
    """
    class_names = tuple(map(str, class_names))
    splits = [examples_from_arrays(*split, len(class_names)) for split in (train, test)]
    shapes = [split.image_shape for split in splits]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{name}: training images are {shapes[0]}, test images {shapes[1]}: make them equal.")
    if not validation_examples:
        return ImageData(name, class_names, splits[0], splits[0].select(np.zeros(0, int)), splits[1])
    train = Examples(splits[0].images.copy(), splits[0].labels.copy())  # which `image_data` writes over
    return image_data(name, class_names, train, splits[1], validation_examples, seed)


def examples_from_arrays(images: np.ndarray, labels: np.ndarray | None, num_classes: int) -> Examples:
    """Returns labelled images of images uint8 [N, H, W, C] and labels int [N] or [N, 1].

    Raises:
        ValueError: for other shapes or types, none, or labels that are no class.
    """
    images = np.asarray(images)
    if labels is None:
        raise ValueError("The labels are missing: give images and labels, an integer for each image.")
    labels = np.asarray(labels)
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"Images must be uint8 [N, H, W, C] in 0..255, got {images.dtype} {list(images.shape)}. Floats in [0, 1]: "
            f"(255 * images).round().astype('uint8'). Without channels: images[..., None]."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise ValueError(
            f"Labels must be integers [{len(images)}], one for each image, got {labels.dtype} {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels must be within 0..{num_classes - 1}, for {num_classes} classes; they go from {labels.min()} to "
            f"{labels.max()}."
        )
    return Examples(images, labels.astype(np.int32))
