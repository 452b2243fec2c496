"""Pictures of a trained generator for people: grids, interpolations, animations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import PIL.Image
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.interpolation import blended_generator, class_path, noise_path
from robgan_tf.run.grids import image_grid

# Of an animation: images in it, and milliseconds that each is shown.
FRAMES, _MILLISECONDS = 48, 80
# Noise vectors that an animation passes through.
_STATIONS = 3


def noise_interpolation(
    generator: keras.Model, class_names: Sequence[str], labels: Sequence[int], columns: int, seed: int
) -> PIL.Image.Image:
    """Returns a grid with a row for each class, from one noise vector on the left to another on the right."""
    path = noise_path(_noise([2, generator.latent_dim], seed), columns)
    images = [generator((path, np.full([columns], label)), training=False) for label in labels]
    return image_grid(tf.concat(images, axis=0), columns, [class_names[label] for label in labels])


def noise_animation(
    generator: keras.Model, class_names: Sequence[str], labels: Sequence[int], columns: int, seed: int
) -> list[PIL.Image.Image]:
    """Returns the frames of a loop: a row for each class, and in each column another path of noise vectors."""
    path = noise_path(_noise([_STATIONS, columns, generator.latent_dim], seed), FRAMES, closed=True)
    classes = np.repeat(labels, columns)
    names = [class_names[label] for label in labels]
    return [
        image_grid(generator((np.tile(noise, [len(labels), 1]), classes), training=False), columns, names)
        for noise in path
    ]


def class_interpolation(
    generator: keras.Model,
    make: Callable[[int], keras.Model],
    class_names: Sequence[str],
    labels: Sequence[int],
    columns: int,
    seed: int,
) -> PIL.Image.Image:
    """Returns a grid with a row from each of `labels` to the next one, all of the same noise."""
    pairs = list(zip(labels, labels[1:]))
    shares = np.concatenate([class_path(pair, len(class_names), columns) for pair in pairs])
    noise = np.repeat(_noise([1, generator.latent_dim], seed), len(shares), axis=0)
    images = blended_generator(generator, make, shares)(noise, np.arange(len(shares)))
    return image_grid(images, columns, [f"{class_names[one]} to {class_names[other]}" for one, other in pairs])


def class_animation(
    generator: keras.Model,
    make: Callable[[int], keras.Model],
    class_names: Sequence[str],
    labels: Sequence[int],
    columns: int,
    seed: int,
) -> list[PIL.Image.Image]:
    """Returns the frames of a loop through `labels`: four rows of `columns` noise vectors, all of the same class."""
    blended = blended_generator(generator, make, class_path(labels, len(class_names), FRAMES, closed=True))
    noise = _noise([4 * columns, generator.latent_dim], seed)
    return [image_grid(blended(noise, np.full([len(noise)], frame)), columns) for frame in range(FRAMES)]


def write_animation(frames: Sequence[PIL.Image.Image], path: str):
    """Writes frames of the same size as a GIF that loops."""
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)


def _noise(shape: Sequence[int], seed: int) -> np.ndarray:
    return tf.random.stateless_normal(shape, [seed, 0x6B1D]).numpy()
