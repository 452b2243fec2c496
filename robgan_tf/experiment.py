"""The root of the configuration: builds data, players and stages from gin, and runs the stages in order."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf
from tensorflow import keras

from robgan_tf.data.batches import training_batches
from robgan_tf.evaluation.robustness import Withstands
from robgan_tf.players.classifiers import ClassBranch, Classifier
from robgan_tf.runtime import devices
from robgan_tf.runtime.monitoring import MetricsLog, Periodic
from robgan_tf.runtime.run_directory import RunDirectory, write_json
from robgan_tf.serving.saved_model import export_classifier
from robgan_tf.stages.finetuning import FineTuning
from robgan_tf.stages.samples import SampleGrids
from robgan_tf.stages.stage import Stage

# Parts that only configurations name have to be imported all the same, so that gin knows them.
for part in (
    "data.image_folder",
    "data.records",
    "data.tfds_images",
    "players.attacker",
    "players.discriminator",
    "players.generator",
    "stages.cotraining",
):
    importlib.import_module(f"robgan_tf.{part}")

# The stages by the names that commands use.
STAGES = ("cotrain", "finetune", "evaluate", "export")
# A seed for each use, so that no two of them draw the same numbers.
_DATA, _COTRAINING, _FINETUNING, _VALIDATION, _SAMPLES = range(5)


class NotTrainedError(ValueError):
    """A stage was asked for that needs an earlier one, which is not finished."""


@gin.configurable
class Experiment:
    """A whole run: data, players, stages, evaluation, export.

    All parts are given as gin references to what makes them (`@Generator`), and are made here, so that anything wrong
    with them is found before a file is written or a step is done.

    Args:
        data: makes the data set: `@digits`, `@tfds_images` or `@image_folder`.
        discriminator: makes the discriminator, whose class branch is the classifier.
        generator: makes the generator; None for adversarial training.
        cotraining: makes the first stage; None to start with fine-tuning.
        finetuning: makes the second stage; None for none.
        evaluation: makes the evaluation of the classifier.
        validation_attacker: attack that chooses the best checkpoint of fine-tuning, on the validation part of the
            training split; None to choose by accuracy on clean images.
        augment: augmentations of training images, see `data/preprocessing.py`.
        cotraining_noise: width of the uniform noise that is added to training images in co-training, on [-1, 1].
        seed: seed of everything random.
        log_every: steps between two entries of the metrics.
        checkpoint_every: steps between two checkpoints.
        validate_every: steps of fine-tuning between two validations.
        sample_every: steps of co-training between two image grids.

    Raises:
        ValueError: for parts that contradict each other.
    """

    def __init__(
        self,
        data: Callable = gin.REQUIRED,
        discriminator: Callable = gin.REQUIRED,
        generator: Callable | None = None,
        cotraining: Callable | None = None,
        finetuning: Callable | None = None,
        evaluation: Callable = gin.REQUIRED,
        validation_attacker: Callable | None = None,
        augment: Sequence[Callable] = (),
        cotraining_noise: float = 1 / 128,
        seed: int = 0,
        log_every: int = 50,
        checkpoint_every: int = 500,
        validate_every: int = 200,
        sample_every: int = 500,
    ):
        if cotraining is not None and generator is None:
            raise ValueError(
                "Experiment.cotraining needs Experiment.generator; without a generator train by fine-tuning alone."
            )
        if cotraining is None and finetuning is None:
            raise ValueError("Nothing to train: set Experiment.cotraining, Experiment.finetuning or both.")
        if cotraining is None and generator is not None:
            raise ValueError(
                "Experiment.generator would stay untrained: set Experiment.cotraining too, or generator to None."
            )
        self.seed = seed
        self.augment = augment
        self.cotraining_noise = cotraining_noise
        self.log_every = log_every
        self.checkpoint_every = checkpoint_every
        self.validate_every = validate_every
        self.sample_every = sample_every
        self.strategy = devices.configure(seed=seed)
        self.evaluation = evaluation()
        self.validation_attacker = validation_attacker and validation_attacker()
        self.data = data()
        if finetuning is not None and not len(self.data.validation):
            raise ValueError(
                "Fine-tuning chooses its best checkpoint on the validation part of the training split, which is empty: "
                "set the data's validation_examples above 0."
            )
        with self.strategy.scope():
            shape, classes = self.data.image_shape, self.data.num_classes
            self.discriminator = discriminator(classes, shape)
            self.classifier = ClassBranch(self.discriminator)
            self._new_classifier = lambda: ClassBranch(discriminator(classes, shape))
            self.cotraining = None
            if cotraining is not None:
                self.cotraining = cotraining(
                    generator(classes, shape),
                    generator(classes, shape, name="average_generator"),
                    self.discriminator,
                    len(self.data.train),
                    self._seed(_COTRAINING),
                )
            self.finetuning = None
            if finetuning is not None:
                self.finetuning = finetuning(
                    self.classifier,
                    self._new_classifier,
                    self.cotraining and self.cotraining.average_generator,
                    len(self.data.train),
                    self._seed(_FINETUNING),
                )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that this configuration has, in order."""
        missing = {"cotrain": self.cotraining is None, "finetune": self.finetuning is None}
        return tuple(stage for stage in STAGES if not missing.get(stage))

    def run(self, run_directory: RunDirectory, stages: Sequence[str]):
        """Runs `stages` in order; what is done already is not done again.

        Args:
            run_directory: the run's folder, claimed for this configuration.
            stages: names out of `self.stages`.

        Raises:
            NotTrainedError: where a stage needs an earlier one that is neither done nor asked for.
        """
        if "cotrain" in stages:
            self._cotrain(run_directory)
        if "finetune" in stages:
            self._finetune(run_directory)
        if "evaluate" in stages and not run_directory.robustness.exists():
            write_json(run_directory.robustness, self.evaluate(run_directory))
        if "export" in stages and not any(run_directory.exports.glob("[0-9]*")):
            self.export(run_directory)

    def restore_generator(self, run_directory: RunDirectory) -> keras.Model:
        """Loads the newest co-training checkpoint and returns the averaged generator, ready to be sampled from.

        Raises:
            NotTrainedError: where there is none.
        """
        if self.cotraining is None:
            raise NotTrainedError("This configuration has no generator (Experiment.cotraining is None).")
        with self.strategy.scope():
            if not _restore(self.cotraining, run_directory):
                raise NotTrainedError(f"{run_directory.path} holds no checkpoint of co-training yet.")
            self.cotraining.standardize_average_generator()
        return self.cotraining.average_generator

    def restore_classifier(self, run_directory: RunDirectory) -> Classifier:
        """Loads the classifier that the last finished stage made: the best of fine-tuning, else the discriminator's.

        Raises:
            NotTrainedError: where training is not finished.
        """
        last = self.finetuning or self.cotraining
        with self.strategy.scope():
            _restore(last, run_directory)
            if last.steps_done < last.total_steps:
                raise NotTrainedError(
                    f"{last.name_of_stage} in {run_directory.path} is at step {last.steps_done} of {last.total_steps}: "
                    f"finish the training first (python -m robgan_tf.train)."
                )
            if last is self.cotraining:
                return self.classifier
            best = _best(run_directory, self.finetuning)
            best.checkpoint.restore(best.latest_checkpoint).assert_consumed()
            return self.finetuning.result

    def evaluate(self, run_directory: RunDirectory) -> dict:
        """Evaluates the classifier of a finished run, in float32 as it is exported; returns the report."""
        classifier = self.restore_classifier(run_directory)
        with self.strategy.scope(), devices.precision("float32"):
            return self.evaluate_logits(self._copy(classifier))

    def evaluate_logits(self, logits: Callable) -> dict:
        """Evaluates any function from images [B, H, W, C] in [-1, 1] to class logits [B, K]; returns the report.

        Raises:
            ValueError: where it does not fit the data.
        """
        expected = [1, self.data.num_classes]
        try:
            shape = logits(tf.zeros([1, *self.data.image_shape])).shape.as_list()
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"The classifier does not take images of {self.data.name}, {self.data.image_shape}: use the data that "
                f"it was trained on. ({str(error).splitlines()[0]})"
            ) from error
        if shape != expected:
            raise ValueError(
                f"The classifier has {shape[-1]} classes, {self.data.name} has {self.data.num_classes}: use the data "
                f"that it was trained on."
            )
        return self.evaluation(logits, self.data, progress=print)

    def export(self, run_directory: RunDirectory) -> str:
        """Exports the classifier of a finished run as the next version; returns its folder."""
        classifier = self.restore_classifier(run_directory)
        # Plain variables and float32: the export must not need this run's devices or precision.
        with devices.precision("float32"):
            exported = self._copy(classifier)
        directory = export_classifier(
            exported,
            exported.weights,
            image_shape=self.data.image_shape,
            class_names=self.data.class_names,
            export_root=str(run_directory.exports),
            check_images=self.data.test.take(16, self.seed).images,
        )
        print(f"exported to {directory}")
        return directory

    def summary(self) -> str:
        """Returns what a run would do, for people: data, players, lengths."""
        data = self.data
        lines = [
            f"data: {data.name}, {data.num_classes} classes, images {data.image_shape}, "
            f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test",
            f"devices: {self.strategy.num_replicas_in_sync} replica(s), precision "
            f"{keras.mixed_precision.global_policy().name}",
            f"discriminator: {self.discriminator.count_params():,} parameters",
        ]
        if self.cotraining is not None:
            lines.append(f"generator: {self.cotraining.generator.count_params():,} parameters")
        for stage in filter(None, (self.cotraining, self.finetuning)):
            attacker = "no attack"
            if stage.attacker is not None:
                attacker = f"{stage.attacker.steps} attack steps of {stage.attacker.step_size:g} in the "
                attacker += str(stage.attacker.threat_model)
            lines.append(
                f"{stage.name_of_stage}: {stage.total_steps} steps of {stage.images_per_step} images "
                f"({stage.total_steps * stage.images_per_step / len(data.train):.3g} epochs), {attacker}"
            )
        return "\n".join(lines)

    def _cotrain(self, run_directory: RunDirectory):
        with self.strategy.scope():
            _restore(self.cotraining, run_directory)
            log = MetricsLog(self.cotraining, run_directory, self.log_every)
            grids = SampleGrids(self.cotraining, self.data, run_directory, self._seed(_SAMPLES))
            sampler = Periodic(self.cotraining, self.sample_every, grids.write)
            self._fit(self.cotraining, run_directory, log, sampler, noise=self.cotraining_noise)

    def _finetune(self, run_directory: RunDirectory):
        stage = self.finetuning
        with self.strategy.scope():
            # 1. The end of co-training: the generator, and the discriminator's weights to start from.
            if self.cotraining is not None:
                _restore(self.cotraining, run_directory)
                if self.cotraining.steps_done < self.cotraining.total_steps:
                    raise NotTrainedError(
                        f"finetune needs the end of co-training, which is at step {self.cotraining.steps_done} of "
                        f"{self.cotraining.total_steps} in {run_directory.path}: run the stage cotrain first."
                    )
                self.cotraining.standardize_average_generator()
            # 2. The moving average of the classifier starts there.
            stage.start()
            # 3. The newest checkpoint of fine-tuning itself, where there is one, over both.
            _restore(stage, run_directory)
            best = _best(run_directory, stage)
            log = MetricsLog(stage, run_directory, self.log_every)
            withstands = Withstands(
                stage.result,
                self.validation_attacker,
                min(self.evaluation.batch_size, len(self.data.validation)),
                self._seed(_VALIDATION),
            )

            def validate(step):
                accuracy = float(withstands(self.data.validation).mean())
                log.record({"validation_accuracy": accuracy})
                if accuracy > stage.best_accuracy.numpy():
                    best.save(step)
                    stage.best_accuracy.assign(accuracy)

            self._fit(stage, run_directory, log, Periodic(stage, self.validate_every, validate), noise=0.0)

    def _fit(self, stage: Stage, run_directory: RunDirectory, log: MetricsLog, periodic: Periodic, noise: float):
        """Trains a stage from its current step to its end."""
        first_step = stage.steps_done
        if first_step >= stage.total_steps:
            print(f"{stage.name_of_stage}: done ({first_step} steps)")
            return
        run_directory.forget_metrics_after(stage.name_of_stage, first_step)
        checkpoints = run_directory.checkpoints(stage.name_of_stage, stage.checkpoint_objects())
        batches = training_batches(
            self.data.train,
            stage.images_per_step,
            first_step=first_step,
            steps=stage.total_steps,
            seed=self._seed(_DATA),
            augment=self.augment,
            noise=noise,
        )
        try:
            stage.fit(
                batches,
                epochs=1,
                steps_per_epoch=stage.total_steps - first_step,
                verbose=0,
                # The log first: it stops the run at a broken loss, before a checkpoint of it is written.
                callbacks=[log, periodic, Periodic(stage, self.checkpoint_every, checkpoints.save)],
            )
        finally:
            log.close()

    def _copy(self, classifier: Classifier) -> Classifier:
        """Returns another classifier with the same weights, made under the current strategy and precision."""
        copy = self._new_classifier()
        copy.set_weights(classifier.get_weights())
        return copy

    def _seed(self, use: int) -> int:
        return self.seed * 16 + use


def _restore(stage: Stage, run_directory: RunDirectory) -> bool:
    """Restores the newest checkpoint of a stage, with its optimizers; returns whether there is one."""
    manager = run_directory.checkpoints(stage.name_of_stage, stage.checkpoint_objects())
    if manager.latest_checkpoint is None:
        return False
    manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    return True


def _best(run_directory: RunDirectory, stage: FineTuning) -> tf.train.CheckpointManager:
    """The checkpoint of the best validation of fine-tuning."""
    return run_directory.checkpoints("finetuning_best", {"classifier": stage.result}, keep=1)
