"""Randomised smoothing: a certified lower bound in l2, of any classifier under noise (Cohen et al., ICML 2019).

What it certifies is not the classifier but the smoothed one, which answers with the class that the classifier gives
most often under normal noise. A classifier that was not trained with noise loses much of its accuracy so.
"""

from __future__ import annotations

from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.threat_model import ThreatModel
from robgan_tf.robustness.certificates import batches_of, certified_block
from robgan_tf.values import checked, number, optional, whole

# The answer of a smoothed classifier that can't be sure enough.
ABSTAIN = -1


@gin.register
@checked(
    sigma=number(above=0),
    draws=whole(1),
    first_draws=whole(1),
    alpha=number(above=0, below=1),
    examples=optional(whole(1)),
)
class RandomizedSmoothing:
    """Cohen et al.'s CERTIFY for each image.

    Args:
        sigma: standard deviation of the noise on the scale [-1, 1]; 0.5 is the paper's 0.25 on [0, 1].
        draws: noisy images that the radius is estimated from (n; 100,000 in the paper). The largest radius that n can
            show is sigma times the normal quantile of alpha^(1/n).
        first_draws: further ones that the class is chosen from (n_0; 100 in the paper).
        alpha: probability that an image's certificate is wrong, at most.
        examples: a class-balanced part of so many test images; None for all.

    Raises:
        ValueError: for numbers out of their range.
    """

    name = "randomized_smoothing"
    label = "Randomised smoothing"

    def __init__(
        self,
        sigma: float = 0.5,
        draws: int = 1000,
        first_draws: int = 100,
        alpha: float = 0.001,
        examples: int | None = 200,
    ):
        self.sigma = sigma
        self.draws = draws
        self.first_draws = first_draws
        self.alpha = alpha
        self.examples = examples

    def __call__(self, logits, examples: Examples, batch_size: int, seed: int, ball: ThreatModel) -> dict:
        """Returns what the report says of the certificate.

        Args:
            logits: any classifier, images float32 [B, H, W, C], also beyond [-1, 1], -> class logits [B, K].
            examples: test images.
            batch_size: images at once.
            seed: seed of the noise and of the choice of images.
            ball: the evaluation's threat model.
        """
        chosen = examples if self.examples is None else examples.take(min(self.examples, len(examples)), seed)
        first, counts = self.counts(logits, chosen, batch_size, seed)
        classes, radii = certify(first, counts, self.sigma, self.alpha)
        block = certified_block(np.where(classes == chosen.labels, radii, 0.0), ball, chosen.image_shape)
        about = (
            f"noise of standard deviation {self.sigma:g} on [-1, 1], {self.draws} noisy images of each; a certificate "
            f"holds with probability {1 - self.alpha:g}; {np.mean(classes == ABSTAIN):.1%} of the images had no answer"
        )
        settings = {name: getattr(self, name) for name in ("sigma", "draws", "first_draws", "alpha")}
        smoothed = "the smoothed classifier, not the network itself"
        return {"name": self.name, "label": self.label, "of": smoothed, **settings, **block, "about": about}

    def counts(self, logits: Callable, examples: Examples, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns how often each class was given under noise, int [N, K]: of the first draws, and of the others."""

        @tf.function(reduce_retracing=True, autograph=False)
        def count(images, draws, seed):
            def add(index, total):
                noise = tf.random.stateless_normal(
                    tf.shape(images), tf.random.experimental.stateless_fold_in(seed, index)
                )
                given = tf.argmax(logits(images + self.sigma * noise), axis=-1)
                return index + 1, total + tf.one_hot(given, total.shape[-1], dtype=tf.int32)

            total = tf.zeros_like(logits(images), tf.int32)
            return tf.while_loop(lambda index, _: index < draws, add, (0, total))[1]

        found = []
        for place, images in enumerate(batches_of(examples, batch_size)):
            seeds = tf.random.experimental.stateless_split([seed, place], 2)
            draws = (self.first_draws, self.draws)
            found.append([count(images, tf.constant(n), part).numpy() for n, part in zip(draws, tf.unstack(seeds))])
        first, others = (np.concatenate(parts) for parts in zip(*found))
        return first, others


def certify(first: np.ndarray, counts: np.ndarray, sigma: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smoothed classifier's classes, int [N], or `ABSTAIN`, and the certified l2 radii, float64 [N].

    The paper's CERTIFY: the class is that of the first draws; p is the Clopper-Pearson lower limit of its share of the
    others; above 1/2 the radius is sigma times the normal quantile of p.

    Args:
        first: how often each class was given in the first draws, int [N, K].
        counts: the same of the others.
        sigma: standard deviation of the noise.
        alpha: probability that a certificate is wrong, at most.
    """
    from scipy.stats import beta, norm  # here: slow to import, and a training begins without it

    classes = first.argmax(axis=1)
    hits, draws = counts[np.arange(len(counts)), classes], counts.sum(axis=1)
    lower = np.where(hits > 0, beta.ppf(alpha, hits, draws - hits + 1), 0.0)
    sure = lower > 0.5
    radii = np.where(sure, sigma * norm.ppf(np.where(sure, lower, 0.5)), 0.0)
    return np.where(sure, classes, ABSTAIN), radii
