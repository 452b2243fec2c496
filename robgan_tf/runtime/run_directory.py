"""The files of a run: configuration, checkpoints, metrics, reports."""

from __future__ import annotations

import json
import os
import pathlib
import re

import tensorflow as tf


class RunDirectory:
    """The folder of one run. Nothing is created before the first write.

    Args:
        path: the folder.
    """

    def __init__(self, path: str):
        self.path = pathlib.Path(path)

    @property
    def config(self) -> pathlib.Path:
        """The operative configuration, a gin file."""
        return self.path / "config.gin"

    @property
    def metrics(self) -> pathlib.Path:
        """One JSON object a line: stage, step, images_seen, wall_seconds, scalars."""
        return self.path / "metrics.jsonl"

    @property
    def robustness(self) -> pathlib.Path:
        """The report of the evaluation."""
        return self.path / "robustness.json"

    @property
    def tensorboard(self) -> pathlib.Path:
        """TensorBoard's log folder."""
        return self.path / "tensorboard"

    @property
    def samples(self) -> pathlib.Path:
        """Image grids."""
        return self.path / "samples"

    @property
    def exports(self) -> pathlib.Path:
        """The exported classifiers, `<version>/` each."""
        return self.path / "export"

    def checkpoints(self, stage: str, objects: dict, keep: int = 2) -> tf.train.CheckpointManager:
        """Returns the checkpoints of a stage, of all `objects`. The newest `keep` are kept."""
        return tf.train.CheckpointManager(
            tf.train.Checkpoint(**objects), str(self.path / "checkpoints" / stage), max_to_keep=keep
        )

    def claim(self, operative_config: str):
        """Makes the folder this configuration's own, or checks that it is.

        Raises:
            ValueError: where it was made by another configuration, with the bindings that differ.
        """
        if self.config.exists():
            differences = config_differences(self.config.read_text(), operative_config)
            if differences:
                raise ValueError(
                    f"{self.path} was made by another configuration: {'; '.join(differences)}. "
                    f"Give a new --run_dir, or the configuration it was made with ({self.config})."
                )
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--run_dir={self.path} is a file; give a folder.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(
                f"--run_dir={self.path} is not empty and holds no run (no config.gin): give a new or empty folder."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, operative_config)

    def forget_metrics_after(self, stage: str, step: int):
        """Removes the lines of a stage behind `step`: a run that goes on from there will write them again."""
        records = self._metric_records()
        kept = [record for record in records if record["stage"] != stage or record["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def last_wall_seconds(self) -> float:
        """Returns the seconds of training that the metrics tell of."""
        return max((record["wall_seconds"] for record in self._metric_records()), default=0.0)

    def _metric_records(self) -> list[dict]:
        records = []
        for line in self.metrics.read_text().splitlines() if self.metrics.exists() else ():
            try:
                records.append(json.loads(line))
            except ValueError:  # the process was killed in the middle of a line
                continue
        return records

    def last_checkpoint(self) -> str | None:
        """Returns the path of the newest checkpoint of any stage, or None."""
        stages = self.path / "checkpoints"
        newest = [tf.train.latest_checkpoint(str(stage)) for stage in stages.iterdir()] if stages.is_dir() else []
        return max(filter(None, newest), key=lambda path: os.path.getmtime(path + ".index"), default=None)


def write_text(path: pathlib.Path, text: str):
    """Writes a file aside and renames it: it is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path: pathlib.Path, content: dict):
    """Writes `content` as JSON, see `write_text`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def bindings(config: str) -> dict[str, str]:
    """Returns the bindings of an operative gin configuration, name -> value, without comments and line breaks."""
    lines = [line for line in config.splitlines() if line.strip() and not line.startswith(("#", "import ", "from "))]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    joined = re.sub(r"\n\s+", " ", joined)
    return dict(line.split(" = ", 1) for line in joined.splitlines())


def config_differences(old: str, new: str) -> list[str]:
    """Returns what differs between two operative configurations, as readable phrases."""
    before, after = bindings(old), bindings(new)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{name} was {before.get(name, 'not set')}, is {after.get(name, 'not set')}" for name in sorted(changed)]
