"""Training of one stage within a run: goes on where it stopped, keeps checkpoints, rolls back from broken steps."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf
from absl import logging

from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import TrainingSplit
from robgan_tf.data.service import served_batches
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.signals import StopRequests
from robgan_tf.training.loop import Periodic, Stopped, TrainingLoop
from robgan_tf.training.monitoring import MetricsLog, NonFiniteLossError
from robgan_tf.training.profiling import Profiler
from robgan_tf.training.stage import Stage


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Upkeep:
    """How a run is looked after: it may change between two starts.

    Nothing of it has a part in what is learnt, but for steps that break: what a run goes back to then, and how often.

    Attributes:
        log_every: steps between two entries of the metrics.
        checkpoint_every: steps between two checkpoints.
        checkpoint_minutes: a checkpoint comes after so many minutes without one, too.
        keep_checkpoints: number of newest checkpoints of each stage that are kept.
        keep_every: checkpoints at multiples of so many steps are kept, too; 0 for none.
        max_rollbacks: how often a stage goes back to its last checkpoint after a step that is not finite, before it
            gives up.
        data_services: addresses of tf.data services that make the training batches, ("grpc://host:port", ...), see
            `tools/data_service.py`; none for this process.

    Raises:
        ValueError: for a number out of its range, or something that is no address.
    """

    log_every: int = 50
    checkpoint_every: int = 500
    checkpoint_minutes: float = 20.0
    keep_checkpoints: int = 2
    keep_every: int = 0
    max_rollbacks: int = 3
    data_services: Sequence[str] = ()

    def __post_init__(self):
        for name, least in (("log_every", 1), ("checkpoint_every", 1), ("keep_checkpoints", 1), ("keep_every", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"Upkeep.{name} must be a whole number >= {least}, got {value!r}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"Upkeep.checkpoint_minutes must be > 0, got {self.checkpoint_minutes}.")
        if self.max_rollbacks < 0:
            raise ValueError(f"Upkeep.max_rollbacks must be >= 0, got {self.max_rollbacks}.")
        services = self.data_services
        if isinstance(services, str) or not all(re.fullmatch(r"\w+://[^\s/]+:\d+", service) for service in services):
            raise ValueError(f'Upkeep.data_services must be like ("grpc://host:5000",), got {services!r}.')


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
        self.profile_steps = profile_steps
        self.checkpoints = Checkpoints(
            run_directory.checkpoints(stage.name_of_stage),
            stage.checkpoint_objects(),
            upkeep.keep_checkpoints,
            upkeep.keep_every,
            run_directory.workers,
        )
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
                    self._fit(split, seed, augment, noise, periodics)
                break
            except NonFiniteLossError as error:
                self._roll_back(error)
        # A request that came after the last step had looked for one.
        (status,) = self.run_directory.workers.highest(self.stops.requested())
        if status:
            raise Stopped(f"after the last step of {stage.name_of_stage}", int(status))

    def _fit(self, split, seed, augment, noise, periodics):
        stage, upkeep = self.stage, self.upkeep
        first_step, skipped = stage.steps_done, self._notes.get("skipped", 0)
        self.run_directory.forget_metrics_after(stage.name_of_stage, first_step)

        def part_of_batches(workers, worker):
            return training_batches(
                split,
                stage.images_per_step,
                first_step=first_step + skipped,
                steps=stage.total_steps + skipped,
                seed=seed,
                augment=augment,
                noise=noise,
                workers=workers,
                worker=worker,
            )

        def of_this_worker(context):
            workers, worker = context.num_input_pipelines, context.input_pipeline_id
            batches = served_batches(part_of_batches, upkeep.data_services, workers, worker)
            replicas = context.num_replicas_in_sync
            if replicas > workers:
                batches = batches.rebatch(stage.images_per_step // replicas, drop_remainder=True)
            # Without an end, replicas need not ask one another before each step whether all have a batch, and the
            # shapes stay known. `fit` is told how many steps there are.
            return batches.repeat()

        batches = tf.distribute.get_strategy().distribute_datasets_from_function(of_this_worker)
        with (
            MetricsLog(stage, self.run_directory, upkeep.log_every, self._notes.get("metrics")) as log,
            self._profiler() as profiler,
        ):
            loop = TrainingLoop(
                stage,
                log,
                self.checkpoints,
                periodics,
                upkeep.checkpoint_every,
                upkeep.checkpoint_minutes,
                self.stops.requested,
                lambda: {**self._notes, "metrics": log.state},
            )
            callbacks = [loop] if profiler is None else [profiler, loop]
            stage.fit(batches, epochs=1, steps_per_epoch=stage.total_steps - first_step, verbose=0, callbacks=callbacks)

    def _profiler(self):
        if self.profile_steps is None or not self.run_directory.workers.is_chief:
            return contextlib.nullcontext()
        return Profiler(self.stage, self.run_directory.tensorboard / self.stage.name_of_stage, *self.profile_steps)

    def _roll_back(self, error: NonFiniteLossError):
        """Goes back to the last checkpoint, with the data moved on behind the broken step; or gives up."""
        rollbacks = self._notes.get("rollbacks", 0) + 1
        skipped = self._notes.get("skipped", 0)
        if rollbacks > self.upkeep.max_rollbacks:
            raise NonFiniteLossError(
                f"{error} It went back to the last checkpoint {self.upkeep.max_rollbacks} times already. "
                f"{self.stage.diagnosis()} Lower the learning rate or check the data; under mixed_float16 try "
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
