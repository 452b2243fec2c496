"""The training of a stage within a run, from the first step to the last.

`StageTraining` goes on where the run stopped, and back to the last checkpoint after a broken step. `TrainingLoop` takes
the steps; what happens after each of them stands in one method, in order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

import tensorflow as tf
from absl import logging

from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import TrainingSplit
from robgan_tf.data.service import served_batches
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.signals import StopRequests
from robgan_tf.training.diagnosis import diagnosis
from robgan_tf.training.monitoring import MetricsLog, NonFiniteLossError, Profiler
from robgan_tf.training.upkeep import Upkeep

if TYPE_CHECKING:
    from robgan_tf.training.stage import Stage


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


class TrainingLoop:
    """Trains a stage step by step: metrics, periodic work, checkpoints, stop requests.

    The order after a step matters. A loss that is not finite ends the loop before anything is written. Metrics of a
    step are one line, written before its checkpoint: a kill between the two leaves a line too many, which the next
    start removes, and never one too few.

    Args:
        stage: the stage that is trained.
        log: its metrics.
        checkpoints: its checkpoints.
        periodics: what else is to be done.
        upkeep: when checkpoints are written.
        stop_requested: tells whether the run shall stop at the end of the current step: returns the status to exit with
            then, else 0.
        notes: returns what checkpoints keep beside the stage's own values.
    """

    def __init__(
        self,
        stage: Stage,
        log: MetricsLog,
        checkpoints: Checkpoints,
        periodics: Sequence[Periodic],
        upkeep: Upkeep,
        stop_requested: Callable[[], int],
        notes: Callable[[], dict],
    ):
        self.stage = stage
        self.log = log
        self.checkpoints = checkpoints
        self.periodics = periodics
        self.upkeep = upkeep
        self.stop_requested = stop_requested
        self.notes = notes
        self._saved_at = time.monotonic()

    def run(self, batches, profiler: Profiler):
        """Takes the stage's steps from where it is to its last one, each on the next of `batches`."""
        iterator, take_step = iter(batches), self.stage.step_function()
        for step in range(self.stage.steps_done + 1, self.stage.total_steps + 1):
            with profiler.step(step):
                metrics = take_step(iterator)
            self.after_step(step, metrics)

    def after_step(self, step: int, metrics: dict):
        """Does what is due after `step` steps, the last of which had these metrics."""

        def due(every):
            return step % every == 0 or step >= self.stage.total_steps

        # 1. The metrics; raises at a loss that is not finite.
        self.log.add(step, metrics)
        # 2. Validation, image grids.
        began = time.monotonic()
        scalars = {}
        for periodic in self.periodics:
            if due(periodic.every):
                scalars.update(periodic.function(step) or {})
        self.log.spend(time.monotonic() - began)
        # 3. One line for both.
        if scalars or due(self.log.every):
            self.log.write(scalars)
        # 4. A checkpoint of all of that.
        overdue = time.monotonic() - self._saved_at > 60 * self.upkeep.checkpoint_minutes
        # Workers that train together do so at the same step, whichever of them was asked to or has the slower clock.
        stop, overdue = self.checkpoints.workers.highest(self.stop_requested(), overdue)
        if stop or overdue or due(self.upkeep.checkpoint_every):
            began = time.monotonic()
            self.log.flush()
            self.checkpoints.save(step, self.notes())
            self._saved_at = time.monotonic()
            self.log.spend(self._saved_at - began)
        if stop:
            raise Stopped(f"after step {step} of {self.stage.name_of_stage}", int(stop))


