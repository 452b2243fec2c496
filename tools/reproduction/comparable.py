"""Whether runs may be compared: whether each is what the experiment describes, by its own record."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from reproduction.runs import Run, name_of, read_json, wanted_steps
from robgan_tf.bindings import bindings

# Measures while training, which change nothing that is learnt; those that count are compared by themselves.
_MEASURES = (
    "Experiment.generation_scores",
    "TrainingScores.",
    "classifier_extractor.",
    "inception.",
    "GenerationEvaluation.",
    "ClassifierTraining.",
    "ExportOptions.",
    "Upkeep.",
)
# What the reports of all runs of an experiment must agree in.
_EVALUATION = ("dataset", "examples", "attacks", "seed", "norm", "pixel_range")
_GENERATION = ("dataset", "reference", "subset", "nearest", "seed")


class NotComparableError(ValueError):
    """Runs that do not belong together.

    Attributes:
        problems: a line for each thing that differs.
    """

    def __init__(self, problems: Sequence[str]):
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def differences(run: Run, expected: dict) -> list[str]:
    """Returns what of a run is not as described: a line for each binding, and for the data."""
    found = []
    if not run.directory.config.exists():
        return [f"{run.name}: {run.path} holds no run"]
    old = _learnt(bindings(run.directory.config.read_text()))
    new = _learnt(bindings(expected["config"]))
    for name in sorted({**old, **new}):
        if name not in old and new[name] == "None":
            continue  # a part that came later, and is off
        if old.get(name) != new.get(name):
            found.append(
                f"{run.name} ({run.path}): {name} was {old.get(name, 'not set')}, and the experiment has "
                f"{new.get(name, 'it not set')}"
            )
    found += _scores(run)
    if run.directory.manifest.exists():
        data = read_json(run.directory.manifest)["run"][0]
        if data != expected["data"]:
            found.append(
                f"{run.name} ({run.path}): it was trained on '{data}', the experiment has '{expected['data']}'"
            )
    return found


def check(runs: Sequence[Run], expected: dict[str, dict]):
    """Checks that all runs are done, are what the experiment describes, and were evaluated alike.

    Args:
        runs: of an experiment.
        expected: what each configuration comes to, by the run's name.

    Raises:
        NotComparableError: with everything that is missing or differs.
    """
    problems = []
    for run in runs:
        steps = wanted_steps(run, expected[run.name])
        if run.missing(steps):
            problems.append(f"{run.name} ({run.path}) is not done: {run.status(steps)}")
        else:
            problems += differences(run, expected[run.name])
    if not problems:
        problems += _reports(runs, _EVALUATION, lambda run: run.robustness_reports, _epsilons)
        problems += _reports(runs, _GENERATION, lambda run: [run.generation] if run.part.generator else [], _extractors)
    if problems:
        raise NotComparableError(problems)


def _learnt(found: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if not name.startswith(_MEASURES)}


def _scores(run: Run) -> list[str]:
    """What differs of the scores while training: the extractor, and what the scale binds of them."""
    recorded = bindings(run.directory.config.read_text())
    found = []
    for param in run.score_params:
        name, value = name_of(param), param.split("=", 1)[1].strip()
        if name in map(name_of, run.user_params):
            continue  # the last one wins, and a user may have changed it between runs
        was = recorded.get(name, "not set")
        if _literal(was) != _literal(value):
            found.append(f"{run.name} ({run.path}): {name} was {was}, and the experiment has {value}")
    return found


def _literal(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a reference, such as @TrainingScores
        return text


def _reports(runs: Sequence[Run], names: Sequence[str], files: Callable, more: Callable[[dict], dict]) -> list[str]:
    """Compares settings of reports with those of the first one."""
    found, first = [], None
    for run in runs:
        for path in files(run):
            if not path.exists():
                continue
            report = read_json(path)
            settings = {**{name: report.get(name) for name in names}, **more(report)}
            if first is None:
                first, of_the_first = settings, path
            for name, value in settings.items():
                if value != first[name]:
                    found.append(f"{run.name}: {name} in {path} is {value}, in {of_the_first} it is {first[name]}")
    return found


def _epsilons(report: dict) -> dict:
    return {
        "epsilons": [point["epsilon"] for point in report["curve"]],
        "training images": report["train"]["examples"],
    }


def _extractors(report: dict) -> dict:
    return {
        "extractors": [block["checksum"] for block in report["extractors"]],
        "generated images": report["generated"]["images"],
    }


def commits(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Returns the commits that runs were trained with, and the names of the runs of each."""
    found = {}
    for run in runs:
        commit = read_json(run.directory.manifest).get("git_commit") if run.directory.manifest.exists() else None
        found.setdefault(commit or "unknown", []).append(run.name)
    return found
