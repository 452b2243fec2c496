"""From noise and labels to images: the one place where a generator is sampled from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.keras2 import keras

# A grid of images shows so many classes of a data set that has more.
_SHOWN_CLASSES = 10
# Of the noise of grids and animations: sets it apart from other uses of a seed.
_GRID = 0x6B1D


def draw_noise(generator: keras.Model, shape: Sequence[int], seed) -> tf.Tensor:
    """Returns z ~ N(0, I), float32 [*shape, latent_dim]: the same for the same shape and seed (two integers)."""
    return tf.random.stateless_normal([*shape, generator.latent_dim], seed)


def grid_noise(generator: keras.Model, shape: Sequence[int], seed: int) -> tf.Tensor:
    """Returns the noise of grids and animations of one seed, see `draw_noise`."""
    return draw_noise(generator, shape, [seed, _GRID])


def generate(generator: keras.Model, noise, labels) -> tf.Tensor:
    """Returns images float32 [B, H, W, C] in [-1, 1] of noise [B, latent_dim] and labels int [B], in inference mode."""
    return generator((noise, labels), training=False)


def images_by_class(generator: keras.Model, labels: Sequence[int], columns: int, seed: int) -> tf.Tensor:
    """Returns images float32 [len(labels), columns, H, W, C] in [-1, 1]; a column shares its noise z."""
    noise = grid_noise(generator, [columns], seed)
    return tf.stack([generate(generator, noise, tf.fill([columns], int(label))) for label in labels])


def shown_labels(num_classes: int) -> np.ndarray:
    """Returns the classes that a grid shows: all, or ten, evenly chosen."""
    return np.unique(np.linspace(0, num_classes - 1, _SHOWN_CLASSES).astype(int))
