"""Filters and moves of images [B, H, W, C], by tensorflow-addons where it is there, else by SciPy.

tensorflow-addons imports on no TensorFlow newer than 2.15. Both ways give the same images to 1e-5 of the range of the
values. This is the one module that imports tensorflow-addons. Nothing here has gradients, or runs within a
`tf.function`.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings

import numpy as np
import scipy.ndimage
import tensorflow as tf

# What lies beyond the border of an image that is moved: its mirror image, so that no black wedges give it away. The
# value at the border stands twice there.
_MOVED = {"interpolation": "bilinear", "fill_mode": "reflect"}


class SciPyOperations:
    """The operations by SciPy, which runs beside every TensorFlow."""

    def gaussian_filter(self, images, sigma: float, reach: int) -> tf.Tensor:
        """Blurs by a Gaussian of `sigma` pixels that is cut off `reach` pixels from its middle."""
        blurred = scipy.ndimage.gaussian_filter(
            np.asarray(images), [0, sigma, sigma, 0], mode="mirror", radius=[0, reach, reach, 0]
        )
        return tf.constant(blurred)

    def median_filter(self, images, window: tuple[int, int]) -> tf.Tensor:
        """Replaces each value by the median of those in a window (height, width) around it."""
        return tf.constant(scipy.ndimage.median_filter(np.asarray(images), [1, *window, 1], mode="mirror"))

    def rotate(self, images, angles) -> tf.Tensor:
        """Turns each image around its middle by its angle, float32 [B], in radians, against the clock."""
        height, width = images.shape[1:3]
        cos, sin = np.cos(angles), np.sin(angles)
        zero = np.zeros_like(cos)
        # The middle of the image stays where it is.
        left = ((width - 1) - (cos * (width - 1) - sin * (height - 1))) / 2
        top = ((height - 1) - (sin * (width - 1) + cos * (height - 1))) / 2
        return self.transform(images, np.stack([cos, -sin, left, sin, cos, top, zero, zero], axis=1))

    def translate(self, images, shifts) -> tf.Tensor:
        """Moves each image by its shift (to the right, downwards), float32 [B, 2], in pixels."""
        right, down = np.asarray(shifts, np.float64).T
        one, zero = np.ones_like(right), np.zeros_like(right)
        return self.transform(images, np.stack([one, zero, -right, zero, one, -down, zero, zero], axis=1))

    def transform(self, images, matrices) -> tf.Tensor:
        """Takes pixel (x, y) of each image from (a0 x + a1 y + a2, b0 x + b1 y + b2); matrices [B, 8]: a, b, 0, 0."""
        moved = []
        for image, (a0, a1, a2, b0, b1, b2, *_) in zip(np.asarray(images), np.asarray(matrices, np.float64)):
            rows_and_columns, offset = [[b1, b0], [a1, a0]], [b2, a2]
            channels = [
                scipy.ndimage.affine_transform(channel, rows_and_columns, offset, order=1, mode="reflect")
                for channel in np.moveaxis(image, -1, 0)
            ]
            moved.append(np.stack(channels, axis=-1))
        return tf.constant(np.stack(moved))

    def cut_out(self, images, size: int, middles) -> tf.Tensor:
        """Covers a square of an even side of `size` pixels with 0; its middles (row, column) are int [B, 2]."""
        covered = np.array(images)
        for image, middle in zip(covered, np.asarray(middles)):
            (top, left), (bottom, right) = np.maximum(middle - size // 2, 0), middle + size // 2
            image[top:bottom, left:right] = 0
        return tf.constant(covered)

    def warp(self, images, flow) -> tf.Tensor:
        """Takes pixel (row, column) from (row, column) - flow [B, H, W, 2]; beyond the border is the border."""
        rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
        places = np.stack([rows, columns], axis=-1) - np.asarray(flow)
        moved = [
            [
                scipy.ndimage.map_coordinates(channel, np.moveaxis(place, -1, 0), order=1, mode="nearest")
                for channel in np.moveaxis(image, -1, 0)
            ]
            for image, place in zip(np.asarray(images), places)
        ]
        return tf.constant(np.moveaxis(np.array(moved, np.float32), 1, -1))


class AddonsOperations:
    """The same by tensorflow-addons."""

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its end
            import tensorflow_addons as tfa
        self._image = tfa.image

    # The Python functions of the two filters: compiled, they would be anew for each size of the window, of which
    # TensorFlow warns.

    def gaussian_filter(self, images, sigma, reach):
        return self._image.gaussian_filter2d.python_function(images, 2 * reach + 1, sigma)

    def median_filter(self, images, window):
        return self._image.median_filter2d.python_function(images, window)

    def rotate(self, images, angles):
        return self._image.rotate(images, angles, **_MOVED)

    def translate(self, images, shifts):
        return self._image.translate(images, shifts, **_MOVED)

    def transform(self, images, matrices):
        return self._image.transform(images, matrices, **_MOVED)

    def cut_out(self, images, size, middles):
        return self._image.cutout(images, size, middles)

    def warp(self, images, flow):
        return self._image.dense_image_warp(images, flow)


@functools.cache
def image_operations() -> AddonsOperations | SciPyOperations:
    """Returns the operations by tensorflow-addons where it can be imported, else by SciPy."""
    usable = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16) and importlib.util.find_spec("tensorflow_addons")
    return AddonsOperations() if usable else SciPyOperations()
