"""Checks whether accuracy under attack can be believed (Carlini et al. 2019, "On evaluating adversarial robustness").

A model can withstand attacks because it is robust, or because it breaks them: gradients that vanish, are rounded away
or are random. Each check looks for a trace of the second.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import gin
import numpy as np

from robgan_tf.data.datasets import Examples
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, LInf, epsilon_255
from robgan_tf.robustness.answer_checks import (
    Check,
    check_answers,
    check_off_grid,
    check_zero_gradients,
    graded,
    off_grid,
)
from robgan_tf.values import checked, whole

# Shares of the images: up to the first a check passes, up to the second it warns, above it fails.
_POINTS = (0.01, 0.03)
# The same for cross-entropy against margin loss, where a few points are usual for models that are all right.
_LOSSES = (0.03, 0.1)
# Streams of random numbers of the checks' own attacks begin here, behind those of the evaluation's.
_STREAMS = 1000


@gin.configurable
@checked(examples=whole(1), queries=whole(1), more=whole(1))
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

        streams = itertools.count(_STREAMS)

        def against(attack):
            return AttackedClassifier(clean.logits, attack, clean.batch_size, attacked[0].seed, next(streams))

        def stand(examples, opponents):
            """Those of `examples` that withstand all attacks."""
            for opponent in opponents:
                examples = examples.select(opponent(examples, epsilon))
            return examples

        def share(count):
            return count / len(examples)

        yield from check_answers(clean, examples)
        yield check_off_grid(against(Noise(dataclasses.replace(ball, epsilon=off_grid(ball, examples)))), examples)
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
        def pgd(steps, loss=class_loss, restarts=1, step=2.5):
            start, length = max(steps, restarts) > 1, step / steps
            settings = {"loss": loss, "restarts": restarts, "samples": samples}
            return against(PGD(ball, steps, relative_step_size=length, random_start=start, **settings))

        # Attacks along gradients have both; of others the checks' own attacks are as in the presets.
        steps, samples = getattr(first.attack, "steps", 20), getattr(first.attack, "samples", 1)
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
            labels = " and ".join(other.attack.label for other in others)
            message = f"{labels} broke {found:.1%} of the images, which the evaluation's white-box attacks had not"
            yield graded(name, found, _POINTS, message, meaning)

        # 5. Cross-entropy vanishes where a network is too sure, the margin does not.
        entropy, margin = (pgd(steps, loss)(right, epsilon).sum() for loss in (class_loss, margin_loss))
        gap = share(max(entropy - margin, 0))
        yield graded(
            "Cross-entropy is as strong as margin loss",
            gap,
            _LOSSES,
            f"PGD-{steps} on the cross-entropy leaves {gap:.1%} more of the images than on the margin",
            "the gradient of the cross-entropy vanishes; take another loss",
        )


def unbounded(ball, image_shape: Sequence[int]) -> tuple[float, float]:
    """Returns the radii within which every image can be made grey, and turned into any other."""
    low, high = PIXEL_RANGE
    per_pixel = 1.0 if isinstance(ball, LInf) else math.sqrt(math.prod(image_shape))
    return (high - low) / 2 * per_pixel, (high - low) * per_pixel
