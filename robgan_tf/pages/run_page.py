"""The page for people of a run: what its folder holds, finished or not."""

from __future__ import annotations

import json
import pathlib
import shlex
from collections.abc import Sequence

from robgan_tf.bindings import bindings
from robgan_tf.data.files import write_text
from robgan_tf.pages.charts import Chart, accuracy_chart, line_chart
from robgan_tf.pages.rendering import render
from robgan_tf.paths import export_versions
from robgan_tf.run import metrics
from robgan_tf.run.directory import RunDirectory

_STAGES = {"cotraining": "Co-training", "finetuning": "Fine-tuning"}
# The bindings of the attackers, which a configuration may set to None.
_ATTACKERS = {"cotraining": "CoTraining.attacker", "finetuning": "FineTuning.attacker"}
_VALIDATION = "Experiment.validation_attacker"


_GRIDS = {
    "generated": "Generated images at step {step}. A row for each class, a column for each noise vector.",
    "attack": "Training images at step {step} of co-training: clean, attacked, and the change magnified.",
}


def update_run_report(run_directory: RunDirectory):
    """Writes `report.html` where something in the run's folder is newer than it; a matter of a second."""
    sources = [
        run_directory.config,
        run_directory.metrics,
        run_directory.manifest,
        run_directory.robustness,
        run_directory.generation,
        *run_directory.samples.glob("*.png"),
        *export_versions(run_directory.exports),
    ]
    report = run_directory.report
    newest = max((path.stat().st_mtime_ns for path in sources if path.exists()), default=None)
    if newest is not None and not (report.exists() and report.stat().st_mtime_ns >= newest):
        write_run_report(run_directory)


def write_run_report(run_directory: RunDirectory):
    """Writes `report.html` from what the run's folder holds, finished or not."""
    write_text(run_directory.report, run_page(run_directory))


def run_page(run_directory: RunDirectory) -> str:
    """Returns the HTML of `write_run_report`."""
    records, robustness = run_directory.metric_records(), _json(run_directory.robustness)
    config = run_directory.config.read_text() if run_directory.config.exists() else ""
    bound = bindings(config)
    name = run_directory.path.resolve().name
    details = run_directory.robustness.with_suffix(".html")
    return render(
        "run.html",
        title=f"Rob-GAN run: {name}",
        name=shlex.quote(name),
        stages=[
            {"title": title, "last": found[-1], "attacked": _attacked(bound, _ATTACKERS[stage]),
             **_charts(found, run_directory.path)}
            for stage, title in _STAGES.items()
            if (found := [record for record in records if record["stage"] == stage])
        ],
        report=robustness,
        curve=accuracy_chart(robustness) if robustness else None,
        details=details.name if robustness and details.exists() else None,
        selection=_selection(records),
        validated=_attacked(bound, _VALIDATION),
        seconds=max((record["wall_seconds"] for record in records), default=None),
        grids=_grids(run_directory),
        generation=_json(run_directory.generation),
        folder=str(run_directory.path.resolve()),
        version=max((int(path.name) for path in export_versions(run_directory.exports)), default=None),
        environment=_environment(_json(run_directory.manifest)),
        config=config.strip(),
        bindings=len(bound),
    )  # fmt: skip


def _json(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _attacked(bound: dict, binding: str) -> str:
    return "clean" if bound.get(binding) == "None" else "under attack"


def _charts(records: Sequence[dict], folder: pathlib.Path) -> dict[str, list[Chart]]:
    """The charts of a stage that tell whether it goes well, and the others, to be folded up."""
    charts = {"charts": [], "folded": []}
    for chart in metrics.charts(records, folder):
        lines = {metric.label: points for metric, points in chart.lines}
        meanings, healthy = (
            list(dict.fromkeys(filter(None, texts)))
            for texts in zip(*((metric.description, metric.healthy) for metric, _ in chart.lines))
        )
        # Of more than two lines the names must do.
        about = " ".join(meanings) if len(meanings) <= 2 else ""
        drawn = line_chart(chart.title, lines, chart.unit == metrics.SHARE, about, " ".join(healthy))
        charts["charts" if healthy or chart.group == "health" else "folded"].append(drawn)
    return charts


def _selection(records: Sequence[dict]) -> list[dict]:
    """For each stage the record with its best accuracy on validation images."""
    found = []
    for stage, title in _STAGES.items():
        validated = [record for record in records if record["stage"] == stage and "validation_accuracy" in record]
        if validated:
            found.append({"title": title, **max(validated, key=lambda record: record["validation_accuracy"])})
    return found


def _environment(manifest: dict | None) -> list[tuple]:
    """Names and values of what the run was trained with."""
    if not manifest:
        return []
    rows = [*manifest["versions"].items(), ("git commit", manifest["git_commit"]), ("seed", manifest["seed"])]
    return [*rows, *manifest["machine"].items(), *(line.split(": ", 1) for line in manifest["run"])]


def _grids(run_directory: RunDirectory) -> list[tuple[str, bytes]]:
    """The newest image grids: caption and PNG."""
    found = []
    for name, words in _GRIDS.items():
        files = sorted(run_directory.samples.glob(f"{name}_*.png"))
        if files:
            step = f"{int(files[-1].stem.rsplit('_', 1)[1]):,}"
            found.append((words.format(step=step), files[-1].read_bytes()))
    return found
