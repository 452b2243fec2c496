"""Accuracy of a classifier on clean and on attacked images: what `robustness.json` holds."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Callable

import gin
import numpy as np

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import Examples, ImageData, stratified_order
from robgan_tf.data.files import write_json
from robgan_tf.pages.robustness_page import write_report
from robgan_tf.players.attacker import inputs
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, epsilon_255
from robgan_tf.robustness.answer_checks import check_arrays, check_training_images
from robgan_tf.robustness.attack_checks import Trials, count_findings
from robgan_tf.robustness.checks import SanityChecks
from robgan_tf.robustness.curves import SplitResult, WorstExamples
from robgan_tf.robustness.local_lipschitz import LocalLipschitz
from robgan_tf.run.provenance import provenance
from robgan_tf.time_left import TimeLeft
from robgan_tf.values import checked, number, optional, several, whole

# Batches that are taken through all epsilons and attacks before the next ones: enough to fill batches with those that
# still stand, and few enough to show progress.
_PIECE = 8


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        report: what `robustness.json` holds.
        worst: the adversarial images that the page shows, see `WorstExamples.arrays`.
    """

    report: dict
    worst: dict

    @property
    def failed_checks(self) -> list[str]:
        """A line for each check that failed."""
        return [f"{check['name']}: {check['message']}" for check in self.report["checks"] if check["status"] == "fail"]

    def write(self, path: pathlib.Path):
        """Writes the report as a page with the ending .html, and then, to `path` beside it, as JSON."""
        write_report(self.report, path.with_suffix(".html"), self.worst)
        write_json(path, self.report)


