"""Square attack: random search that needs the classifier's answers alone (Andriushchenko et al., ECCV 2020)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.judge import over_images, repeat_on_standing
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.threat_model import L1, L2, LInf, ThreatModel
from robgan_tf.values import check, number, whole

# After these shares of the queries the squares' area is halved (section 4.1: 10, 50, 200, ... of 10,000).
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


class _State(NamedTuple):
    """What the loop carries: images [B, H, W, C], loss and whether the classifier is wrong [B]."""

    clean: tf.Tensor
    image: tf.Tensor
    loss: tf.Tensor
    broken: tf.Tensor


@gin.register
class Square(Attack):
    """Changes a random square of the perturbation at a time, and keeps what lowers the right class's margin.

    Asks for no gradient, so masked ones don't help against it. A point that is no worse is kept, too, so that it moves
    along plateaus, such as those of hard labels. An image is left alone once it is misclassified. (In
    training it raises the loss that it is given, instead of lowering the margin.)

    Args:
        threat_model: `LInf`, `L2` or `L1`.
        queries: how many points are tried; 5,000 in AutoAttack.
        initial_share: share of the image's area that the first squares cover (p in the paper).
        restarts: how many times it is tried with other random numbers.

    Raises:
        ValueError: for settings out of their range, or another norm.
    """

    name = "square"
    needs_gradient = False
    compiles = False  # shapes that depend on the query; XLA also draws other whole numbers

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        queries: int = 5000,
        initial_share: float = 0.8,
        restarts: int = 1,
    ):
        super().__init__(threat_model, margin_loss, restarts=restarts)
        check("Square.queries", queries, whole(1))
        check("Square.initial_share", initial_share, number(above=0, most=1), "the paper's is 0.8")
        if not isinstance(threat_model, (LInf, L2, L1)):
            raise ValueError(f"Square knows the threat models @LInf(), @L2() and @L1(), got {threat_model!r}.")
        self.queries = queries
        self.initial_share = initial_share

    @property
    def label(self):
        return f"Square, {self.queries} queries{self.runs_label()}"

    def start(self, images, seed=None):
        """See `Attack`: stripes or bumps at the border of the ball."""
        if seed is None:
            raise ValueError("Square is random and needs a seed (int32 [2]).")
        perturbation = first_guess(self.threat_model, tf.shape(images), _seeds(seed)[0])
        return self.threat_model.project(images + perturbation, images)

    def search(self, start, images, judge, seed):
        """See `Attack`."""
        ball = self.threat_model
        sides = tf.constant(square_sides(self.queries, self.initial_share, *images.shape[1:3]))

        def query(index, state, judge):
            random = tf.random.experimental.stateless_fold_in(_seeds(seed)[1], index)
            candidate = ball.project(
                state.clean + move(ball, state.image - state.clean, sides[index], random), state.clean
            )
            loss, broken = judge(candidate)
            # On a plateau, as hard labels have, the search moves on.
            kept = (loss >= state.loss) & ~state.broken
            return _State(
                clean=state.clean,
                image=tf.where(over_images(kept), candidate, state.image),
                loss=tf.where(kept, loss, state.loss),
                broken=state.broken | (kept & broken),
            )

        loss, broken = judge(start)
        state = repeat_on_standing(
            query, _State(images, start, loss, broken), judge, self.queries, lambda state: ~state.broken
        )
        return state.image

    def settings(self):
        """See `Attack`."""
        return {"queries": self.queries, "initial_share": self.initial_share, "restarts": self.restarts}


def square_sides(queries: int, initial_share: float, height: int, width: int) -> np.ndarray:
    """Returns the side of the square for each query, int32 [queries], in pixels."""
    halvings = np.sum(np.arange(queries)[:, None] > queries * np.array(_HALVINGS), axis=1)
    sides = np.round(np.sqrt(initial_share / 2.0**halvings * height * width))
    return np.clip(sides, 1, min(height, width)).astype(np.int32)


def _seeds(seed):
    """Seeds of the first guess and of the queries."""
    return tf.random.experimental.stateless_split(seed, 2)


# ---- l-inf: every entry is +epsilon or -epsilon (section 4.2)


@functools.singledispatch
def first_guess(ball, shape, seed):
    """Returns the perturbation [B, H, W, C] that the search begins with, for images of `shape`."""
    raise TypeError(f"no first guess for {ball!r}")


@functools.singledispatch
def move(ball, perturbation, side, seed):
    """Returns the next candidate perturbations [B, H, W, C], which differ from `perturbation` in squares of `side`."""
    raise TypeError(f"no move for {ball!r}")


@first_guess.register
def _(ball: LInf, shape, seed):
    # Vertical stripes of one pixel: networks are sensitive to high frequencies.
    stripes = _signs([shape[0], 1, shape[2], shape[3]], seed)
    return ball.epsilon * tf.broadcast_to(stripes, shape)


@move.register
def _(ball: LInf, perturbation, side, seed):
    seeds = tf.random.experimental.stateless_split(seed, 2)
    batch, height, width, channels = tf.unstack(tf.shape(perturbation))
    inside = _window(batch, height, width, side, seeds[0])
    return tf.where(inside, ball.epsilon * _signs([batch, 1, 1, channels], seeds[1]), perturbation)


# ---- l2 and l1: a square gives its share of the ball's radius to another one (section 4.3; Croce & Hein 2021 for l1)


@first_guess.register
def _(ball: L2, shape, seed):
    return ball.epsilon * ball.ascent_direction(_bumps(shape, 2, seed))


@first_guess.register
def _(ball: L1, shape, seed):
    return 2 * _bumps(shape, 1, seed)  # 2: the authors' unit is the range of pixels


@move.register
def _(ball: L2, perturbation, side, seed):
    channels = tf.cast(tf.shape(perturbation)[3], tf.float32)
    # The radius that is free: what `perturbation` lacks of epsilon, and what both windows hold, for each channel.
    free = tf.maximum(ball.epsilon**2 - tf.reduce_sum(perturbation**2, [1, 2, 3], keepdims=True), 0)
    moved = _give(perturbation, side, seed, 2, lambda held: tf.sqrt(free / channels + held**2))
    return ball.epsilon * ball.ascent_direction(moved)


@move.register
def _(ball: L1, perturbation, side, seed):
    channels = tf.cast(tf.shape(perturbation)[3], tf.float32)
    free = tf.maximum(ball.epsilon - tf.reduce_sum(tf.abs(perturbation), [1, 2, 3], keepdims=True), 0)
    # More than is free, as in the authors' code: the projection spreads it.
    return _give(perturbation, side, seed, 1, lambda held: (free / channels + held) * channels)


def _bumps(shape, order, seed):
    """A grid of 5 x 5 bumps, each with a sign of its own."""
    batch, height, width, channels = tf.unstack(shape)
    side = tf.maximum(tf.minimum(height, width) // 5, 1)
    rows, columns = -(-height // side), -(-width // side)
    signs = _signs([batch, rows, columns, channels], seed)
    signs = tf.repeat(tf.repeat(signs, side, axis=1), side, axis=2)[:, :height, :width]
    return signs * tf.tile(bump(side, order), [rows, columns])[:height, :width, tf.newaxis]


def _give(perturbation, side, seed, order, radius):
    """Empties one window, and adds a bump to another, which then has the norm `radius` of what both held before."""
    seeds = tf.random.experimental.stateless_split(seed, 4)
    batch, height, width, channels = tf.unstack(tf.shape(perturbation))
    # Odd and at least 3, as in the authors' code: a smaller one has no bump in it.
    side = tf.minimum(tf.maximum(side + 1 - side % 2, 3), tf.minimum(height, width))
    # One place of each for the whole batch: it keeps the bump a constant.
    corner = _corners(1, height, width, side, seeds[0])[0]
    here = _place(tf.ones([side, side]), corner, height, width) > 0
    there = _window(1, height, width, side, seeds[1])
    held = _size(tf.where(here | there, perturbation, 0), order)
    shape = bump(side, order)
    shape = tf.where(tf.random.stateless_uniform([], seeds[2]) < 0.5, shape, tf.transpose(shape))
    old = _unit(tf.where(here, perturbation, 0), order)
    new = _unit(old + _place(shape, corner, height, width) * _signs([batch, 1, 1, channels], seeds[3]), order)
    return tf.where(here, radius(held) * new, tf.where(there, 0.0, perturbation))


def bump(side, order=2) -> tf.Tensor:
    """Returns the update, float32 [side, side] of unit norm: two pyramids, up and down (equation 5).

    Args:
        side: int32 scalar.
        order: 2 for the l2 norm, 1 for l1.
    """
    half = side // 2

    def pyramid(height, width):
        # Around its centre the entries are sums of 1 / k^2 (l1: 1 / k^4) over the nested rectangles that hold them.
        row, column = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
        rings = tf.maximum(tf.abs(row - height // 2), tf.abs(column - width // 2))
        k = tf.range(1, side + 1)
        holds = (rings[..., tf.newaxis] < k) & (k <= tf.maximum(height, width) // 2 + 1)
        steepness = {2: 2, 1: 4}[order]
        return _unit(tf.reduce_sum(tf.where(holds, 1 / tf.cast(k, tf.float32) ** steepness, 0), axis=-1), order)

    return _unit(tf.concat([pyramid(half, side), -pyramid(side - half, side)], axis=0), order)


def _size(values, order):
    """The norm of [H, W], or of [B, H, W, C] for each image and channel, with those axes kept."""
    axis = [0, 1] if values.shape.rank == 2 else [1, 2]
    if order == 1:
        return tf.reduce_sum(tf.abs(values), axis, keepdims=True)
    return tf.sqrt(tf.reduce_sum(values**2, axis, keepdims=True))


def _unit(values, order):
    """Divides by the norm, see `_size`; zeros stay."""
    return values / tf.maximum(_size(values, order), 1e-12)


def _signs(shape, seed):
    return tf.cast(2 * tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32) - 1, tf.float32)


def _corners(count, height, width, side, seed):
    """Upper left corners of `count` random squares within the image, int32 [count, 2]."""
    places = tf.random.stateless_uniform([count, 2], seed)
    return tf.cast(places * tf.cast(tf.stack([height - side + 1, width - side + 1]), tf.float32), tf.int32)


def _window(count, height, width, side, seed):
    """Random squares of `side` as masks, bool [count, H, W, 1]."""
    corners = _corners(count, height, width, side, seed)[:, tf.newaxis]
    rows, columns = tf.range(height) - corners[..., 0], tf.range(width) - corners[..., 1]
    rows, columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return (rows[:, :, tf.newaxis] & columns[:, tf.newaxis])[..., tf.newaxis]


def _place(values, corner, height, width):
    """[side, side] within zeros [1, H, W, 1], its upper left at `corner`."""
    after = tf.stack([height, width]) - corner - tf.shape(values)
    return tf.pad(values, tf.stack([corner, after], axis=1))[tf.newaxis, ..., tf.newaxis]
