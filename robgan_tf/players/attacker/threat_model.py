"""Threat models: what an attacker may do to an image. The attacks are beside this file.

Images, perturbations and epsilon are on the pixel scale [-1, 1], as in the paper, on which the usual 8/255 of [0, 1]
images is 16/255 = 0.0627.
"""

from __future__ import annotations

import dataclasses
import math

import gin
import tensorflow as tf

from robgan_tf.values import check, number

# Lower and upper end of the pixel scale.
PIXEL_RANGE = (-1.0, 1.0)


def epsilon_255(epsilon: float) -> float:
    """Converts a distance on the scale [-1, 1] to the scale of 8-bit pixels: 0.08 -> 10.2."""
    return epsilon * 255.0 / (PIXEL_RANGE[1] - PIXEL_RANGE[0])


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """A ball of radius epsilon around an image, within the range of pixels.

    Attributes:
        epsilon: radius of the ball, on the pixel scale [-1, 1]. For the l-inf norm the largest change of any pixel.

    Raises:
        ValueError: for an epsilon that is negative or not finite.
    """

    epsilon: float = gin.REQUIRED

    def __post_init__(self):
        if tf.is_tensor(self.epsilon):  # in a graph that serves many radii; its value can't be checked
            return
        hint = "it is on the pixel scale [-1, 1], where 8/255 of [0, 1] is 16/255 = 0.0627"
        check(f"{type(self).__name__}.epsilon", self.epsilon, number(least=0), hint)

    def project(self, images, originals):
        """Returns the points of the ball around `originals`, within pixel range, that replace `images` [B, H, W, C]."""
        inside = originals + self.project_perturbation(images - originals)
        return tf.clip_by_value(inside, *PIXEL_RANGE)

    def norm_of_ones(self, entries: int) -> float:
        """Returns the norm of a vector of `entries` ones: how far it is if every pixel moves by 1."""
        raise NotImplementedError

    def describe(self) -> dict:
        """Returns norm and epsilon in both units, for reports."""
        return {
            "norm": self.norm,
            "epsilon": self.epsilon,
            "epsilon_255": epsilon_255(self.epsilon),
            "pixel_range": list(PIXEL_RANGE),
        }

    def __str__(self):
        return f"{self.norm} ball, epsilon {self.epsilon:g} on [-1, 1] = {epsilon_255(self.epsilon):.2f}/255"


@gin.configurable
@dataclasses.dataclass(frozen=True)
class LInf(ThreatModel):
    """The l-inf ball: no pixel changes by more than epsilon (Madry et al., ICLR 2018)."""

    norm = "linf"

    def project_perturbation(self, perturbation):
        """Clips every entry to [-epsilon, epsilon]."""
        return tf.clip_by_value(perturbation, -self.epsilon, self.epsilon)

    def ascent_direction(self, gradient):
        """Returns the steepest ascent of unit l-inf norm: the gradient's sign."""
        return tf.sign(gradient)

    def norm_of_ones(self, entries):
        """See `ThreatModel`."""
        return 1.0

    def random_perturbation(self, shape, seed):
        """Draws float32 perturbations of `shape` [B, H, W, C], uniform in the ball. `seed`: int [2]."""
        return tf.random.stateless_uniform(shape, seed, -self.epsilon, self.epsilon)

    def size(self, perturbation):
        """Returns the l-inf norm of each image's perturbation, [B]."""
        return tf.reduce_max(tf.abs(perturbation), axis=[1, 2, 3])


