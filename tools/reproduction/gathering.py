"""What all tables and figures are gathered with: series over seeds, mean and standard error, and Markdown of them."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from reproduction.comparable import NotComparableError
from reproduction.runs import Run, read_json
from reproduction.systems import EXTRACTOR


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What came out of an experiment.

    Attributes:
        results: everything in numbers, for JSON; accuracies in per cent.
        lines: the same for people, in Markdown.
        draw: draws the plot into a matplotlib figure.
    """

    results: dict
    lines: list[str]
    draw: Callable


@dataclasses.dataclass(frozen=True)
class Runs:
    """The finished runs of an experiment.

    Attributes:
        runs: all of them.
        expected: what each configuration comes to, by the run's name.
        data: name of the data set, as in the flags.
    """

    runs: Sequence[Run]
    expected: dict[str, dict]
    data: str

    def of(self, system: str) -> list[Run]:
        """Returns the runs of a system, by seed."""
        return sorted((run for run in self.runs if run.system == system), key=lambda run: run.seed)

    @property
    def seeds(self) -> list[int]:
        """The seeds of what is compared."""
        return sorted({run.seed for run in self.runs if run.system != EXTRACTOR})

    def updates(self, system: str, stages: Sequence[str] = ("cotraining", "finetuning")) -> int:
        """Returns the number of updates of the classifier in these stages."""
        expected = self.expected[self.of(system)[0].name]
        return sum(stage["updates"] for stage in expected["stages"] if stage["stage"] in stages)

    def epochs(self, run: Run, record: dict) -> float:
        """Returns the passes over the training images up to an entry of the metrics."""
        return record["images_seen"] / self.expected[run.name]["train_images"]


def summarize(values: Sequence) -> dict:
    """Returns values by seed with their mean and its standard error, s / sqrt(n) with n - 1 in s; None for one seed.

    Args:
        values: of each seed a number or a list of numbers.
    """
    array = np.asarray(values, np.float64)
    error = None if len(array) < 2 else (array.std(axis=0, ddof=1) / math.sqrt(len(array))).tolist()
    return {"by_seed": array.tolist(), "mean": array.mean(axis=0).tolist(), "standard_error": error}


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Accuracy of a classifier over seeds, in per cent.

    Attributes:
        epsilons: the radii.
        test: by seed and epsilon, [S, E].
        train: on training images, [S, E].
        lipschitz: mean local Lipschitz value by split, by seed.
        reference_epsilon: the largest of the radii within the own ball of the evaluation's attack.
    """

    epsilons: list[float]
    test: np.ndarray
    train: np.ndarray
    lipschitz: dict[str, list[float]]
    reference_epsilon: float

    @property
    def at(self) -> int:
        """The place of the reference epsilon among the radii."""
        return self.epsilons.index(self.reference_epsilon)

    @property
    def gap(self) -> np.ndarray:
        """Accuracy on training images minus that on test images, [S, E]."""
        return self.train - self.test

    def to_json(self) -> dict:
        """Returns everything, with means and standard errors."""
        return {
            "test": summarize(self.test),
            "train": summarize(self.train),
            "gap": summarize(self.gap),
            "lipschitz": {split: summarize(values) for split, values in self.lipschitz.items()},
        }


def robustness(runs: Sequence[Run], before_finetuning: bool = False) -> Robustness:
    """Reads the reports of the runs of a system."""
    reports = [read_json(run.before_finetuning if before_finetuning else run.directory.robustness) for run in runs]

    def accuracies(blocks):
        return 100 * np.array([[point["accuracy"] for point in block["curve"]] for block in blocks])

    trains = [report["train"] for report in reports]
    return Robustness(
        [point["epsilon"] for point in reports[0]["curve"]],
        accuracies(reports),
        accuracies(trains),
        {
            "test": [report["lipschitz"]["mean"] for report in reports],
            "train": [block["lipschitz"]["mean"] for block in trains],
        },
        reports[0]["reference_epsilon"],
    )


def curve(runs: Runs, system: str, stage: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the epochs [T] and the values [S, T] of a metric that is measured now and then.

    Raises:
        NotComparableError: where a run has none, or the runs have them at other steps.
    """
    epochs, values = None, []
    for run in runs.of(system):
        records = [record for record in run.directory.metric_records() if record["stage"] == stage and metric in record]
        if not records:
            raise NotComparableError([f"{run.name} ({run.path}): its metrics have no {metric}"])
        where = [runs.epochs(run, record) for record in records]
        if epochs is not None and where != epochs:
            raise NotComparableError(
                [f"{run.name} ({run.path}): {metric} was measured at other steps than of other seeds"]
            )
        epochs = where
        values.append([record[metric] for record in records])
    return np.array(epochs), np.array(values)


def of_real_images(runs: Sequence[Run]) -> dict:
    """Returns what the extractor that scored the generators while they trained says of the real images.

    Returns:
        `extractor`, its checksum; `images`, how many; their `score`; and `accuracy`, the share that it takes for their
        class, NaN where it has other classes.

    Raises:
        NotComparableError: where a run has no such statistics, or those of another extractor or of other images.
    """
    found, problems = None, []
    for run in runs:
        here = [one for one in map(_of_scores, sorted(run.path.glob("generation/*.npz"))) if one]
        if len(here) != 1:
            problems.append(f"{run.name} ({run.path}): it was scored by {len(here)} extractors, not by one")
            continue
        found = found or here[0]
        if (here[0]["extractor"], here[0]["images"]) != (found["extractor"], found["images"]):
            problems.append(
                f"{run.name} ({run.path}): it was scored by extractor {here[0]['extractor'][:12]} against "
                f"{here[0]['images']} images, {runs[0].name} by {found['extractor'][:12]} against {found['images']}"
            )
    if problems:
        raise NotComparableError(problems)
    return found


def _of_scores(path: pathlib.Path) -> dict | None:
    """What a file of statistics holds, if it is of scores while training, which keep no features."""
    with np.load(path, allow_pickle=False) as file:
        key = json.loads(str(file["key"]))
        if key["kept"]:
            return None
        score, accuracy = float(file["score"][0]), float(file["right"])
    return {"extractor": key["extractor"], "images": key["count"], "score": score, "accuracy": accuracy}


def cell(summary: dict, index: int | None = None, digits: int = 1, sign: bool = False) -> str:
    """Returns mean and standard error of one value of a summary for a table."""
    mean, error = summary["mean"], summary["standard_error"]
    if index is not None:
        mean, error = mean[index], None if error is None else error[index]
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return [*lines, ""]


def number(value: float) -> str:
    """Returns an epsilon or another number as short as it is exact."""
    return f"{value:g}"


def band(axis, where, summary: dict, label: str, **options):
    """Draws a mean with its standard error as a band."""
    mean = np.asarray(summary["mean"])
    (line,) = axis.plot(where, mean, marker="o", markersize=3, label=label, **options)
    if summary["standard_error"] is not None:
        error = np.asarray(summary["standard_error"])
        axis.fill_between(where, mean - error, mean + error, alpha=0.2, color=line.get_color())
    return line
