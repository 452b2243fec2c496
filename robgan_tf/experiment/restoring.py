"""The networks of a run as its checkpoints hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robgan_tf.experiment.known_data import check_data
from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.signals import StopRequests
from robgan_tf.training.loop import StageTraining

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment
    from robgan_tf.training.stage import Stage


class NotTrainedError(ValueError):
    """A stage was asked for that needs an earlier one, which is not finished."""


def restore_generator(experiment: Experiment, run_directory: RunDirectory) -> keras.Model:
    """Loads the newest co-training checkpoint and returns the averaged generator, ready to be sampled from.

    Raises:
        NotTrainedError: where there is none.
        DataChangedError: where the data are not those of the run.
    """
    check_data(experiment, run_directory)
    stage = experiment.cotraining
    if stage is None:
        raise NotTrainedError("This configuration has no generator (Experiment.cotraining is None).")
    with experiment.strategy.scope():
        if not training_of(experiment, stage, run_directory).restore():
            raise NotTrainedError(f"{run_directory.path} holds no checkpoint of co-training yet.")
        stage.standardize_average_generator()
    return stage.average_generator


def restore_classifier(experiment: Experiment, run_directory: RunDirectory) -> Classifier:
    """Loads the classifier that the last finished stage made: the best of fine-tuning, else the discriminator's.

    Raises:
        NotTrainedError: where training is not finished.
        DataChangedError: where the data are not those of the run.
    """
    check_data(experiment, run_directory)
    last = experiment.training_stages[-1]
    with experiment.strategy.scope():
        # 1. The last stage, which tells whether it is finished.
        training_of(experiment, last, run_directory).restore()
        if last.steps_done < last.total_steps:
            raise NotTrainedError(
                f"{last.name_of_stage} in {run_directory.path} is at step {last.steps_done} of {last.total_steps}: "
                f"finish the training first (python -m robgan_tf.train)."
            )
        # 2. Over it, the classifier that did best in validation.
        if last is experiment.finetuning:
            best_checkpoints(experiment, run_directory).restore()
        return experiment.result


def training_of(experiment: Experiment, stage: Stage, run_directory: RunDirectory) -> StageTraining:
    """The training of a stage that is restored alone."""
    return StageTraining(stage, run_directory, experiment.upkeep, StopRequests())


def best_checkpoints(experiment: Experiment, run_directory: RunDirectory) -> Checkpoints:
    """The checkpoint of the best validation of fine-tuning, and the second best in case that it gets damaged."""
    folder, objects = run_directory.checkpoints("finetuning_best"), {"classifier": experiment.finetuning.result}
    return Checkpoints(folder, objects, workers=experiment.workers)
