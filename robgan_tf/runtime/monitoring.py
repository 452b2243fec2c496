"""The metrics of a training stage: progress bar, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
import time

import tensorflow as tf
import tqdm
from absl import logging

from robgan_tf.runtime.run_directory import RunDirectory


class NonFiniteLossError(RuntimeError):
    """A metric became infinite or not a number.

    Attributes:
        step: the step that it happened in.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class MetricsLog:
    """Takes in the metrics of each step and writes their means now and then; a context that opens and closes its files.

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
        state = state or {"sums": {}, "steps": 0, "seconds": 0.0}
        self._sums, self._steps = dict(state["sums"]), state["steps"]
        self._since = time.monotonic() - state["seconds"]

    @property
    def state(self) -> dict:
        """What has been taken in since the last entry: a run that continues from here writes the same next one."""
        return {"sums": dict(self._sums), "steps": self._steps, "seconds": time.monotonic() - self._since}

    def __enter__(self) -> MetricsLog:
        # Over all parts of a run that was interrupted.
        self._start = time.monotonic() - self.run_directory.last_wall_seconds()
        if self._writes:
            self.run_directory.path.mkdir(parents=True, exist_ok=True)
            self._file = open(self.run_directory.metrics, "a")
            self._writer = tf.summary.create_file_writer(str(self.run_directory.tensorboard / self.stage.name_of_stage))
        else:
            self._file, self._writer = open(os.devnull, "a"), tf.summary.create_noop_writer()
        self._bar = tqdm.tqdm(
            total=self.stage.total_steps,
            initial=self._step,
            desc=self.stage.name_of_stage,
            unit="step",
            # A line now and then where nobody watches, instead of a bar.
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
            disable=not self._writes,
        )
        return self

    def __exit__(self, *error):
        self._bar.close()
        self._file.close()
        self._writer.close()

    def add(self, step: int, steps: int, metrics: dict):
        """Takes in the metrics of a step.

        Args:
            step: number of steps done.
            steps: steps done since the last call.
            metrics: scalars of the last of them.

        Raises:
            NonFiniteLossError: where one of them is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise NonFiniteLossError(
                f"{', '.join(broken)} became {', '.join(str(values[name]) for name in broken)} at step {step} of "
                f"{self.stage.name_of_stage}.",
                step,
            )
        self._step = step
        self._steps += steps
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + steps * value
        self._bar.update(steps)

    def write(self, scalars: dict):
        """Writes an entry: the means since the one before, and `scalars`, e.g. of a validation."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        shown = {name: f"{value:.3g}" for name, value in {**means, **scalars}.items()}
        self._bar.set_postfix(shown, refresh=False)
        now = time.monotonic()
        means["images_per_second"] = self._steps * self.stage.images_per_step / (now - self._since)
        self._sums, self._steps, self._since = {}, 0, now
        record = {
            "stage": self.stage.name_of_stage,
            "step": self._step,
            "images_seen": self._step * self.stage.images_per_step,
            "wall_seconds": round(now - self._start, 3),
            **means,
            **scalars,
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        with self._writer.as_default(step=self._step):
            for name, value in {**means, **scalars}.items():
                tf.summary.scalar(f"{self.stage.name_of_stage}/{name}", value)
        signs = self.stage.signs_of_collapse(record)
        for sign in signs:
            if self._writes and sign not in self._signs:  # once, until it goes away
                logging.warning("step %d of %s: %s.", self._step, self.stage.name_of_stage, sign)
        self._signs = signs