class StageTraining:
    """The training of one stage in a run directory.

    Args:
        stage: what is trained.
        run_directory: where its checkpoints and metrics are.
        upkeep: intervals and limits.
        stops: tells whether the run shall stop at the end of the current step.
        profile_steps: the first and the last step to profile; None for none.
    """

    def __init__(
        self,
        stage: Stage,
        run_directory: RunDirectory,
        upkeep: Upkeep,
        stops: StopRequests,
        profile_steps: tuple[int, int] | None = None,
    ):
        self.stage = stage
        self.run_directory = run_directory
        self.upkeep = upkeep
        self.stops = stops
        self.profile_steps = profile_steps if run_directory.workers.is_chief else None
        self.checkpoints = Checkpoints(
            run_directory.checkpoints(stage.name_of_stage),
            stage.checkpoint_objects(),
            upkeep.keep_checkpoints,
            upkeep.keep_every,
            run_directory.workers,
        )
        # What checkpoints keep beside the stage: "rollbacks", "skipped" steps of data, and the state of the "metrics".
        self._notes = {}

    def restore(self) -> bool:
        """Loads the newest whole checkpoint, optimizers and all; returns whether there is one."""
        notes = self.checkpoints.restore()
        self._notes = notes or {}
        return notes is not None

    def run(
        self,
        split: TrainingSplit,
        seed: int,
        augment: Sequence[Callable],
        noise: float,
        periodics: Sequence[Periodic],
    ):
        """Trains the stage from where it is to its end.

        After a step that is not finite it goes back to the last checkpoint, and on with images that come after those
        of the broken step.

        Args:
            split: the training images.
            seed: of their order, augmentation and noise.
            augment: augmentations, see `training_batches`.
            noise: width of the uniform noise, see `training_batches`.
            periodics: what is to be done now and then.

        Raises:
            NonFiniteLossError: after too many broken steps, with a diagnosis.
            Stopped: where it was asked to stop.
        """
        stage = self.stage
        if stage.steps_done >= stage.total_steps:
            print(f"{stage.name_of_stage}: done ({stage.steps_done} steps)")
            return
        # Without any, there would be nothing to roll back to; and a resumed start has one anyway.
        if not self.checkpoints.steps:
            self.checkpoints.save(stage.steps_done, {})
        while True:
            try:
                with self.stops.active():
                    self._train(self._batches(split, seed, augment, noise), periodics)
                break
            except NonFiniteLossError as error:
                self._roll_back(error)
        # A request that came after the last step had looked for one.
        (status,) = self.run_directory.workers.highest(self.stops.requested())
        if status:
            raise Stopped(f"after the last step of {stage.name_of_stage}", int(status))

    def _train(self, batches, periodics: Sequence[Periodic]):
        stage, upkeep = self.stage, self.upkeep
        folder = self.run_directory.tensorboard / stage.name_of_stage
        self.run_directory.forget_metrics_after(stage.name_of_stage, stage.steps_done)
        with (
            MetricsLog(stage, self.run_directory, upkeep.log_every, self._notes.get("metrics")) as log,
            Profiler(stage.name_of_stage, folder, self.profile_steps) as profiler,
        ):

            def notes():
                return {**self._notes, "metrics": log.state}

            loop = TrainingLoop(stage, log, self.checkpoints, periodics, upkeep, self.stops.requested, notes)
            loop.run(batches, profiler)

    def _batches(self, split, seed, augment, noise):
        """The batches from the stage's next step on, each replica's part on its device."""
        stage, skipped = self.stage, self._notes.get("skipped", 0)
        first_step = stage.steps_done + skipped

        def part_of_batches(workers, worker):
            return training_batches(
                split,
                stage.images_per_step,
                first_step=first_step,
                steps=stage.total_steps + skipped,
                seed=seed,
                augment=augment,
                noise=noise,
                workers=workers,
                worker=worker,
            )

        def of_this_worker(context):
            workers, worker = context.num_input_pipelines, context.input_pipeline_id
            batches = served_batches(part_of_batches, self.upkeep.data_services, workers, worker)
            replicas = context.num_replicas_in_sync
            if replicas > workers:
                batches = batches.rebatch(stage.images_per_step // replicas, drop_remainder=True)
            # Without an end, replicas need not ask one another before each step whether all have a batch, and the
            # shapes stay known. The loop knows how many steps there are.
            return batches.repeat()

        return tf.distribute.get_strategy().distribute_datasets_from_function(of_this_worker)

    def _roll_back(self, error: NonFiniteLossError):
        """Goes back to the last checkpoint, with the data moved on behind the broken step; or gives up."""
        rollbacks = self._notes.get("rollbacks", 0) + 1
        skipped = self._notes.get("skipped", 0)
        if rollbacks > self.upkeep.max_rollbacks:
            raise NonFiniteLossError(
                f"{error} It went back to the last checkpoint {self.upkeep.max_rollbacks} times already. "
                f"{diagnosis(self.stage)} Lower the learning rate or check the data; under mixed_float16 try "
                f"mixed_bfloat16.",
                error.step,
            ) from error
        self.restore()
        # Images up to the broken step's are behind us: steps_done + skipped is the place in the stream of batches.
        self._notes = {**self._notes, "rollbacks": rollbacks, "skipped": error.step + skipped - self.stage.steps_done}
        logging.warning(
            "%s Back to step %d, with other images (%d of at most %d times).",
            error,
            self.stage.steps_done,
            rollbacks,
            self.upkeep.max_rollbacks,
        )