@gin.configurable
@may_change()
@checked(
    epsilons=several(number(least=0), least=0), batch_size=whole(1), test_examples=optional(whole(1)), seed=whole(0)
)
class RobustnessEvaluation:
    """Accuracy against epsilon, on the whole test split and on an equal part of the training split.

    An image counts as right at an epsilon if the classifier gets it right clean, and under every attack with this
    epsilon and with every smaller one of the list: each of them is within the larger ball, so the attacker may use it.
    So the curve never rises, and an image that is wrong already is not attacked again, which saves most of the work.
    (The checks look at each epsilon by itself.)

    Args:
        attacks: what is tried, in this order, each on the images that still stand. All have the same threat model. Its
            epsilon is the one of headline and checks; it is replaced by each of `epsilons`, and a relative step size
            scales with it.
        epsilons: further radii on the pixel scale [-1, 1], in rising order; 0 is the accuracy on clean images.
        batch_size: images attacked at once, over all replicas.
        test_examples: evaluate a class-balanced part of so many test images; None for all.
        seed: seed of all attacks and of the choice of images.
        checks: whether the accuracy can be believed; None for only those checks that cost nothing.
        corruptions: accuracy under natural corruptions, (logits, examples, batch_size, seed) -> dict; None for none.
        certificates: certified lower bounds, such as `@LipschitzMargin()`, each (logits, examples, batch_size, seed,
            threat model) -> dict.

    Raises:
        ValueError: for epsilons that are not in rising order from 0 or that an attack can't reach, and for no attacks
            or some of different threat models.

    Attributes:
        reference_epsilon: the epsilon of the threat model.
        epsilons: all radii that are evaluated, the former among them, in rising order.
    """

    def __init__(
        self,
        attacks: Sequence[Attack] = gin.REQUIRED,
        epsilons: Sequence[float] = gin.REQUIRED,
        batch_size: int = 250,
        test_examples: int | None = None,
        seed: int = 0,
        checks: SanityChecks | None = None,
        corruptions: Callable | None = None,
        certificates: Sequence[Callable] = (),
    ):
        epsilons = [float(epsilon) for epsilon in epsilons]
        if not epsilons or epsilons[0] != 0 or epsilons != sorted(set(epsilons)):
            raise ValueError(f"RobustnessEvaluation.epsilons must rise from 0, got {epsilons}.")
        if not attacks or not all(isinstance(attack, Attack) for attack in attacks):
            raise ValueError(f"RobustnessEvaluation.attacks must be attacks such as [@PGD()], got {attacks!r}.")
        norms = sorted({attack.threat_model.norm for attack in attacks})
        if len(norms) > 1:
            raise ValueError(
                f"RobustnessEvaluation.attacks have different norms, {' and '.join(norms)}: a worst case over them has "
                f"no meaning. Give all the same threat_model, and evaluate each norm by itself."
            )
        own = sorted({float(attack.threat_model.epsilon) for attack in attacks})
        if len(own) > 1:
            raise ValueError(
                f"RobustnessEvaluation.attacks have different epsilons, {' and '.join(f'{e:g}' for e in own)}, and the "
                f"headline is that of one: give all the same threat_model."
            )
        (self.reference_epsilon,) = own
        others = [epsilon for epsilon in epsilons if not math.isclose(epsilon, own[0], rel_tol=1e-6)]
        epsilons = sorted(others + own)
        for epsilon in epsilons[1:]:  # finds an epsilon that the steps can't reach now and not after the training
            for attack in attacks:
                attack.with_epsilon(epsilon)
        self.attacks = tuple(attacks)
        self.epsilons = epsilons
        self.batch_size = batch_size
        self.test_examples = test_examples
        self.seed = seed
        self.checks = checks
        self.corruptions = corruptions
        self.certificates = tuple(certificates)

    def check_classes(self, num_classes: int):
        """Raises ValueError where a classifier of `num_classes` can't be attacked as configured."""
        for attack in self.attacks:
            attack.check_classes(num_classes)

    def __call__(
        self, logits: Callable, data: ImageData, progress: Callable[[str], None] = lambda line: None
    ) -> Evaluation:
        """Evaluates a classifier.

        Args:
            logits: see `AttackedClassifier`.
            data: the data set.
            progress: is called with a line of text after each piece of the work.

        Raises:
            ValueError: for a classifier or data that can't be evaluated, see `inputs`.
        """
        start = time.monotonic()
        self.check_classes(data.num_classes)
        inputs.check_classifier(logits, data)
        test = data.test if self.test_examples is None else data.test.take(self.test_examples, self.seed)
        splits = {"test": test, "train": data.train.take(len(test), self.seed)}
        inputs.check_examples(data, splits)
        batch_size = min(self.batch_size, len(test))
        rows = np.sort(stratified_order(test.labels, self.seed)[: self.checks.examples if self.checks else 100])
        sample = test.select(rows)
        clean = AttackedClassifier(logits, None, batch_size)
        inputs.check_answers(clean, sample)
        # Before the attacks, which take long: these may not suit the classifier, or corrupted images may be missing.
        corrupted = self.corruptions and self.corruptions(logits, test, batch_size, self.seed)
        ball = self.attacks[0].threat_model
        certificates = [certify(logits, test, batch_size, self.seed, ball) for certify in self.certificates]
        attacks, notes = self.attacks, []
        if not inputs.has_gradient(logits, test):
            attacks = [attack for attack in attacks if not attack.needs_gradient] or [Square(attacks[0].threat_model)]
            names = ", ".join(attack.name for attack in attacks)
            notes.append(f"No gradient path leads from answers to images: attacks without gradients only ({names}).")
            progress(notes[0])
        attacks = [attack.prepared(logits, data.train, self.seed) for attack in attacks]
        attacked = [
            AttackedClassifier(logits, attack, batch_size, self.seed, stream) for stream, attack in enumerate(attacks)
        ]
        worst, checks = WorstExamples(), []
        results = {
            split: SplitResult(split, examples.labels, self.epsilons, attacks) for split, examples in splits.items()
        }
        for split, result in results.items():
            self._attack_split(
                result, splits[split], clean, attacked, data, worst if split == "test" else None, progress
            )
        if self.checks is not None:
            standing, black_box = (mask[rows] for mask in results["test"].fallen(self.reference_epsilon))
            trials = Trials(clean, sample, standing, attacks[0].threat_model, self.seed)
            for check in self.checks(trials, clean, attacked, black_box, data.train):
                checks.append(check)
                progress(f"check: {check.status} - {check.name}: {check.message}")
            if self.checks.counted:
                count_findings(trials, rows, results, splits, worst)
                accuracy = np.mean(results["test"].fell_at > self.reference_epsilon)
                progress(f"test: accuracy {accuracy:.2%} under the checks' attacks, too")
        blocks = {split: result.block(self.reference_epsilon, data.class_names) for split, result in results.items()}
        if self.checks is not None:
            checks.append(check_training_images(blocks["test"], blocks["train"], self.reference_epsilon))
        checks.append(check_arrays(attacked))
        lipschitz = LocalLipschitz(logits, test.image_shape, batch_size)
        for split, block in blocks.items():
            block["lipschitz"] = summary(lipschitz(splits[split])) if not notes else None
        described = [attack.describe() for attack in attacks]
        test_curve = blocks["test"]["curve"]
        report = {
            "dataset": data.name,
            "class_names": list(data.class_names),
            "pixel_range": list(PIXEL_RANGE),
            "norm": attacks[0].threat_model.norm,
            "attack": {**described[0], "counting": "cumulative", "seed": self.seed},
            "attacks": described,
            **blocks["test"],
            "train": blocks["train"],
            "reference_epsilon": self.reference_epsilon,
            "reference_epsilon_255": epsilon_255(self.reference_epsilon),
            "worst_case": next(point for point in test_curve if point["epsilon"] == self.reference_epsilon),
            "checks": [dataclasses.asdict(check) for check in checks],
            "check_examples": len(sample),
            "sanity_checked": self.checks is not None,
            "notes": notes,
            "robustbench": {},
            "seed": self.seed,
            "batch_size": batch_size,
            **provenance(),
        }
        if self.corruptions is not None:
            report["corruptions"] = corrupted
        report["certificates"] = certificates
        report["robustbench"] = robustbench(report)
        report["wall_seconds"] = round(time.monotonic() - start, 1)
        return Evaluation(report, worst.arrays(test.image_shape))

    def _attack_split(self, result: SplitResult, examples, clean, attacked, data, worst, progress):
        """Takes a split through all epsilons and attacks, a piece at a time."""
        piece, time_left = _PIECE * clean.batch_size, TimeLeft(len(examples), "images", every=0)
        for first in range(0, len(examples), piece):
            rows = np.arange(first, min(first + piece, len(examples)))
            self._attack_piece(examples.select(rows), rows, clean, attacked, result, worst)
            if piece < len(examples):
                progress(f"{result.split}: attacked {time_left.line(int(rows[-1]) + 1)}")
        for point in result.block(self.reference_epsilon, data.class_names)["curve"]:
            progress(
                f"{result.split}: accuracy {point['accuracy']:.2%} at epsilon {point['epsilon']:g} "
                f"({point['epsilon_255']:.2f}/255), {len(examples)} images"
            )

    def _attack_piece(self, examples: Examples, rows, clean, attacked, result: SplitResult, worst):
        standing = np.ones(len(examples), bool)
        for batch in clean.attack_all(examples, standing):
            result.add_clean(rows[batch.rows], batch)
        for radius, epsilon in enumerate(self.epsilons[1:], start=1):
            for place, opponent in enumerate(attacked):
                before = int(standing.sum())
                for batch in opponent.attack_all(examples, standing, epsilon):
                    result.add_broken(rows[batch.rows], batch, epsilon, opponent.attack.needs_gradient)
                    if worst is not None:
                        worst.add(batch, examples.labels[batch.rows], epsilon, opponent.attack.name)
                result.add_count(radius, place, before, int(standing.sum()))


def summary(values: np.ndarray) -> dict:
    """Returns mean, median, 95 % quantile and largest of `values` [N]."""
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(np.max(values)),
    }


def robustbench(report: dict) -> dict:
    """Returns what RobustBench's `model_info` files say of a model, in its field names and its strings of per cent.

    What an evaluation does not know is empty: for the authors, and `autoattack_acc` for RobustBench's own run.
    """
    return {
        **dict.fromkeys(("link", "name", "authors", "venue", "architecture", "footnote", "autoattack_acc"), ""),
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": report["dataset"],
        "threat_model": {"linf": "Linf", "l2": "L2", "l1": "L1"}[report["norm"]],
        "eps": f"{report['reference_epsilon_255']:g}/255",
        "clean_acc": f"{100 * report['clean']:.2f}",
        "reported": f"{100 * report['worst_case']['accuracy']:.2f}",
        "unreliable": any(check["status"] == "fail" for check in report["checks"]),
    }
