"""What watches a training stage: Keras callbacks for metrics, checkpoints, validation and image grids."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Callable

import numpy as np
import tensorflow as tf
import tqdm
from tensorflow import keras

from robgan_tf.runtime.run_directory import RunDirectory


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or not a number."""


class MetricsLog(keras.callbacks.Callback):
    """Progress bar, `metrics.jsonl` and TensorBoard scalars; stops the run at a loss that is not finite.

    Args:
        stage: the stage that is trained.
        run_directory: where to write.
        every: steps between two entries; an entry holds the means since the one before.
    """

    def __init__(self, stage, run_directory: RunDirectory, every: int):
        super().__init__()
        self.stage = stage
        self.run_directory = run_directory
        self.every = every

    def on_train_begin(self, logs=None):
        """Opens the files."""
        self._step = self.stage.steps_done
        self._entries = []
        # Over all parts of a run that was interrupted.
        self._start = time.monotonic() - self.run_directory.last_wall_seconds()
        self._since = time.monotonic()
        self.run_directory.path.mkdir(parents=True, exist_ok=True)
        self._file = open(self.run_directory.metrics, "a")
        self._writer = tf.summary.create_file_writer(str(self.run_directory.tensorboard / self.stage.name_of_stage))
        self._bar = tqdm.tqdm(
            total=self.stage.total_steps,
            initial=self._step,
            desc=self.stage.name_of_stage,
            unit="step",
            # A line now and then where nobody watches, instead of a bar.
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def record(self, scalars: dict):
        """Adds scalars, e.g. of a validation, to the entry of the current step, written at once."""
        self._write(scalars)

    def on_train_batch_end(self, batch, logs=None):
        """Takes in the metrics of one step."""
        self._step += 1
        values = {name: float(value) for name, value in logs.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise NonFiniteLossError(
                f"{', '.join(broken)} became {', '.join(str(values[name]) for name in broken)} at step {self._step} of "
                f"{self.stage.name_of_stage}. Lower the learning rate or check the data; under mixed_float16 try "
                f"mixed_bfloat16."
            )
        self._entries.append(values)
        self._bar.update()
        if self._step % self.every == 0 or self._step == self.stage.total_steps:
            means = {name: float(np.mean([entry[name] for entry in self._entries])) for name in values}
            steps, self._entries = len(self._entries), []
            now = time.monotonic()
            means["images_per_second"] = steps * self.stage.images_per_step / (now - self._since)
            self._since = now
            shown = {name: f"{value:.3g}" for name, value in means.items() if name != "images_per_second"}
            self._bar.set_postfix(shown, refresh=False)
            self._write(means)

    def close(self):
        """Closes the files; to be called at the end of training, also after a fault."""
        self._bar.close()
        self._file.close()
        self._writer.close()

    def _write(self, scalars: dict):
        record = {
            "stage": self.stage.name_of_stage,
            "step": self._step,
            "images_seen": self._step * self.stage.images_per_step,
            "wall_seconds": round(time.monotonic() - self._start, 3),
            **scalars,
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        with self._writer.as_default(step=self._step):
            for name, value in scalars.items():
                tf.summary.scalar(f"{self.stage.name_of_stage}/{name}", value)


class Periodic(keras.callbacks.Callback):
    """Calls a function every so many steps of a stage, and at its last step.

    Args:
        stage: the stage that is trained.
        every: steps between two calls.
        function: is called with the number of steps done.
    """

    def __init__(self, stage, every: int, function: Callable[[int], None]):
        super().__init__()
        self.stage = stage
        self.every = every
        self.function = function

    def on_train_begin(self, logs=None):
        """Starts to count at the stage's step."""
        self._step = self.stage.steps_done

    def on_train_batch_end(self, batch, logs=None):
        """Calls the function where it is due."""
        self._step += 1
        if self._step % self.every == 0 or self._step == self.stage.total_steps:
            self.function(self._step)
