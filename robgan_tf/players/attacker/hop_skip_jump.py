"""HopSkipJump: an attack that needs the predicted labels alone (Chen, Jordan & Wainwright, S&P 2020)."""

from __future__ import annotations

import math
from typing import NamedTuple

import gin
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.judge import over_images, repeat_on_standing
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.threat_model import L2, PIXEL_RANGE, LInf, ThreatModel
from robgan_tf.values import check, whole

# Length of the first random moves that estimate a gradient, as a share of the range of pixels.
_FIRST_MOVE = 0.1
# Random moves have this share of the distance; a bisection is as exact as suits them. The paper's are a hundredth of it
# or less, where float32 begins to round them away; these are those of the Adversarial Robustness Toolbox.
_NEAR = 0.01
# A step that fools nothing is halved so often at most.
_HALVINGS = 30


class _State(NamedTuple):
    """What the loop carries. Images are [B, H, W, C], everything else [B]."""

    clean: tf.Tensor
    image: tf.Tensor  # misclassified, at the boundary
    distance: tf.Tensor  # from the clean image; infinite where no misclassified image is known
    moves: tf.Tensor  # length of the next random moves


@gin.register
class HopSkipJump(Attack):
    """Walks along the boundary to the nearest misclassified image; neither gradients nor logits are asked for.

    It starts from noise, or from another image of the batch, that is misclassified. Each step estimates the direction
    of the boundary from the labels of random moves around it (eq. 9 and 16), goes along it, shorter until it is on the
    wrong side (section IV-C), and comes back to the boundary by bisection. An image is left alone once a misclassified
    one is found within epsilon.

    Args:
        threat_model: `LInf` or `L2`.
        steps: number of steps.
        queries: random moves of the first step; the step t has sqrt(t) times as many. 100 in the paper.
        tries: starting points that are tried.
        restarts: how often all of it is tried.

    Raises:
        ValueError: for settings out of their range, or another norm.
    """

    name = "hop-skip-jump"
    needs_gradient = False

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = 50,
        queries: int = 100,
        tries: int = 100,
        restarts: int = 1,
    ):
        super().__init__(threat_model, margin_loss, restarts=restarts)
        if not isinstance(threat_model, (LInf, L2)):
            raise ValueError(f"HopSkipJump knows the threat models @LInf() and @L2(), got {threat_model!r}.")
        for name, count in {"steps": steps, "queries": queries, "tries": tries}.items():
            check(f"HopSkipJump.{name}", count, whole(1))
        self.steps = steps
        self.queries = queries
        self.tries = tries

    @property
    def label(self):
        return f"HopSkipJump, {self.steps} steps{self.runs_label()}"

    def search(self, start, images, judge, seed):
        """See `Attack`."""
        return self.threat_model.project(self.nearest(images, judge, seed), images)

    def nearest(self, images, judge, seed) -> tf.Tensor:
        """Returns the nearest misclassified images that are found, wherever they are, float32 [B, H, W, C].

        Where there is none it is the clean image.

        Args:
            images: float32 [B, H, W, C] in [-1, 1].
            judge: tells which images are misclassified.
            seed: int32 [2].
        """
        ball, pixels = self.threat_model, math.prod(images.shape[1:])
        # Theta: how near to the boundary a bisection comes, and with the distance the length of random moves.
        growth = pixels if isinstance(ball, LInf) else math.sqrt(pixels)
        theta = _NEAR / growth
        low, high = PIXEL_RANGE
        first_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

        def at_boundary(image, clean, found, judge):
            image = self._to_boundary(image, clean, theta, judge)
            return image, tf.where(found, ball.size(image - clean), math.inf)

        def step(index, state, judge):
            numbers = tf.random.experimental.stateless_fold_in(seed, index)
            number = tf.cast(index + 1, tf.float32)
            count = tf.cast(tf.round(self.queries * tf.sqrt(number)), tf.int32)
            direction = self._direction(state, count, numbers, judge)
            length = over_images(state.distance) / tf.sqrt(number)
            image = self._go(state.image, length, direction, judge)
            image, distance = at_boundary(image, state.clean, state.distance < math.inf, judge)
            nearer = over_images(distance < state.distance)
            # A step that ends farther away is not taken: the next one has better directions, and is shorter.
            return _State(
                clean=state.clean,
                image=tf.where(nearer, image, state.image),
                distance=tf.minimum(distance, state.distance),
                moves=growth * theta * tf.minimum(distance, state.distance),
            )

        image, found = self._misclassified(images, judge, first_seed)
        image, distance = at_boundary(image, images, found, judge)
        state = _State(images, image, distance, tf.fill(tf.shape(images)[:1], _FIRST_MOVE * (high - low)))

        def goes_on(state):
            return (state.distance > ball.epsilon) & (state.distance < math.inf)

        return repeat_on_standing(step, state, judge, self.steps, goes_on).image

    def _misclassified(self, images, judge, seed):
        """Returns misclassified images, and which are; the clean ones where none was found."""

        def try_one(index, image, found):
            numbers = tf.random.experimental.stateless_fold_in(seed, index)
            noise = tf.random.stateless_uniform(tf.shape(images), numbers, *PIXEL_RANGE)
            candidate = tf.where(index % 2 == 0, noise, tf.roll(images, index // 2 + 1, axis=0))
            new = judge(candidate).broken & ~found
            return index + 1, tf.where(over_images(new), candidate, image), found | new

        broken = judge(images).broken
        _, image, found = tf.while_loop(
            lambda index, _, found: (index < self.tries) & ~tf.reduce_all(found), try_one, (0, images, broken)
        )
        return image, found

    def _between(self, image, clean, share):
        """The point that is a share [B] of the way from clean; l-inf: the projection on that part of the ball."""
        share = over_images(share)
        if isinstance(self.threat_model, LInf):
            reach = share * over_images(self.threat_model.size(image - clean))
            return clean + tf.clip_by_value(image - clean, -reach, reach)
        return clean + share * (image - clean)

    def _to_boundary(self, image, clean, theta, judge):
        """The misclassified point between an image and the clean one that is nearest to the clean one, by bisection."""

        def halve(right, wrong):
            middle = (right + wrong) / 2
            broken = judge(self._between(image, clean, middle)).broken
            return tf.where(broken, right, middle), tf.where(broken, middle, wrong)

        shares = tf.zeros_like(image[:, 0, 0, 0])
        count = math.ceil(-math.log2(theta))
        _, wrong = tf.while_loop(lambda *_: True, halve, (shares, shares + 1), maximum_iterations=count)
        return self._between(image, clean, wrong)

    def _direction(self, state, count, seed, judge):
        """Estimates the gradient of the boundary (eq. 16): the mean of random moves, weighted by what they lead to."""

        def add(index, moves, weighted, signs):
            numbers = tf.random.experimental.stateless_fold_in(seed, index)
            if isinstance(self.threat_model, LInf):
                random = tf.random.stateless_uniform(tf.shape(state.image), numbers, -1.0, 1.0)
            else:
                random = tf.random.stateless_normal(tf.shape(state.image), numbers)
            length = over_images(tf.maximum(state.moves, 1e-6))
            moved = state.image + length * _unit(random)
            moved = tf.clip_by_value(moved, *PIXEL_RANGE)
            move = (moved - state.image) / length
            sign = tf.where(judge(moved).broken, 1.0, -1.0)
            return index + 1, moves + move, weighted + over_images(sign) * move, signs + sign

        zeros = tf.zeros_like(state.image)
        _, moves, weighted, signs = tf.while_loop(
            lambda index, *_: index < count, add, (0, zeros, zeros, tf.zeros_like(state.distance))
        )
        mean = over_images(signs / tf.cast(count, tf.float32))
        # All on one side: the mean of the moves, or against it.
        direction = tf.where(tf.abs(mean) < 1, weighted - mean * moves, mean * moves)
        return tf.sign(direction) if isinstance(self.threat_model, LInf) else _unit(direction)

    def _go(self, image, length, direction, judge):
        """Goes along the direction, half as far wherever the classifier is right there; no step at all in the end."""

        def moved(length):
            return tf.clip_by_value(image + length * direction, *PIXEL_RANGE)

        def halve(length, broken):
            length = tf.where(over_images(broken), length, length / 2)
            return length, judge(moved(length)).broken

        length, broken = tf.while_loop(
            lambda _, broken: ~tf.reduce_all(broken),
            halve,
            (length, judge(moved(length)).broken),
            maximum_iterations=_HALVINGS,
        )
        return tf.where(over_images(broken), moved(length), image)

    def check_training(self):
        """See `Attack`."""
        raise ValueError("HopSkipJump looks at predicted labels, of which training knows nothing: take @Attacker().")

    def settings(self):
        """See `Attack`."""
        return {"steps": self.steps, "queries": self.queries, "tries": self.tries, "restarts": self.restarts}


def _unit(values):
    return tf.math.l2_normalize(values, axis=[1, 2, 3], epsilon=1e-24)
