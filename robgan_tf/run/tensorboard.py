"""TensorBoard's event files of a run: which chart a metric goes to, and no step twice after a restart.

One folder, which TensorBoard calls a run, for each stage: `cotraining/`, `finetuning/`, `evaluation/`. Charts are
grouped by player, and the same chart of several stages lies in one frame. TensorBoard sorts groups by their names: the
first one, `1_health`, is what tells whether a run goes well.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from robgan_tf.data import pipelines
from robgan_tf.data.files import written_aside
from robgan_tf.run.metrics import SHARE, Metric, declare, described, group_tag

# Bytes around a record in a file: its length and two checksums.
_FRAME = 16

declare(
    Metric(
        "test_accuracy",
        "accuracy under attack",
        "Test accuracy",
        group="health",
        unit=SHARE,
        tag="test_attacked",
        description="Accuracy on test images under all attacks of the evaluation, at its reference epsilon.",
    ),
    Metric(
        "test_clean_accuracy",
        "clean accuracy",
        "Test accuracy",
        group="health",
        unit=SHARE,
        tag="test_clean",
        description="Accuracy on test images without an attack.",
    ),
)


def write_scalars(metrics: dict, sigmas: dict, step: int):
    """Writes metrics by name and sigmas by layer to the writer that is the default."""
    for name, value in metrics.items():
        metric = described(name)
        tf.summary.scalar(metric.tensorboard, value, step=step, description=metric.description or None)
    for layer, value in sigmas.items():
        tf.summary.scalar(f"{group_tag('sigma')}/{layer}", value, step=step)


def tidy_events(folder: pathlib.Path, last_step: int | None = None):
    """Makes one event file of those that the starts of a stage left in `folder`, in the order of the steps.

    What a kill left unfinished at the end of a file goes, and what is behind `last_step`: a run that goes on from there
    writes these steps again. To be called where no file is being written.
    """
    files = [_look_through(path, last_step) for path in folder.glob("events.out.tfevents.*")]
    # Not by name: of two files of the same second the second one's name may come first.
    files.sort(key=lambda file: file.last_time)
    if len(files) < 2 and all(file.whole and file.kept == file.events for file in files):
        return
    first, *others = [file.path for file in files]
    # The first event of a file is its version, which the whole needs once.
    if any(file.kept > 1 for file in files):
        begun = False
        with written_aside(first) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for file in files:
                for place, (event, record) in enumerate(_events(file.path)):
                    if (place or not begun) and (last_step is None or event.step <= last_step):
                        writer.write(record)
                        begun = True
    else:
        first.unlink()
    for path in others:
        path.unlink()


@dataclasses.dataclass(frozen=True)
class _EventFile:
    """What is in an event file: numbers of whole events and of those to keep, and whether there is nothing else."""

    path: pathlib.Path
    events: int
    kept: int
    last_time: float
    whole: bool


def _look_through(path: pathlib.Path, last_step: int | None) -> _EventFile:
    # An event at a time: with the image grids of a long run they are several GiB.
    events = kept = 0
    last_time, size = 0.0, 0
    for event, record in _events(path):
        events, last_time = events + 1, event.wall_time
        kept += last_step is None or event.step <= last_step
        size += len(record) + _FRAME
    return _EventFile(path, events, kept, last_time, size == path.stat().st_size)


def _events(path: pathlib.Path) -> Iterator[tuple]:
    """The whole events of a file, parsed and as they are, up to the first that is not."""
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)).with_options(pipelines.options()).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record), record


def write_run(
    folder: pathlib.Path,
    config: str,
    bindings: dict[str, str],
    manifest: dict,
    compared: Sequence[str],
    outcomes: Sequence[tuple[str, str]],
):
    """Writes what a run is: its configuration and manifest as text, and what the tab HParams compares.

    Args:
        folder: TensorBoard's folder of the run. Its own event files are replaced, those of the stages are not.
        config: the operative configuration, as text.
        bindings: the same, name -> value.
        manifest: versions, commit, machine and data.
        compared: names of the bindings that runs are compared by; those that a run does not have stay empty.
        outcomes: pairs of a metric and the stage whose last value of it counts.
    """
    found = {name: _value(text) for name, text in bindings.items() if name in compared}
    with _only_writer(folder).as_default(step=0):
        tf.summary.text("run/config", f"```\n{config.strip()}\n```")
        tf.summary.text("run/manifest", f"```\n{json.dumps(manifest, indent=2)}\n```")
        metrics = [
            hparams.Metric(described(name).tensorboard, group=stage, display_name=f"{described(name).label} ({stage})")
            for name, stage in outcomes
        ]
        hparams.hparams_config(hparams=[hparams.HParam(name) for name in compared], metrics=metrics)
        hparams.hparams(found)


def write_evaluation(folder: pathlib.Path, report: dict):
    """Writes the accuracies of a finished run, from its `robustness.json`; what was there before is replaced."""
    with _only_writer(folder / "evaluation").as_default(step=0):
        write_scalars(
            {"test_clean_accuracy": report["clean"], "test_accuracy": report["worst_case"]["accuracy"]}, {}, 0
        )


def write_generation(folder: pathlib.Path, report: dict):
    """Writes the scores of a generator, from `generation.json`, by extractor; what was there before is replaced."""
    for number, block in enumerate(report["extractors"]):
        scores = {name: value for name, value in block["generated"].items() if isinstance(value, float)}
        with _only_writer(folder / f"generation_{number}").as_default(step=0):
            tf.summary.text("run/extractor", f"{block['extractor']}, {block['checksum']}")
            write_scalars({f"generator_{name}": value for name, value in scores.items()}, {}, 0)


def _only_writer(folder: pathlib.Path):
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return tf.summary.create_file_writer(str(folder))


def _value(text: str):
    """A binding's value as HParams takes it: a number, a truth value, or text such as a reference."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
