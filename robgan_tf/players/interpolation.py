"""Images between images: along a path of noise vectors, or from class to class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import ConditionalBatchNorm
from robgan_tf.players.sampling import generate


def noise_path(anchors: np.ndarray, steps: int, closed: bool = False) -> np.ndarray:
    """Returns noise along the arcs from each of `anchors` to the next one.

    On arcs and not straight lines: in many dimensions a normal vector has nearly always the same length, and the middle
    of a line is shorter than any that the generator has seen.

    Args:
        anchors: noise float32 [A, ..., latent_dim].
        steps: number of points in all, the anchors among them where `steps` allows.
        closed: whether the path goes back to the first anchor, and ends one step in front of it.

    Returns:
        float32 [steps, ..., latent_dim].
    """
    points = _places(len(anchors), steps, closed)
    path = []
    for first, second, share in points:
        one, other = anchors[first], anchors[second]
        cosine = np.sum(one * other, axis=-1, keepdims=True)
        cosine /= np.linalg.norm(one, axis=-1, keepdims=True) * np.linalg.norm(other, axis=-1, keepdims=True)
        angle = np.maximum(np.arccos(np.clip(cosine, -1, 1)), 1e-6)
        path.append((np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle))
    return np.stack(path).astype(np.float32)


def class_path(labels: Sequence[int], num_classes: int, steps: int, closed: bool = False) -> np.ndarray:
    """Returns shares of the classes, float32 [steps, num_classes], that lead from each of `labels` to the next one."""
    shares = np.zeros([steps, num_classes], np.float32)
    for row, (first, second, share) in enumerate(_places(len(labels), steps, closed)):
        shares[row, labels[first]] += 1 - share
        shares[row, labels[second]] += share
    return shares


def _places(anchors: int, steps: int, closed: bool) -> list[tuple[int, int, float]]:
    """For each step the anchor behind, the one ahead, and how far it is between them, 0 to 1."""
    arcs = anchors if closed else max(anchors - 1, 1)
    at = np.linspace(0, arcs, steps, endpoint=not closed)
    behind = np.minimum(at.astype(int), arcs - 1)
    return [(int(arc), int(arc + 1) % anchors, float(place - arc)) for place, arc in zip(at, behind)]


def blended_generator(
    generator: keras.Model, make: Callable[[int], keras.Model], shares: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    """Returns a generator of mixed classes: mixing the scales and offsets of the classes' batch norm.

    Args:
        generator: a generator of K classes.
        make: makes another one, of the same widths, with the given number of classes.
        shares: of the K classes in each of the mixed ones, [M, K].

    Returns:
        Function of noise [B, latent_dim] and numbers of mixed classes, int [B], to images [B, H, W, C] in [-1, 1].
    """
    mixed = make(len(shares))
    tables = {
        id(table)
        for norm in generator.batch_norm_layers
        if isinstance(norm, ConditionalBatchNorm)
        for table in (norm.gamma, norm.beta)
    }
    for weight, target in zip(generator.weights, mixed.weights):
        target.assign(shares @ weight.numpy() if id(weight) in tables else weight.numpy())
    return lambda noise, classes: generate(mixed, noise, tf.cast(classes, tf.int32))
