"""Checks by further attacks on a part of the test images: what they break lowers the reported accuracy, too."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import Attacked, AttackedClassifier
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, ThreatModel
from robgan_tf.robustness.curves import SplitResult, WorstExamples
from robgan_tf.robustness.verdicts import RARE, Check, counted, fewest_to_fail, paired

# Streams of random numbers of the checks' own attacks begin here, behind those of the evaluation's.
_STREAMS = 1000
# Radii of large balls, in epsilons.
FACTORS = (1.5, 2.0, 4.0)


@dataclasses.dataclass
class Finding:
    """What an attack of the checks broke.

    Attributes:
        opponent: the classifier under it.
        batches: those with broken images; their rows are places in the sample.
        everywhere: whether it broke so many that all test images should be attacked so.
    """

    opponent: AttackedClassifier
    batches: list[Attacked]
    everywhere: bool = False


class Trials:
    """Further attacks on the images of a sample that still stand.

    Args:
        clean: the classifier without an attack.
        examples: the sample.
        standing: bool [N], which of them withstood all of the evaluation's attacks.
        ball: the threat model.
        seed: of the attacks.

    Attributes:
        findings: what the attacks broke so far.
    """

    def __init__(
        self, clean: AttackedClassifier, examples: Examples, standing: np.ndarray, ball: ThreatModel, seed: int
    ):
        self.examples = examples
        self.standing = standing.copy()
        self.ball = ball
        self.findings: list[Finding] = []
        self._clean = clean
        self.seed = seed
        self._streams = itertools.count(_STREAMS)

    def against(self, attack: Attack) -> AttackedClassifier:
        """Returns the classifier under an attack with random numbers of its own."""
        return AttackedClassifier(self._clean.logits, attack, self._clean.batch_size, self.seed, next(self._streams))

    def check(
        self,
        name: str,
        opponents: Sequence[AttackedClassifier],
        tolerated: float,
        meaning: str,
        known: int = 0,
        of: int = 0,
        right: int | None = None,
    ) -> Check:
        """Tries attacks on the images that still stand, keeps what they break, and returns the check of how many.

        Args:
            name: of the check.
            opponents: the classifier under each attack.
            tolerated: share that they may break of the images that they are tried on, or of those that are `right`.
            meaning: what it means if they break more.
            known: images that the evaluation itself is known to have broken in this way alone.
            of: images in which these were looked for.
            right: number of images that are right clean, if the share is of these. An attack on a weak classifier
                leaves so few that one image more or less is a large share of them, and means nothing.
        """
        before = int(self.standing.sum())
        findings = []
        for opponent in opponents:
            batches = opponent.attack_all(self.examples, self.standing, self.ball.epsilon)
            findings.append(Finding(opponent, [batch for batch in batches if batch.broken.any()]))
        found, tried = before - int(self.standing.sum()) + known, before + of
        labels = " and ".join(opponent.attack.label for opponent in opponents)
        check = counted(
            name,
            found,
            tried if right is None else right,
            tolerated,
            f"{labels} broke {found} of {tried} images that withstood the others"
            + ("" if right is None else f", {right} being right clean"),
            meaning,
        )
        for finding in findings:
            if finding.batches:
                # Also where the check tolerates them: what is not rare in the sample is not rare in the test.
                finding.everywhere = found >= fewest_to_fail(tried, RARE)
                self.findings.append(finding)
        return check


def count_findings(
    trials: Trials,
    rows: np.ndarray,
    results: Mapping[str, SplitResult],
    splits: Mapping[str, Examples],
    worst: WorstExamples,
):
    """Counts what the checks' attacks broke, and tries those that broke too many on all images.

    Args:
        trials: holds it.
        rows: the places of the trials' images in the test split.
        results: of the splits, which are changed.
        splits: their images.
        worst: collects the worst images.
    """
    epsilon = trials.ball.epsilon
    for finding in trials.findings:
        attack = finding.opponent.attack
        for split, result in results.items():
            standing, _ = result.fallen(epsilon)
            before, tried = int(standing.sum()), 0
            if split == "test":
                tried = len(trials.examples)
                for batch in finding.batches:
                    result.add_broken(rows[batch.rows], batch, epsilon)
                    worst.add(batch, splits[split].labels[rows[batch.rows]], epsilon, attack.name)
            standing, _ = result.fallen(epsilon)
            if finding.everywhere:
                tried = before
                for batch in finding.opponent.attack_all(splits[split], standing, epsilon):
                    result.add_broken(batch.rows, batch, epsilon)
            result.add_finding(attack, min(tried, before), before - int(standing.sum()))


class FromOutside(Attack):
    """PGD in balls of 1.5, 2 and 4 epsilon, from where it goes back to the ball, and goes on there.

    It finds what PGD in the ball does not where logits stand still near the images, or gradients mislead there. It
    starts from the image, and then from random points of the larger ball.

    Args:
        attack: a PGD.
    """

    name = "pgd from outside"

    def __init__(self, attack: PGD):
        super().__init__(attack.threat_model, attack.loss, restarts=2 * len(FACTORS))
        self.attack = attack

    @property
    def label(self):
        return f"{self.attack.label} from balls of {', '.join(f'{factor:g}' for factor in FACTORS)} epsilon"

    def with_epsilon(self, epsilon):
        """See `Attack`."""
        return FromOutside(self.attack.with_epsilon(epsilon))

    def fool(self, logits, images, labels, seed, run=0):
        """See `Attack`: each run has a ball and a start of its own."""
        other = copy.copy(self)
        other.run = tf.convert_to_tensor(run)
        return super(FromOutside, other).fool(logits, images, labels, seed, run)

    def start(self, images, seed=None):
        """See `Attack`."""
        perturbation = self._large.threat_model.random_perturbation(tf.shape(images), seed)
        perturbation *= tf.cast(self.run >= len(FACTORS), tf.float32)
        return self._large.threat_model.project(images + perturbation, images)

    @property
    def _large(self):
        other = self.attack.with_epsilon(tf.gather(FACTORS, self.run % len(FACTORS)) * self.threat_model.epsilon)
        other.last_point = True  # as far as it goes, and not up to the first point that would do outside
        return other

    def search(self, start, images, judge, seed):
        """See `Attack`."""
        outside = self._large.search(start, images, judge, seed)
        return self.attack.search(self.threat_model.project(outside, images), images, judge, seed)


def check_growing_balls(trials: Trials, first: AttackedClassifier, right: Examples) -> Check:
    """Returns whether the attack breaks no fewer images in larger balls, from half an epsilon to four.

    Args:
        trials: makes the attacks.
        first: the classifier under the evaluation's first attack along gradients.
        right: images that are right clean.
    """
    epsilon = trials.ball.epsilon
    stands = [first(right, radius) for radius in (epsilon / 2, epsilon, *(factor * epsilon for factor in FACTORS))]
    pairs = [(np.sum(~a & b), np.sum(a & ~b)) for a, b in zip(stands, stands[1:])]
    rises, falls = max(pairs, key=lambda pair: pair[0] - pair[1])
    return paired(
        "Accuracy never rises with epsilon",
        rises,
        falls,
        len(right),
        f"of {len(right)} images, each attacked afresh at 0.5, 1, {', '.join(f'{f:g}' for f in FACTORS)} times "
        f"epsilon, the next larger ball loses {rises} and gains {falls} where it does worst",
        "a larger ball holds the smaller one, so the attack fails in it",
        tests=len(pairs),
    )


def check_starts(trials: Trials, starts: Sequence[AttackedClassifier], right: Examples) -> Check:
    """Returns whether PGD from the image itself reaches what it reaches from afar, within 4 epsilon.

    Args:
        trials: has the threat model.
        starts: the classifier under PGD from the image, and from random points.
        right: images that are right clean.
    """
    near, far = (opponent(right, FACTORS[-1] * trials.ball.epsilon) for opponent in starts)
    return paired(
        "Attacks from the image reach as far as from afar",
        np.sum(near & ~far),
        np.sum(far & ~near),
        len(right),
        f"of {len(right)} images, within {FACTORS[-1]:g} epsilon, {np.sum(near & ~far)} fall from random starts alone "
        f"and {np.sum(far & ~near)} from the image alone",
        "near the images the classifier hides where it is weak",
    )


def check_unbounded(trials: Trials, starts: Sequence[AttackedClassifier], right: Examples) -> Check:
    """Returns whether PGD breaks every image where it may turn each into any other; arguments as of `check_starts`."""
    radius = unbounded(trials.ball, right.image_shape)
    stands = np.any([opponent(right, radius) for opponent in starts], axis=0)
    return counted(
        "Unbounded attack reaches 0 %",
        stands.sum(),
        len(right),
        0.0,
        f"at epsilon {radius:.3g}, where every image can become any other, {stands.sum()} of {len(right)} images "
        f"stand, from the image or from a random start",
        "gradients are masked, or the attack is broken",
    )


def pgd(ball: ThreatModel, steps: int, loss=margin_loss, samples: int = 1, **options) -> PGD:
    """PGD of steps that reach across the ball."""
    return PGD(ball, steps, relative_step_size=2.5 / steps, loss=loss, samples=samples, **options)


def unbounded(ball: ThreatModel, image_shape: Sequence[int]) -> float:
    """Returns the radius within which every image can be turned into any other."""
    low, high = PIXEL_RANGE
    return (high - low) * ball.norm_of_ones(math.prod(image_shape))
