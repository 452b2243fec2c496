"""How much alike the images of a class are, pixel by pixel (Odena et al., ICML 2017): what shows a collapse."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

# Weights of the scales (Wang et al., 2003), and the side of the window.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11


def scales(side: int) -> int:
    """Returns how many scales MS-SSIM can have with images of this side: of five, those no smaller than the window."""
    return sum(side // 2**scale >= _WINDOW for scale in range(len(_WEIGHTS)))


def within_class_similarity(batches: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int) -> np.ndarray | None:
    """Returns the mean MS-SSIM of pairs of different images of a class, [K]; 1 where all are the same image.

    Of the five scales as many as fit are taken, see `scales`, with their weights scaled to a sum of 1.

    Args:
        batches: images uint8 [B, H, W, C] and labels int32 [B]; an image is paired with the next of its class, and
            none is in two pairs.
        num_classes: K.

    Returns:
        float64 [K], NaN for a class without a pair; None where the images are too small for the window.
    """
    totals, pairs = np.zeros(num_classes), np.zeros(num_classes)
    waiting = {}
    weights = None
    for images, labels in batches:
        if weights is None:
            count = scales(min(images.shape[1:3]))
            if not count:
                return None
            weights = np.array(_WEIGHTS[:count]) / np.sum(_WEIGHTS[:count])
        first, second, classes = [], [], []
        for image, label in zip(images, labels):
            if label in waiting:
                first.append(waiting.pop(label))
                second.append(image)
                classes.append(label)
            else:
                waiting[label] = image
        if first:
            found = tf.image.ssim_multiscale(
                tf.constant(np.stack(first)), tf.constant(np.stack(second)), 255, list(weights), filter_size=_WINDOW
            )
            np.add.at(totals, classes, found.numpy())
            np.add.at(pairs, classes, 1)
    return np.where(pairs > 0, totals / np.maximum(pairs, 1), np.nan)
