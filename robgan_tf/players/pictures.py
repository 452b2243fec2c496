"""Pictures of a trained generator for people: grids, interpolations, animations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import PIL.Image
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.interpolation import blended_generator, class_path, noise_path
from robgan_tf.players.sampling import generate, grid_noise, images_by_class, shown_labels
from robgan_tf.run.grids import image_grid

# Of an animation: images in it, and milliseconds that each is shown.
FRAMES, _MILLISECONDS = 48, 80
# Noise vectors that an animation passes through.
_STATIONS = 3


def generated_grid(
    generator: keras.Model,
    class_names: Sequence[str],
    labels: Sequence[int] | None = None,
    columns: int = 8,
    seed: int = 0,
) -> PIL.Image.Image:
    """Returns a labelled grid of generated images, a row for each class; a column shares its noise z.

    Args:
        generator: maps (z, labels) to images.
        class_names: names of all classes.
        labels: the classes to show; ten, evenly chosen, if None.
        columns: images of each class.
        seed: seed of the noise.
    """
    labels = shown_labels(len(class_names)) if labels is None else labels
    return labelled_grid(images_by_class(generator, labels, columns, seed), [class_names[label] for label in labels])


def labelled_grid(images: tf.Tensor, row_names: Sequence[str]) -> PIL.Image.Image:
    """Returns a grid of images [rows, columns, H, W, C], with a name for each row."""
    return image_grid(tf.reshape(images, [-1, *images.shape[2:]]), images.shape[1], row_names)


def noise_interpolation(
    generator: keras.Model, class_names: Sequence[str], labels: Sequence[int], columns: int, seed: int
) -> PIL.Image.Image:
    """Returns a grid with a row for each class, from one noise vector on the left to another on the right."""
    path = noise_path(grid_noise(generator, [2], seed).numpy(), columns)
    images = [generate(generator, path, np.full([columns], label)) for label in labels]
    return image_grid(tf.concat(images, axis=0), columns, [class_names[label] for label in labels])


def noise_animation(
    generator: keras.Model, class_names: Sequence[str], labels: Sequence[int], columns: int, seed: int
) -> list[PIL.Image.Image]:
    """Returns the frames of a loop: a row for each class, and in each column another path of noise vectors."""
    path = noise_path(grid_noise(generator, [_STATIONS, columns], seed).numpy(), FRAMES, closed=True)
    classes = np.repeat(labels, columns)
    names = [class_names[label] for label in labels]
    return [
        image_grid(generate(generator, np.tile(noise, [len(labels), 1]), classes), columns, names) for noise in path
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
    noise = np.repeat(grid_noise(generator, [1], seed), len(shares), axis=0)
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
    noise = grid_noise(generator, [4 * columns], seed).numpy()
    return [image_grid(blended(noise, np.full([len(noise)], frame)), columns) for frame in range(FRAMES)]


def write_animation(frames: Sequence[PIL.Image.Image], path: str):
    """Writes frames of the same size as a GIF that loops."""
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
