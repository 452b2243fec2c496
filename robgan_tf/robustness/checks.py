"""Checks whether accuracy under attack can be believed (Carlini et al. 2019, "On evaluating adversarial robustness").

A model can withstand attacks because it is robust, or because it breaks them: gradients that vanish, are rounded away
or are random. Each check looks for a trace of the second, and says how many images it would take to find it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import gin
import numpy as np

from robgan_tf.data.datasets import TrainingSplit
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import margin_loss, targeted_margin_loss
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.surrogate import Surrogate
from robgan_tf.players.attacker.transfer import Transfer
from robgan_tf.robustness.answer_checks import check_answers, check_moved, off_grid
from robgan_tf.robustness.attack_checks import (
    FromOutside,
    Trials,
    check_growing_balls,
    check_starts,
    check_unbounded,
    pgd,
)
from robgan_tf.robustness.gradient_checks import check_gradients
from robgan_tf.robustness.verdicts import RARE, Check, counted
from robgan_tf.values import checked, whole

# Shares of the images that are right clean which longer attacks of the evaluation's kind, and attacks on other losses,
# may break on top. They are counted as broken, too: the cross-entropy misses up to a tenth of what the margin finds
# in honest classifiers, most where their logits are small.
_WEAK, _OTHER_LOSSES = 0.03, 0.1


@gin.configurable
@checked(examples=whole(1), queries=whole(1), more=whole(1))
class SanityChecks:
    """The checks that need attacks of their own, on a part of the test images.

    Args:
        examples: how many images.
        queries: queries of the Square attack that the white-box attacks are compared with.
        more: how many times the steps, and how many restarts, show whether an attack has converged.
        counted: whether what the checks' attacks break lowers the reported accuracy; False for comparing one attack
            with others' figures.

    Raises:
        ValueError: for numbers below 1.
    """

    def __init__(self, examples: int = 200, queries: int = 500, more: int = 5, counted: bool = True):
        self.examples = examples
        self.queries = queries
        self.more = more
        self.counted = counted

    def __call__(
        self,
        trials: Trials,
        clean: AttackedClassifier,
        attacked: Sequence[AttackedClassifier],
        black_box_broke: np.ndarray,
        train: TrainingSplit,
    ) -> Iterator[Check]:
        """Yields the results.

        Args:
            trials: the sample, and which of it stands; what the checks' attacks break is in its findings.
            clean: the classifier without an attack.
            attacked: the same under each attack of the evaluation.
            black_box_broke: bool [N], which images of the sample fell to one of these that asks for no gradient.
            train: training images, for a surrogate.
        """
        ball, examples = trials.ball, trials.examples
        white_box = [one for one in attacked if one.attack.needs_gradient]
        first = white_box[0] if white_box else None
        # Attacks along gradients have both; of others the checks' own attacks are as in the presets.
        steps, samples = (
            getattr(first and first.attack, name, least) for name, least in (("steps", 20), ("samples", 1))
        )
        steps, is_random = max(steps, 10), samples > 1

        def against(*attack, **options):
            return trials.against(pgd(ball, *attack, samples=samples, **options))

        radii = (off_grid(ball, examples.image_shape), ball.epsilon)
        noises = [trials.against(Noise(dataclasses.replace(ball, epsilon=radius))) for radius in radii]
        for check in check_answers(clean, noises, examples, is_random):
            yield check
            if check.name == "Answers differ between images" and check.status == "fail":
                return  # of a constant there is no more to say
        yield check_moved(clean, examples)
        strong = []
        if white_box:
            right = examples.select(clean(examples))
            yield self._epsilon_zero(clean, first, examples)
            if not is_random:
                yield from self._gradients(trials, clean, white_box, noises[1])
            yield check_growing_balls(trials, first, right)
            starts = [against(2 * steps, margin_loss, random_start=start) for start in (False, True)]
            yield check_starts(trials, starts, right)
            yield check_unbounded(trials, starts, right)
            targets = min(len(np.unique(examples.labels)) - 1, 3)
            strong = [against(steps, margin_loss, random_start=True)]
            if targets > 1:
                strong.append(against(steps, targeted_margin_loss, targets=targets, random_start=True))
            yield trials.check(
                "Other losses find little more",
                strong,
                _OTHER_LOSSES,
                "take another loss, or several",
                right=len(right),
            )
            loss = first.attack.loss if not first.attack.targets else margin_loss
            long = [against(self.more * steps, loss), against(steps, loss, restarts=self.more, random_start=True)]
            strong += long
            short = "the evaluation's attacks have not converged"
            yield trials.check("More steps and restarts find little more", long, _WEAK, short, right=len(right))
            hides = "the classifier's gradients lead away from where it is weak"
            yield trials.check(
                "Larger balls find nothing more",
                [trials.against(FromOutside(pgd(ball, steps, samples=samples)))],
                RARE,
                hides,
            )
            one = pgd(ball, 1, loss, random_start=False)
            yield trials.check("Iterative attacks beat one step", [trials.against(one)], RARE, hides)
        else:
            yield Check(
                "Gradients reach the images",
                "fail",
                None,
                "no white-box attack was run: what black-box attacks find is a weak bound of robustness",
            )
        others = [one for one in attacked if not one.attack.needs_gradient]
        transfers = [one for one in others if isinstance(one.attack, Transfer)]
        # What fell to them alone is what gradients, of the strongest attacks here, do not break.
        alone = black_box_broke.copy()
        for opponent in (*white_box, *strong):
            alone[alone] = opponent(examples.select(alone), ball.epsilon)
        masked = "the evaluation's gradients are masked, or worse than none"
        black_box = [one for one in others if one not in transfers]
        black_box += [trials.against(Square(ball, self.queries)), noises[1]]
        known, of = (int(alone.sum()), int(black_box_broke.sum())) if white_box else (0, 0)
        yield trials.check("White box beats black box", black_box, RARE, masked, known, of)
        if not any(isinstance(one.attack, Surrogate) for one in transfers):
            transfers.append(trials.against(Surrogate(ball).prepared(clean.logits, train, trials.seed)))
        yield trials.check("White box beats transfer", transfers, RARE, masked)

    def _epsilon_zero(self, clean, first, examples):
        changed = np.sum(first(examples, 0.0) != clean(examples))
        return counted(
            "Epsilon 0 equals clean",
            changed,
            len(examples),
            0.0,
            f"with epsilon 0 the attack changes the verdict on {changed} of {len(examples)} images",
            "the attack changes what it must not, or the classifier answers at random",
        )

    def _gradients(self, trials, clean, white_box, noise):
        ball, examples = trials.ball, trials.examples
        losses = {one.attack.loss.__name__: (one.attack.loss, bool(one.attack.targets)) for one in white_box}
        losses.setdefault("margin_loss", (margin_loss, False))
        points = {
            name: np.concatenate([batch.adversarial for batch in opponent.batches(examples, radius)])
            for name, opponent, radius in (
                ("clean", clean, None),
                ("random", noise, ball.epsilon),
                ("attacked", white_box[0], ball.epsilon),
            )
        }
        per_pixel = ball.norm_of_ones(math.prod(examples.image_shape))
        step = max(float(ball.epsilon / per_pixel) / 4, 1e-3)
        return check_gradients(clean.logits, losses, points, examples.labels, step, clean.batch_size, trials.seed)
