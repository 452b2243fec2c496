"""Auto-PGD in the l1 ball (Croce & Hein, ICML 2021, algorithms 1 and 2): sparse steps, in balls that shrink."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from robgan_tf.players.attacker.gradients import score_and_gradient
from robgan_tf.players.attacker.judge import Judge, over_images, repeat_on_standing
from robgan_tf.players.attacker.threat_model import L1

# Epsilon times these, for these shares of the steps.
_RADII, _SHARES = (3.0, 2.0, 1.0), (0.3, 0.3)
# Share of the steps between two checkpoints.
_CHECK = 0.04
# A step changes 1 / 1.5 as many pixels as the best point so far does. Where that has become sparser by this factor
# since the last checkpoint, the step begins anew with epsilon; else it shrinks by 1.5, to a tenth of epsilon at least.
_FACTOR, _SPARSER, _SHORTEST = 1.5, 0.95, 10.0


class _State(NamedTuple):
    """What the loop carries. Images are [B, H, W, C], `step` is [B, 1, 1, 1], everything else [B]."""

    clean: tf.Tensor
    image: tf.Tensor
    gradient: tf.Tensor
    step: tf.Tensor
    share: tf.Tensor  # of the pixels that a step changes
    changed: tf.Tensor  # how many pixels the best point had changed at the last checkpoint
    best_image: tf.Tensor
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    fooling: tf.Tensor  # the last image within epsilon that the classifier got wrong
    fooled: tf.Tensor  # whether there is one


def larger_start(ball: L1, images: tf.Tensor, seed) -> tf.Tensor:
    """Returns random points of the first, largest ball: normal noise, projected.

    Args:
        ball: that of the threat model.
        images: float32 [B, H, W, C] in [-1, 1].
        seed: int32 [2].
    """
    # Of standard deviation 1 on the scale [0, 1], as in the authors' code.
    noise = 2 * tf.random.stateless_normal(tf.shape(images), seed)
    return L1(_RADII[0] * ball.epsilon).project(images + noise, images)


def search_l1(attack, start: tf.Tensor, images: tf.Tensor, judge: Judge) -> tf.Tensor:
    """Returns the worst images that are found, [B, H, W, C] within the ball.

    Args:
        attack: the `AutoPGD`, for threat model, steps and samples.
        start: see `larger_start`.
        images: the clean images, float32 [B, H, W, C] in [-1, 1].
        judge: gives the score of images.
    """
    counts = [math.ceil(share * attack.steps) for share in _SHARES]
    counts.append(attack.steps - sum(counts))
    every = max(int(_CHECK * attack.steps), 1)
    epsilon, pixels = attack.threat_model.epsilon, tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)
    stands = tf.ones(tf.shape(images)[:1], tf.bool)
    image, fooling, fooled = start, start, ~stands
    for factor, count in zip(_RADII, counts):
        ball = L1(factor * epsilon)
        image = ball.project(image, images)
        (loss, wrong), gradient = score_and_gradient(judge, image, attack.samples)
        changed = _changed(image - images)
        if factor == 1:
            fooling, fooled = image, wrong
        state = _State(
            clean=images,
            image=image,
            gradient=gradient,
            step=tf.ones_like(images[:, :1, :1, :1]) * ball.epsilon,
            share=changed / pixels / _FACTOR,
            changed=changed,
            best_image=image,
            best_gradient=gradient,
            best_loss=loss,
            fooling=fooling,
            fooled=fooled,
        )
        if count > 0:
            step = _step_in(ball, attack.samples, every, pixels, factor == 1)
            state = repeat_on_standing(step, state, judge, count, lambda state: ~state.fooled)
        image, fooling, fooled = state.best_image, state.fooling, state.fooled
    return tf.where(over_images(fooled), fooling, image)


def _step_in(ball, samples, every, pixels, is_last):
    """A step of algorithm 1 in a ball; what it fools counts in the last one alone, whose radius is epsilon."""

    def step(index, state, judge):
        # 1. Along the signs of the largest entries of the gradient.
        direction = sparse_direction(state.gradient, state.share)
        image = ball.project(state.image + state.step * direction, state.clean)
        (loss, wrong), gradient = score_and_gradient(judge, image, samples)
        # 2. The best so far.
        better = over_images(loss > state.best_loss)
        best_image, best_gradient = (
            tf.where(better, image, state.best_image),
            tf.where(better, gradient, state.best_gradient),
        )
        # 3. At a checkpoint: as many pixels as the best point needs, and a step to match.
        check = (index + 1) % every == 0
        changed = _changed(best_image - state.clean)
        sparser = over_images(changed / tf.maximum(state.changed, 1) < _SPARSER)
        shorter = tf.maximum(state.step / _FACTOR, ball.epsilon / _SHORTEST)
        back = check & sparser
        return state._replace(
            image=tf.where(back, best_image, image),
            gradient=tf.where(back, best_gradient, gradient),
            step=tf.where(check, tf.where(sparser, ball.epsilon * tf.ones_like(shorter), shorter), state.step),
            share=tf.where(check, changed / pixels / _FACTOR, state.share),
            changed=tf.where(check, changed, state.changed),
            best_image=best_image,
            best_gradient=best_gradient,
            best_loss=tf.maximum(loss, state.best_loss),
            fooling=tf.where(over_images(wrong), image, state.fooling) if is_last else state.fooling,
            fooled=state.fooled | wrong if is_last else state.fooled,
        )

    return step


def sparse_direction(gradient: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns the signs of the largest entries of each gradient, as a vector of unit l1 norm, [B, H, W, C].

    Args:
        gradient: float32 [B, H, W, C].
        share: of the entries that count, float32 [B] in [0, 1]; those that equal the smallest of them count too.
    """
    sizes = tf.abs(gradient)
    flat = tf.sort(tf.reshape(sizes, [tf.shape(sizes)[0], -1]), axis=-1)
    entries = tf.shape(flat)[1]
    place = tf.clip_by_value(tf.cast((1 - share) * tf.cast(entries, tf.float32), tf.int32), 0, entries - 1)
    least = tf.gather(flat, place, axis=1, batch_dims=1)
    signs = tf.where(sizes >= over_images(least), tf.sign(gradient), 0.0)
    return signs / (tf.reduce_sum(tf.abs(signs), axis=[1, 2, 3], keepdims=True) + 1e-10)


def _changed(perturbation):
    """How many entries are not zero, float32 [B]."""
    return tf.math.count_nonzero(perturbation, axis=[1, 2, 3], dtype=tf.float32)
