"""How an attack learns what its images are worth, and a loop over those that still stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

import tensorflow as tf


class Score(NamedTuple):
    """What an attack learns of images that it tries.

    Attributes:
        loss: of each image, [B]: the higher, the better for the attack.
        broken: whether the classifier gives another class, or another as well: ties count as wrong; bool [B].
    """

    loss: tf.Tensor
    broken: tf.Tensor


def by_loss_alone(loss: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], Score]:
    """Returns what scores images by a loss [B, H, W, C] -> [B], as training gives it: none of them is ever broken."""

    def score(images):
        found = loss(images)
        return Score(found, tf.zeros_like(found, tf.bool))

    return score


class Judge:
    """Scores the images that an attack tries; in an evaluation also some rows of its batch alone.

    Args:
        score: (images [B, H, W, C], *columns) -> `Score`.
        columns: what belongs to each image, such as its label, each [B]; None where only the whole batch can be scored,
            as with a loss that is given by a training stage.
        splits: whether the loop below may leave images out; never without `columns`.
    """

    def __init__(self, score: Callable[..., Score], columns: Sequence[tf.Tensor] | None = None, splits: bool = True):
        self.score = score
        self.columns = columns
        self.splits = splits and columns is not None

    def __call__(self, images: tf.Tensor) -> Score:
        """Returns the score of `images`, one for each row of the batch."""
        return self.score(images, *(self.columns or ()))

    def of(self, rows: tf.Tensor) -> Judge:
        """Returns the judge of these rows alone, int [b]."""
        return Judge(self.score, [tf.gather(column, rows) for column in self.columns])


def repeat_on_standing(
    step: Callable, state: NamedTuple, judge: Judge, count: int, standing: Callable[[NamedTuple], tf.Tensor]
) -> NamedTuple:
    """Repeats a step of an attack `count` times, on the images that still stand: fallen ones cost nothing more.

    Whenever an eighth of the images at work has fallen, they are left out, their state as it was then. It ends when all
    have fallen.

    Args:
        step: (index, state, judge) -> the state after the step `index`, from 0.
        state: tensors [B, ...] alone.
        judge: gives the score of images.
        count: number of steps, a number or an int32 scalar.
        standing: tells of a state which of its images go on, bool [B].
    """

    def steps(index, state, judge, fewest):
        def enough(index, state):
            return (index < count) & (tf.math.count_nonzero(standing(state), dtype=tf.int32) >= fewest)

        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, state)
        return tf.while_loop(
            enough,
            lambda index, state: (index + 1, _as_shaped(step(index, state, judge), shapes)),
            (index, state),
            maximum_iterations=count,  # by which the dry run knows how many at most
        )

    def stretch(index, state):
        rows = tf.where(standing(state))[:, 0]
        some = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), state)
        number = tf.shape(rows)[0]
        index, some = steps(index, some, judge.of(rows), tf.maximum(number - number // 8, 1))
        return index, tf.nest.map_structure(
            lambda whole, part: tf.tensor_scatter_nd_update(whole, rows[:, tf.newaxis], part), state, some
        )

    if not judge.splits:
        return steps(tf.constant(0), state, judge, 1)[1]
    return tf.while_loop(
        lambda index, state: (index < count) & tf.reduce_any(standing(state)), stretch, (tf.constant(0), state)
    )[1]


def _as_shaped(state, shapes):
    """Tells TensorFlow the shapes that a loop keeps, where a step has lost them."""
    return tf.nest.map_structure(tf.ensure_shape, state, shapes)


def over_images(values: tf.Tensor) -> tf.Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
