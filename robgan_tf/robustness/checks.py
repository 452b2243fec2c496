"""Checks whether accuracy under attack can be believed (Carlini et al. 2019, "On evaluating adversarial robustness").

A model can withstand attacks because it is robust, or because it breaks them: gradients that vanish, are rounded away
or are random. Each check looks for a trace of the second.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.attacks import PGD, Noise
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, LInf, epsilon_255

# Shares of the images: up to the first a check passes, up to the second it warns, above it fails.
_POINTS = (0.01, 0.03)
# The same for cross-entropy against margin loss, where a few points are usual for models that are all right.
_LOSSES = (0.03, 0.1)
# The same for exactly zero gradients: the cross-entropy of a network that is sure beyond float32 has some.
_ZEROS = (0.01, 0.1)
# Largest difference of two passes over the same batch, as a share of the largest logit: 0, or what parallel sums do.
_REPEAT = (0.0, 1e-5)
# The same in batches of other sizes, which may run other kernels; a batch norm in training mode is off by the order of
# 1.
_BATCHES = (1e-4, 1e-2)


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what should be so.
        status: "pass", "warn" or "fail".
        value: the figure it was judged by; None where there is none.
        message: figure and meaning in a sentence.
    """

    name: str
    status: str
    value: float | None
    message: str


def graded(name: str, value: float, limits: tuple[float, float], message: str, meaning: str) -> Check:
    """Returns a check that passes up to the first limit and warns up to the second; else `meaning` is said too."""
    value = round(float(value), 9)  # 0.010000000000000009 is a point too
    status = "pass" if value <= limits[0] else "warn" if value <= limits[1] else "fail"  # NaN fails
    return Check(name, status, value, message if status == "pass" else f"{message}: {meaning}")


@gin.configurable
class SanityChecks:
    """The checks that need attacks of their own, on a part of the test images.

    Args:
        examples: how many images.
        queries: queries of the Square attack that the white-box attacks are compared with.
        more: how many times the steps, and how many restarts, show whether an attack has converged.

    Raises:
        ValueError: for numbers below 1.
    """

    def __init__(self, examples: int = 100, queries: int = 500, more: int = 5):
        for name, value in {"examples": examples, "queries": queries, "more": more}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"SanityChecks.{name} must be a whole number >= 1, got {value!r}.")
        self.examples = examples
        self.queries = queries
        self.more = more

    def __call__(
        self,
        clean: AttackedClassifier,
        attacked: Sequence[AttackedClassifier],
        epsilon: float,
        epsilons: Sequence[float],
        examples: Examples,
    ) -> Iterator[Check]:
        """Yields the results.

        Args:
            clean: the classifier without an attack.
            attacked: the same under each attack of the evaluation.
            epsilon: radius at which attacks are compared.
            epsilons: radii of the evaluation's curve, in rising order.
            examples: clean images.
        """
        ball = dataclasses.replace(attacked[0].attack.threat_model, epsilon=epsilon)

        def against(attack):
            return AttackedClassifier(clean.logits, attack, clean.batch_size, attacked[0].seed)

        def stand(examples, opponents):
            """Those of `examples` that withstand all attacks."""
            for opponent in opponents:
                examples = examples.select(opponent(examples, epsilon))
            return examples

        def share(count):
            return count / len(examples)

        yield from check_answers(clean, examples)
        white_box = [one for one in attacked if one.attack.needs_gradient]
        if not white_box:
            yield Check(
                "Gradients reach the images",
                "fail",
                None,
                "no white-box attack was run: what black-box attacks find is a weak bound of robustness",
            )
            return

        # 1. Gradients.
        right = stand(examples, [clean])
        yield check_zero_gradients(clean, right)

        # 2. The first attack at all radii, each from the clean images.
        first, accuracy = white_box[0], share(len(right))
        at_zero = first(examples, 0.0).mean()
        yield graded(
            "Epsilon 0 equals clean",
            abs(at_zero - accuracy),
            (0.0, 0.0),
            f"accuracy is {at_zero:.1%} under the attack with epsilon 0, and {accuracy:.1%} clean",
            "the attack changes what it must not, or the classifier answers at random",
        )
        curve = [accuracy, *(share(first(right, radius).sum()) for radius in epsilons if radius)]
        rise = max([0.0, *np.diff(curve)])
        yield graded(
            "Accuracy never rises with epsilon",
            rise,
            _POINTS,
            f"the largest rise from one epsilon to the next, each attacked afresh, is {rise:.1%}",
            "a larger ball holds the smaller one, so the attack fails in it",
        )

        # 3. Balls so large that no classifier can hold.
        def pgd(steps, objective=class_loss, restarts=1, step=2.5):
            attacker = Attacker(ball, steps, relative_step_size=step / steps, random_start=max(steps, restarts) > 1)
            return against(PGD(attacker, objective, restarts=restarts))

        steps = first.attack.steps
        long = pgd(self.more * steps)
        half, whole = unbounded(ball, examples.image_shape)
        standing = right.select(long(right, half))
        left, chance = share(len(standing)), share(np.bincount(examples.labels).max())
        yield graded(
            "Large epsilon leaves chance at most",
            left,
            (chance, chance + _POINTS[1]),
            f"at epsilon {half:.3g} ({epsilon_255(half):.0f}/255), where every image can be made grey, {left:.1%} are "
            f"right; chance is {chance:.1%}",
            "the attack does not find what must be there",
        )
        left = share(long(standing, whole).sum())
        yield graded(
            "Unbounded attack reaches 0 %",
            left,
            (0.0, _POINTS[0]),
            f"at epsilon {whole:.3g} ({epsilon_255(whole):.0f}/255), where every image can become any other, "
            f"{left:.1%} are right",
            "gradients are masked, or the attack is broken",
        )

        # 4. What do other attacks break, of what the evaluation's white-box attacks did not?
        standing = stand(right, white_box)
        black_box = [one for one in attacked if not one.attack.needs_gradient]
        black_box += [against(Square(ball, self.queries)), against(Noise(ball))]
        weak = "the evaluation's attacks are too weak for this classifier, or its gradients are masked"
        short = "the evaluation's attacks have not converged; true accuracy is lower"
        for name, others, meaning in (
            ("Iterative attacks beat one step", [pgd(1, step=1.0)], weak),
            ("More steps find little more", [long], short),
            ("More restarts find little more", [pgd(steps, restarts=self.more)], short),
            ("White box beats black box", black_box, weak),
        ):
            found = share(len(standing) - len(stand(standing, others)))
            labels = " and ".join(other.attack.describe()["label"] for other in others)
            message = f"{labels} broke {found:.1%} of the images, which the evaluation's white-box attacks had not"
            yield graded(name, found, _POINTS, message, meaning)

        # 5. Cross-entropy vanishes where a network is too sure, the margin does not.
        entropy, margin = (pgd(steps, objective)(right, epsilon).sum() for objective in (class_loss, margin_loss))
        gap = share(max(entropy - margin, 0))
        yield graded(
            "Cross-entropy is as strong as margin loss",
            gap,
            _LOSSES,
            f"PGD-{steps} on the cross-entropy leaves {gap:.1%} more of the images than on the margin",
            "the gradient of the cross-entropy vanishes; take another loss",
        )


