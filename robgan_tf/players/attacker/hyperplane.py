"""The shortest way from an image to a hyperplane within the range of pixels (Croce & Hein, ICML 2020, section 3.1)."""

from __future__ import annotations

import functools

import tensorflow as tf

from robgan_tf.players.attacker.threat_model import L1, L2, PIXEL_RANGE, LInf, ThreatModel

# Newton's steps at most: each reaches another linear piece of a concave function, and in practice some ten are enough.
_STEPS = 100


def to_hyperplane(ball: ThreatModel, images: tf.Tensor, normals: tf.Tensor, heights: tf.Tensor) -> tf.Tensor:
    """Returns the smallest changes d, in the norm of `ball`, with <w, x + d> = b and x + d in the range of pixels.

    Where no image in range is on the hyperplane, it is the change to the one that comes nearest to it.

    Args:
        ball: its norm counts.
        images: x, float32 [B, H, W, C] in [-1, 1].
        normals: w, float32 [B, H, W, C].
        heights: <w, x> - b, float32 [B].

    Returns:
        float32 [B, H, W, C].
    """
    low, high = PIXEL_RANGE
    # Downwards along w, so that every entry only gains: by |w_i| for each unit that it moves, in its room.
    normals = normals * tf.where(heights >= 0, 1.0, -1.0)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    signs, gains = -tf.sign(normals), tf.abs(normals)
    room = tf.where(signs > 0, high - images, images - low) * tf.abs(signs)
    shape = tf.shape(images)
    flat = [tf.reshape(tensor, [shape[0], -1]) for tensor in (gains, room)]
    return signs * tf.reshape(_lengths(ball, *flat, tf.abs(heights)[:, tf.newaxis]), shape)


@functools.singledispatch
def _lengths(ball, gains, room, needed):
    """How far each entry moves, [B, D], so that gains times lengths add up to `needed` [B, 1]."""
    raise TypeError(f"no projection on a hyperplane for {ball!r}")


@_lengths.register
def _(ball: LInf, gains, room, needed):
    return _equal_pace(gains, room, needed, tf.ones_like(gains))


@_lengths.register
def _(ball: L2, gains, room, needed):
    return _equal_pace(gains, room, needed, gains)


def _equal_pace(gains, room, needed, paces):
    """Entries move at their paces until each has used up its room: lengths min(t paces, room).

    What they gain is concave and piecewise linear in t, so that Newton's steps from 0 come to the right t from below.
    """

    def newton(time, _):
        lengths = tf.minimum(time * paces, room)
        missing = needed - tf.reduce_sum(gains * lengths, axis=1, keepdims=True)
        slope = tf.reduce_sum(tf.where(time * paces < room, gains * paces, 0.0), axis=1, keepdims=True)
        later = time + tf.math.divide_no_nan(tf.maximum(missing, 0.0), slope)
        # Below float32's resolution nothing is gained any more.
        return later, tf.reduce_any((later > time * (1 + 1e-7)) & (missing > 1e-6 * needed))

    start = tf.zeros_like(needed)
    time, _ = tf.while_loop(lambda _, goes_on: goes_on, newton, (start, tf.constant(True)), maximum_iterations=_STEPS)
    return tf.minimum(time * paces, room)


@_lengths.register
def _(ball: L1, gains, room, needed):
    # The entries that gain most move first, each through all of its room; the last one as far as is needed.
    order = tf.argsort(gains, axis=1, direction="DESCENDING", stable=True)
    gains, room = (tf.gather(tensor, order, axis=1, batch_dims=1) for tensor in (gains, room))
    before = tf.cumsum(gains * room, axis=1, exclusive=True)
    lengths = tf.minimum(tf.math.divide_no_nan(tf.maximum(needed - before, 0.0), gains), room)
    back = tf.argsort(order, axis=1)
    return tf.gather(lengths, back, axis=1, batch_dims=1)