@gin.configurable
@dataclasses.dataclass(frozen=True)
class L2(ThreatModel):
    """The l2 ball: the Euclidean norm of an image's perturbation is at most epsilon."""

    norm = "l2"

    def project_perturbation(self, perturbation):
        """Shrinks perturbations longer than epsilon to that length."""
        length = tf.sqrt(tf.reduce_sum(perturbation**2, axis=[1, 2, 3], keepdims=True))
        # Not tf.clip_by_norm, which is NaN at epsilon = 0.
        return perturbation * tf.math.divide_no_nan(self.epsilon, tf.maximum(length, self.epsilon))

    def ascent_direction(self, gradient):
        """Returns the steepest ascent of unit l2 norm: the gradient over its norm, zero where that is zero."""
        return tf.math.l2_normalize(gradient, axis=[1, 2, 3], epsilon=1e-24)

    def norm_of_ones(self, entries):
        """See `ThreatModel`."""
        return math.sqrt(entries)

    def random_perturbation(self, shape, seed):
        """Draws float32 perturbations of `shape` [B, H, W, C], uniform in the ball. `seed`: int [2]."""
        direction_seed, radius_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        direction = self.ascent_direction(tf.random.stateless_normal(shape, direction_seed))
        dimensions = tf.cast(tf.reduce_prod(shape[1:]), tf.float32)
        # The volume within radius r grows with r to the number of dimensions.
        radius = tf.random.stateless_uniform([shape[0], 1, 1, 1], radius_seed) ** (1.0 / dimensions)
        return self.epsilon * radius * direction

    def size(self, perturbation):
        """Returns the l2 norm of each image's perturbation, [B]."""
        return tf.sqrt(tf.reduce_sum(perturbation**2, axis=[1, 2, 3]))


# Halvings of the interval that holds the l1 projection's threshold: one ends below the rounding of float32.
_HALVINGS = 32


@gin.configurable
@dataclasses.dataclass(frozen=True)
class L1(ThreatModel):
    """The l1 ball: the absolute changes of an image's pixels add up to epsilon at most (Croce & Hein, ICML 2021)."""

    norm = "l1"

    def project(self, images, originals):
        """Returns the nearest points of ball and pixel range together (Croce & Hein 2021, proposition 2.1).

        Not the projection on the ball, clipped: that would leave much of epsilon unused. With d = images - originals
        and r the room to the end of the range in the direction of d, pixel i moves by min(max(|d_i| - t, 0), r_i), t
        the least threshold >= 0 at which these add up to epsilon or less. Found by bisection.

        Args:
            images: float32 [B, H, W, C].
            originals: the clean ones, in [-1, 1], of the same shape.
        """
        low, high = PIXEL_RANGE
        perturbation = images - originals
        length, sign = tf.abs(perturbation), tf.sign(perturbation)
        room = tf.maximum(tf.where(sign > 0, high - originals, originals - low), 0.0)

        def moved(threshold):
            return tf.minimum(tf.maximum(length - threshold, 0.0), room)

        def fits(threshold):
            return tf.reduce_sum(moved(threshold), axis=[1, 2, 3], keepdims=True) <= self.epsilon

        def halve(below, above):
            middle = (below + above) / 2
            inside = fits(middle)
            return tf.where(inside, below, middle), tf.where(inside, middle, above)

        below = tf.zeros_like(length[:, :1, :1, :1])
        above = tf.where(fits(below), below, tf.reduce_max(length, axis=[1, 2, 3], keepdims=True))
        _, above = tf.while_loop(lambda *_: True, halve, (below, above), maximum_iterations=_HALVINGS)
        return tf.clip_by_value(originals + sign * moved(above), low, high)

    def ascent_direction(self, gradient):
        """Returns the steepest ascent of unit l1 norm: the sign of the gradient's largest entry, there alone."""
        flat = tf.reshape(gradient, [tf.shape(gradient)[0], -1])
        largest = tf.argmax(tf.abs(flat), axis=-1)
        return tf.reshape(tf.one_hot(largest, tf.shape(flat)[1]) * tf.sign(flat), tf.shape(gradient))

    def norm_of_ones(self, entries):
        """See `ThreatModel`."""
        return float(entries)

    def random_perturbation(self, shape, seed):
        """Draws float32 perturbations of `shape` [B, H, W, C], uniform in the ball. `seed`: int [2]."""
        sign_seed, size_seed, rest_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        # Exponential numbers over the sum of one more of them are uniform in a corner of the ball.
        sizes = -tf.math.log1p(-tf.random.stateless_uniform(shape, size_seed))
        rest = -tf.math.log1p(-tf.random.stateless_uniform([shape[0], 1, 1, 1], rest_seed))
        signs = tf.sign(tf.random.stateless_uniform(shape, sign_seed) - 0.5)
        total = tf.reduce_sum(sizes, axis=[1, 2, 3], keepdims=True) + rest
        return self.epsilon * signs * tf.math.divide_no_nan(sizes, total)

    def size(self, perturbation):
        """Returns the l1 norm of each image's perturbation, [B]."""
        return tf.reduce_sum(tf.abs(perturbation), axis=[1, 2, 3])
