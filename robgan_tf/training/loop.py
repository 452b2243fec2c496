"""What happens around the steps of a training stage, in one place and in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable

from robgan_tf.keras2 import keras
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.training.monitoring import MetricsLog


class Stopped(Exception):
    """The run was asked to stop, and did so with a checkpoint of its last step.

    Attributes:
        exit_status: what the process shall exit with.
    """

    def __init__(self, message: str, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


class Periodic:
    """Something to do every so many steps, and after the last one.

    Args:
        every: steps between two calls.
        function: is called with the number of steps done; returns scalars for the metrics, or None.
    """

    def __init__(self, every: int, function: Callable[[int], dict | None]):
        self.every = every
        self.function = function


class TrainingLoop(keras.callbacks.Callback):
    """Watches a stage that `fit` trains: metrics, periodic work, checkpoints, stop requests.

    The order within a step matters. A loss that is not finite ends it before anything is written. Metrics of a step are
    one line, written before its checkpoint: a kill between the two leaves a line too many, which the next start
    removes, and never one too few.

    Args:
        stage: the stage that is trained.
        log: its metrics.
        checkpoints: its checkpoints.
        periodics: what else is to be done.
        checkpoint_every: steps between two checkpoints.
        checkpoint_minutes: a checkpoint comes after so many minutes without one, too.
        stop_requested: tells whether the run shall stop at the end of the current step: returns the status to exit with
            then, else 0.
        notes: returns what checkpoints keep beside the stage's own values.
    """

    def __init__(
        self,
        stage,
        log: MetricsLog,
        checkpoints: Checkpoints,
        periodics: Sequence[Periodic],
        checkpoint_every: int,
        checkpoint_minutes: float,
        stop_requested: Callable[[], int],
        notes: Callable[[], dict],
    ):
        super().__init__()
        self.stage = stage
        self.log = log
        self.checkpoints = checkpoints
        self.periodics = periodics
        self.checkpoint_every = checkpoint_every
        self.checkpoint_minutes = checkpoint_minutes
        self.stop_requested = stop_requested
        self.notes = notes

    def on_train_begin(self, logs=None):
        """Starts to count at the stage's step."""
        self._first = self._done = self.stage.steps_done
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Does what is due after the step."""
        # With several steps an execution, Keras calls after the last of them alone.
        before, self._done = self._done, self._first + batch + 1
        last = self._done >= self.stage.total_steps

        def due(every):
            return last or self._done // every > before // every

        # 1. The metrics; raises at a loss that is not finite.
        self.log.add(self._done, self._done - before, logs)
        # 2. Validation, image grids.
        began = time.monotonic()
        scalars = {}
        for periodic in self.periodics:
            if due(periodic.every):
                scalars.update(periodic.function(self._done) or {})
        self.log.spend(time.monotonic() - began)
        # 3. One line for both.
        if scalars or due(self.log.every):
            self.log.write(scalars)
        # 4. A checkpoint of all of that.
        overdue = time.monotonic() - self._saved_at > 60 * self.checkpoint_minutes
        # Workers that train together do so at the same step, whichever of them was asked to or has the slower clock.
        stop, overdue = self.checkpoints.workers.highest(self.stop_requested(), overdue)
        if stop or overdue or due(self.checkpoint_every):
            began = time.monotonic()
            self.log.flush()
            self.checkpoints.save(self._done, self.notes())
            self._saved_at = time.monotonic()
            self.log.spend(self._saved_at - began)
        if stop:
            raise Stopped(f"after step {self._done} of {self.stage.name_of_stage}", int(stop))
