"""What is kept of a training stage for those who watch it: progress, metrics.jsonl, TensorBoard, profiles."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import time
from typing import TYPE_CHECKING

import tensorflow as tf
from absl import logging

from robgan_tf.data.files import write_json
from robgan_tf.run.machine import memory_in_use
from robgan_tf.run.metrics import FILE, SHARE, Metric, declarations, declare, read_declarations
from robgan_tf.run.progress import Progress
from robgan_tf.run.tensorboard import tidy_events, write_scalars

if TYPE_CHECKING:
    from robgan_tf.run.directory import RunDirectory

_MACHINE = (
    Metric(
        "images_per_second",
        "real images",
        "Images per second",
        unit="images/s",
        description="Real images per second of training; validation, image grids and checkpoints are left out.",
    ),
    Metric(
        "attack_share",
        "attack, of a training step",
        "Shares of the time",
        unit=SHARE,
        description="Share of a training step's time that the attack takes.",
    ),
    Metric(
        "upkeep_share",
        "validation, image grids and checkpoints",
        "Shares of the time",
        unit=SHARE,
        description="Share of the time that validation, image grids and checkpoints take.",
    ),
    Metric("memory_mib", "process", "Memory", unit="MiB", description="Resident memory of the process."),
    Metric("gpu_memory_mib", "GPU, peak", "Memory", unit="MiB", description="Peak memory of the first GPU."),
)
declare(
    *_MACHINE,
    Metric(
        "discriminator_largest_sigma",
        "largest sigma",
        "Largest sigma of a layer",
        group="discriminator",
        description="Largest singular value among the spectrally normalised kernels, before normalisation.",
        healthy="It levels off. If it grows to the end, lower the learning rate.",
    ),
)
# Of an entry: what depends on the machine and its load. All else is the same however often a run was interrupted.
NOT_REPEATABLE = ("wall_seconds", *(metric.name for metric in _MACHINE))


class NonFiniteLossError(RuntimeError):
    """A metric became infinite or not a number.

    Attributes:
        step: the step that it happened in.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def finite_values(stage, step: int, metrics: dict) -> dict[str, float]:
    """Returns the metrics, scalars, of a stage after `step` steps as numbers.

    Raises:
        NonFiniteLossError: where one of them is not finite.
    """
    values = {name: float(value) for name, value in metrics.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise NonFiniteLossError(
            f"{', '.join(broken)} became {', '.join(str(values[name]) for name in broken)} at step {step} of "
            f"{stage.name_of_stage}.",
            step,
        )
    return values


class MetricsLog:
    """Takes in the metrics of each step and writes their means now and then; a context that opens and closes its files.

    Within the context TensorBoard's file of the stage is the default of `tf.summary`: periodic work may write images.

    Args:
        stage: the stage that is trained.
        run_directory: where to write.
        every: steps between two entries; an entry holds the means since the one before.
        state: what `state` was when the checkpoint was written that the stage continues from.
    """

    def __init__(self, stage, run_directory: RunDirectory, every: int, state: dict | None = None):
        self.stage = stage
        self.run_directory = run_directory
        self.every = every
        self._writes = run_directory.workers.is_chief
        self._step = stage.steps_done
        self._signs = []
        self._known = set()  # metrics that this start has declared
        state = state or {"sums": {}, "steps": 0, "seconds": 0.0}
        self._sums, self._steps = dict(state["sums"]), state["steps"]
        self._upkeep = state.get("upkeep", 0.0)
        self._since = time.monotonic() - state["seconds"]

    @property
    def state(self) -> dict:
        """What has been taken in since the last entry: a run that continues from here writes the same next one."""
        seconds = time.monotonic() - self._since
        return {"sums": dict(self._sums), "steps": self._steps, "seconds": seconds, "upkeep": self._upkeep}

    def __enter__(self) -> MetricsLog:
        # Over all parts of a run that was interrupted.
        self._start = time.monotonic() - self.run_directory.last_wall_seconds()
        with contextlib.ExitStack() as opened:
            if self._writes:
                self.run_directory.path.mkdir(parents=True, exist_ok=True)
                self._file = opened.enter_context(open(self.run_directory.metrics, "a"))
                folder = self.run_directory.tensorboard / self.stage.name_of_stage
                opened.callback(tidy_events, folder)
                self._writer = tf.summary.create_file_writer(str(folder))
            else:
                self._file, self._writer = opened.enter_context(open(os.devnull, "a")), tf.summary.create_noop_writer()
            opened.callback(self._writer.close)
            opened.enter_context(self._writer.as_default())
            self._progress = Progress(self.stage, silent=not self._writes)
            opened.callback(self._progress.close)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error):
        self._opened.close()

    def add(self, step: int, metrics: dict):
        """Takes in the metrics of a step.

        Args:
            step: number of steps done.
            metrics: scalars of the last of them.

        Raises:
            NonFiniteLossError: where one of them is not finite.
        """
        values = finite_values(self.stage, step, metrics)
        self._step = step
        self._steps += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._progress.advance(step)

    def spend(self, seconds: float):
        """Says that so much of the time since the last entry was no training: validation, image grids, checkpoints."""
        self._upkeep += seconds

    def flush(self):
        """Brings TensorBoard's file to the disk, as the metrics are after each; to be called before a checkpoint."""
        self._writer.flush()

    def write(self, scalars: dict):
        """Writes an entry: the means since the one before, and `scalars`, e.g. of a validation.

        Of `scalars`, `attack_seconds`, the seconds that the attacks of a step take, becomes their share of its time.
        """
        scalars = dict(scalars)
        means = {name: value / self._steps for name, value in self._sums.items()}
        now = time.monotonic()
        seconds = now - self._since
        training = max(seconds - self._upkeep, 1e-9)
        timings = {"images_per_second": self._steps * self.stage.images_per_step / training}
        if "attack_seconds" in scalars:
            timings["attack_share"] = min(scalars.pop("attack_seconds") * self._steps / training, 1.0)
        timings["upkeep_share"] = self._upkeep / max(seconds, 1e-9)
        sigmas = self.stage.layer_sigmas()
        gauges = {**self.stage.learning_rates(), **memory_in_use()}
        if sigmas:
            gauges["discriminator_largest_sigma"] = max(sigmas.values())
        self._sums, self._steps, self._since, self._upkeep = {}, 0, now, 0.0
        metrics = {**means, **scalars, **gauges, **timings}
        record = {
            "stage": self.stage.name_of_stage,
            "step": self._step,
            "images_seen": self._step * self.stage.images_per_step,
            "wall_seconds": round(now - self._start, 3),
            **metrics,
        }
        self._declare(metrics)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        write_scalars(metrics, sigmas, self._step)
        self._progress.show(metrics)
        signs = self.stage.signs_of_collapse(record)
        for sign in signs:
            if self._writes and sign not in self._signs:  # once, until it goes away
                with self._progress.interrupted():
                    logging.warning("step %d of %s: %s.", self._step, self.stage.name_of_stage, sign)
        self._signs = signs

    def _declare(self, names):
        """Keeps what the metrics mean in the run's folder, where they are new there."""
        if not self._writes or self._known.issuperset(names):
            return
        folder = self.run_directory.path
        write_json(folder / FILE, declarations(names, read_declarations(folder)))
        self._known.update(names)


class Profiler:
    """Profiles some steps for TensorBoard's tab Profile; a context that ends the profile where training breaks off.

    Args:
        name_of_stage: the stage that is trained, for a message.
        folder: where the profile goes: the stage's TensorBoard folder.
        steps: the first and the last step to profile, counted from 1; None for none. Not the first of a process, which
            traces and compiles.
    """

    def __init__(self, name_of_stage: str, folder: pathlib.Path, steps: tuple[int, int] | None):
        self.name_of_stage = name_of_stage
        self.folder = folder
        self.first, self.last = steps or (0, 0)
        self._running = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *error):
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int):
        """Within it the step `number` is taken."""
        # Where the run goes on in the middle of the steps to profile, the profile begins there.
        if not self._running and self.first <= number <= self.last:
            tf.profiler.experimental.start(str(self.folder))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number >= self.last:
            self._stop()

    def _stop(self):
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
            print(f"profile of {self.name_of_stage}: {self.folder}/plugins/profile", flush=True)