def check_answers(clean: AttackedClassifier, examples: Examples) -> Iterator[Check]:
    """Yields what clean answers tell: the same each time, independent of the batch, no probabilities."""

    def answers(examples):
        return np.concatenate([batch.logits for batch in clean.batches(examples)])

    first, second = answers(examples), answers(examples)
    scale = max(np.abs(first).max(), 1e-6)
    difference = np.abs(first - second).max() / scale
    yield graded(
        "Two clean passes are identical",
        difference,
        _REPEAT,
        f"the logits of the same images differ by {difference:.2g} of the largest at most",
        "the classifier is random, so attack and measurement look at different ones",
    )
    count = len(examples) // 2 or 1
    fewer = answers(examples.select(np.arange(len(examples))[::-1][:count]))[::-1]
    difference = np.abs(fewer - first[-count:]).max() / scale
    yield graded(
        "Answers do not depend on the batch",
        difference,
        _BATCHES,
        f"the logits of the same images within another batch differ by {difference:.2g} of the largest at most",
        "the classifier is random, or not in inference mode (training=False)",
    )
    # The margins are those of AutoAttack's flag.
    probabilities = first.min() > -1e-5 and first.max() < 1 + 1e-5 and np.allclose(first.sum(axis=-1), 1, atol=1e-4)
    yield Check(
        "Answers are logits, not probabilities",
        "fail" if probabilities else "pass",
        float(probabilities),
        "all answers are in [0, 1] and sum to 1: remove the softmax, its gradients vanish"
        if probabilities
        else f"answers range from {first.min():.3g} to {first.max():.3g}",
    )


def check_zero_gradients(clean: AttackedClassifier, examples: Examples) -> Check:
    """Returns the share of images whose cross-entropy has a gradient of exactly zero everywhere."""

    @tf.function(reduce_retracing=True)
    def is_zero(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = class_loss(tf.cast(clean.logits(images), tf.float32), labels)
        return tf.reduce_all(tape.gradient(loss, images) == 0, axis=[1, 2, 3])

    zeros = sum(is_zero(batch.images, examples.labels[batch.rows]).numpy().sum() for batch in clean.batches(examples))
    share = zeros / max(len(examples), 1)
    return graded(
        "Gradients are not zero",
        share,
        _ZEROS,
        f"{share:.1%} of the images have a gradient of exactly zero",
        "an attack along the cross-entropy's gradient can't move them",
    )


def check_arrays(attacked: Sequence[AttackedClassifier]) -> Check:
    """Returns whether all images that attacks have made were finite, in range and in their ball."""
    made, invalid = (sum(getattr(one, name) for one in attacked) for name in ("made", "invalid"))
    return graded(
        "Adversarial images are in ball and range",
        float(invalid),
        (0.0, 0.0),
        f"{invalid} of {made} adversarial images are outside of the ball or of {list(PIXEL_RANGE)}, or not finite",
        "they were counted as failed attacks; the attack or its projection is broken",
    )


def unbounded(ball, image_shape: Sequence[int]) -> tuple[float, float]:
    """Returns the radii within which every image can be made grey, and turned into any other."""
    low, high = PIXEL_RANGE
    per_pixel = 1.0 if isinstance(ball, LInf) else math.sqrt(math.prod(image_shape))
    return (high - low) / 2 * per_pixel, (high - low) * per_pixel
