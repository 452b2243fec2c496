"""The files of a run: configuration, checkpoints, metrics, reports."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import platform
import re
import time

from absl import logging

from robgan_tf.bindings import bindings, config_differences
from robgan_tf.data.files import clear_unfinished, write_text
from robgan_tf.run.checkpoints import newest_whole
from robgan_tf.run.tensorboard import tidy_events
from robgan_tf.run.workers import Workers

_LOCK = ".lock"
# What a process that was killed at its very start leaves; the second config is of older versions.
_BEFORE_CONFIG = re.compile(r"\.lock|\.\d+\.partial\.config\.gin|\.config\.gin\.partial")


class RunDirectory:
    """The folder of one run. Nothing is created before the first write.

    Args:
        path: the folder.
        workers: the processes that train together; the chief alone reads and writes.
    """

    def __init__(self, path: str, workers: Workers | None = None):
        self.path = pathlib.Path(path)
        self.workers = workers or Workers()
        self._lock_file = None

    @property
    def config(self) -> pathlib.Path:
        """The operative configuration, a gin file."""
        return self.path / "config.gin"

    @property
    def data(self) -> pathlib.Path:
        """The description of the data that the run is trained on, see `robgan_tf.data.description`."""
        return self.path / "data.json"

    @property
    def metrics(self) -> pathlib.Path:
        """One JSON object a line: stage, step, images_seen, wall_seconds, scalars."""
        return self.path / "metrics.jsonl"

    @property
    def manifest(self) -> pathlib.Path:
        """Versions, commit, machine and data that the run was last trained with."""
        return self.path / "manifest.json"

    @property
    def report(self) -> pathlib.Path:
        """The run as a page for people."""
        return self.path / "report.html"

    @property
    def robustness(self) -> pathlib.Path:
        """The report of the evaluation."""
        return self.path / "robustness.json"

    @property
    def generation(self) -> pathlib.Path:
        """The report on the generator."""
        return self.path / "generation.json"

    @property
    def generation_files(self) -> pathlib.Path:
        """What measuring the generator keeps: statistics of real images, and the classifier for features."""
        return self.path / "generation"

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

    def checkpoints(self, stage: str) -> pathlib.Path:
        """The folder of the checkpoints of a stage."""
        return self.path / "checkpoints" / stage

    def claim(self, operative_config: str, explicit: dict[str, str] | None = None):
        """Makes the folder this configuration's own, or checks that it is, and locks it for this process.

        `config.gin` then holds this configuration: what has no part in what is learnt may be another than before.

        Args:
            operative_config: see `robgan_tf.bindings`.
            explicit: see `config_differences`.

        Raises:
            ValueError: where it was made by another configuration, with the bindings that differ; where another process
                works in it; where it is no folder of a run or can't be written; where workers that train together
                have different configurations.
        """
        chiefs = self.workers.on_chief(lambda: self._claim(operative_config, explicit) or operative_config)
        differences = config_differences(chiefs, operative_config)
        if self.workers.highest(bool(differences))[0]:
            self.release()
            raise ValueError(
                f"The workers have different configurations{': ' if differences else ''}{'; '.join(differences)}. "
                f"Start all of them with the same command."
            )

    def _claim(self, operative_config: str, explicit: dict[str, str] | None):
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--run_dir={self.path} is a file; give a folder.")
        # Before the lock, so that a folder that is refused is left as it is; and after it, since another process may
        # have made it its own in between.
        self._check(operative_config, explicit)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._check(operative_config, explicit)
            clear_unfinished(self.path)
            if not self.config.exists() or bindings(self.config.read_text()) != bindings(operative_config):
                write_text(self.config, operative_config)
        except OSError as error:
            raise ValueError(f"--run_dir={self.path} can't be written ({error.strerror}): give another.") from error

    def _check(self, operative_config: str, explicit: dict[str, str] | None):
        if self.config.exists():
            differences = config_differences(self.config.read_text(), operative_config, explicit)
            if differences:
                raise ValueError(
                    f"{self.path} was made by another configuration: {'; '.join(differences)}. "
                    f"Give a new --run_dir, or the configuration it was made with ({self.config})."
                )
        elif self.path.is_dir() and not all(_BEFORE_CONFIG.fullmatch(path.name) for path in self.path.iterdir()):
            raise ValueError(
                f"--run_dir={self.path} is not empty and holds no run (no config.gin): give a new or empty folder."
            )

    def _lock(self):
        """Takes the lock, which the system gives back when the process ends, however it ends."""
        if self._lock_file is not None:
            return
        path = self.path / _LOCK
        while True:
            file = open(path, "a+")
            file.seek(0)
            owner = file.read().strip()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ValueError(
                    f"--run_dir={self.path} is in use by {owner or 'another process'}: wait for it, stop it, or give "
                    f"another folder."
                ) from None
            # The owner before removes the file while it holds the lock: then this is not the file there any more.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
            file.close()
        if owner:
            logging.warning("%s was left locked by %s, which is gone: going on", self.path, owner)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, started {time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n")
        file.flush()
        self._lock_file = file

    def release(self):
        """Gives the lock back, where this process has it."""
        if self._lock_file is not None:
            (self.path / _LOCK).unlink()
            self._lock_file.close()
            self._lock_file = None

    def forget_metrics_after(self, stage: str, step: int):
        """Removes what metrics and TensorBoard have of a stage behind `step`: a run that goes on writes it again."""
        if not self.workers.is_chief:
            return
        tidy_events(self.tensorboard / stage, step)
        records = self.metric_records()
        kept = [record for record in records if record["stage"] != stage or record["step"] <= step]
        if self.metrics.exists():
            write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def last_wall_seconds(self) -> float:
        """Returns the seconds of training that the metrics tell of."""
        return max((record["wall_seconds"] for record in self.metric_records()), default=0.0)

    def metric_records(self) -> list[dict]:
        """Returns the entries of the metrics, in the order they were written."""
        records = []
        for line in self.metrics.read_text().splitlines() if self.metrics.exists() else ():
            try:
                records.append(json.loads(line))
            except ValueError:  # the process was killed in the middle of a line
                continue
        return records

    def last_checkpoint(self) -> pathlib.Path | None:
        """Returns the newest whole checkpoint of the stage that got furthest, or None."""
        return newest_whole(self.checkpoints("finetuning")) or newest_whole(self.checkpoints("cotraining"))
