"""The root of the configuration: builds data, players and stages from gin, and runs the stages in order."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Callable

import gin
from absl import logging

from robgan_tf.bindings import bindings, may_change
from robgan_tf.data.batches import check_augmentations
from robgan_tf.data.datasets import Examples
from robgan_tf.data.description import describe, differences, uneven_classes
from robgan_tf.experiment import parts  # noqa: F401  (so that gin knows all parts)
from robgan_tf.experiment.describe import COMPARED, OUTCOMES, about_export, about_run
from robgan_tf.experiment.problems import Problems
from robgan_tf.generation.evaluation import GenerationEvaluation
from robgan_tf.generation.extractors import Extractor
from robgan_tf.generation.image_sources import GeneratedImages, ImageSource, images_of_file
from robgan_tf.keras2 import keras
from robgan_tf.pages.run_page import update_run_report
from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier
from robgan_tf.robustness.evaluation import Evaluation
from robgan_tf.robustness.validation import validation_accuracies
from robgan_tf.run import devices
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory, write_json
from robgan_tf.run.signals import StopRequests
from robgan_tf.run.tensorboard import write_evaluation, write_run
from robgan_tf.run.workers import Workers
from robgan_tf.serving.saved_model import ExportOptions, export_classifier
from robgan_tf.training.attack_time import AttackTimer
from robgan_tf.training.generated import this_generator
from robgan_tf.training.loop import Periodic, StageTraining
from robgan_tf.training.samples import SampleGrids
from robgan_tf.training.stage import Stage
from robgan_tf.training.upkeep import Upkeep

# The stages by the names that commands use.
STAGES = ("cotrain", "finetune", "evaluate", "export")
# A seed for each use, so that no two of them draw the same numbers.
_DATA, _COTRAINING, _FINETUNING, _VALIDATION, _SAMPLES = range(5)
# Co-training is validated to be watched, not to choose anything: on so many images at most.
_WATCHED_EXAMPLES = 500


class DataChangedError(ValueError):
    """The data at hand are not those that a run is trained on."""


class NotTrainedError(ValueError):
    """A stage was asked for that needs an earlier one, which is not finished."""


@gin.configurable
@may_change(
    "evaluation", "sample_every", "upkeep", "export_options", "generation", "generation_scores", "training_curves"
)
class Experiment:
    """A whole run: data, players, stages, evaluation, export.

    All parts are given as gin references to what makes them (`@Generator`), and are made here, so that anything wrong
    with them is found before a file is written or a step is done.

    Args:
        data: makes the data set: `@digits`, `@tfds_images`, `@image_folder` or `@tfrecord_images`.
        discriminator: makes the discriminator, whose class branch is the classifier where `classifier` is None.
        generator: makes the generator; None for adversarial training.
        cotraining: makes the first stage; None to start with fine-tuning.
        finetuning: makes the second stage; None for none.
        classifier: makes another classifier for fine-tuning, `@PreActResNet18` or `@VGG16` (eq. 6); it starts from
            nothing. None for the discriminator's class branch (eq. 10).
        generated: makes the source of generated images for fine-tuning: `@this_generator` for the averaged generator of
            this run, where it has one; `@sample_file`; or None for none.
        evaluation: makes the evaluation of the classifier.
        validation_attacker: attack that chooses the best checkpoint of fine-tuning, on the validation part of the
            training split; None to choose by accuracy on clean images.
        augment: augmentations of training images, see `data/preprocessing.py`.
        cotraining_noise: width of the uniform noise that is added to training images in co-training, on [-1, 1].
        seed: seed of everything random.
        validate_every: steps of fine-tuning between two validations.
        sample_every: steps of co-training between two image grids, each with a validation on part of the images.
        upkeep: intervals of metrics and checkpoints, and what happens after a broken step.
        export_options: how the classifier is exported.
        generation: makes the evaluation of the generator, on demand.
        generation_scores: makes the scores of the generator while it trains, `@TrainingScores`; None for none.
        training_curves: makes the measures of the classifier while it trains, `@TrainingCurves`; None for none.

    Raises:
        ConfigurationError: for parts that can't be made or contradict each other; it names all of them.
    """

    def __init__(
        self,
        data: Callable = gin.REQUIRED,
        discriminator: Callable = gin.REQUIRED,
        generator: Callable | None = None,
        cotraining: Callable | None = None,
        finetuning: Callable | None = None,
        evaluation: Callable = gin.REQUIRED,
        classifier: Callable | None = None,
        generated: Callable | None = this_generator,
        validation_attacker: Callable | None = None,
        augment: Sequence[Callable] = (),
        cotraining_noise: float = 1 / 128,
        seed: int = 0,
        validate_every: int = 200,
        sample_every: int = 500,
        upkeep: Callable = Upkeep,
        export_options: Callable = ExportOptions,
        generation: Callable = GenerationEvaluation,
        generation_scores: Callable | None = None,
        training_curves: Callable | None = None,
    ):
        problems = Problems()
        part, check = problems.part, problems.check
        check(
            cotraining is not None and generator is None,
            "Experiment.cotraining needs Experiment.generator; without a generator train by fine-tuning alone.",
        )
        check(
            cotraining is None and finetuning is None,
            "Nothing to train: set Experiment.cotraining, Experiment.finetuning or both.",
        )
        check(
            cotraining is None and generator is not None,
            "Experiment.generator would stay untrained: set Experiment.cotraining too, or generator to None.",
        )
        check(
            classifier is not None and finetuning is None,
            "Experiment.classifier would stay untrained: set Experiment.finetuning too, or classifier to None.",
        )
        check(
            generation_scores is not None and cotraining is None,
            "Experiment.generation_scores are taken in co-training: set Experiment.cotraining too, or them to None.",
        )
        check(
            training_curves is not None and finetuning is None,
            "Experiment.training_curves are taken in fine-tuning: set Experiment.finetuning too, or them to None.",
        )
        if problems.found:  # there are no stages then, whatever else is wrong with them
            cotraining = finetuning = training_curves = generation_scores = None
        check(
            min(validate_every, sample_every) < 1,
            f"Experiment.validate_every and Experiment.sample_every are steps, 1 or more; got {validate_every} and "
            f"{sample_every}.",
        )
        check(
            cotraining_noise < 0,
            f"Experiment.cotraining_noise is a width on [-1, 1] and must be 0 or more, got {cotraining_noise}.",
        )
        self.seed = seed
        self.augment = augment
        self.cotraining_noise = cotraining_noise
        self.upkeep = part(upkeep)
        self.export_options = part(export_options)
        # Whoever runs the experiment may replace it by what listens to signals.
        self.stops = StopRequests()
        # First and last step to profile of each stage; None for none. Set by whoever runs it, too.
        self.profile_steps = None
        self.validate_every = validate_every
        self.sample_every = sample_every
        self.strategy = part(lambda: devices.configure(seed=seed))
        self.workers = Workers(self.strategy)
        self.evaluation = part(evaluation)
        self.generation = part(generation)  # may load classifiers: behind the set-up of the devices
        self.validation_attacker = validation_attacker and part(validation_attacker)
        self.data = part(data)
        if self.data is not None:
            part(lambda: check_augmentations(augment, self.data.image_shape))
            part(lambda: self.export_options.check(self.data.image_shape), self.export_options)
        check(
            self.data is not None and finetuning is not None and not len(self.data.validation),
            "Fine-tuning chooses its best checkpoint on the validation part of the training split, which is empty: set "
            "the data's validation_examples above 0.",
        )
        self.discriminator = self.class_branch = self.cotraining = self.finetuning = None
        if self.strategy is not None and self.data is not None:
            with self.strategy.scope():
                shape, classes, examples = self.data.image_shape, self.data.num_classes, len(self.data.train)
                # Of any number of classes, for images between classes.
                self.new_generator = lambda number: generator(number, shape, name="blended_generator")
                if cotraining is not None or classifier is None:
                    self.discriminator = part(lambda: discriminator(classes, shape))
                    self.class_branch = part(lambda: ClassBranch(self.discriminator), self.discriminator)
                self.classifier = self.class_branch if classifier is None else part(lambda: classifier(classes, shape))
                networks, average = [self.classifier], None
                if generator is not None:
                    player = part(lambda: generator(classes, shape))
                    average = part(lambda: generator(classes, shape, name="average_generator"), player)
                    networks.append(average)
                seeds = self._seed(_COTRAINING), self._seed(_FINETUNING)
                if cotraining is not None:
                    self.cotraining = part(
                        lambda: cotraining(player, average, self.discriminator, examples, seeds[0]),
                        self.discriminator,
                        *networks,
                    )
                if finetuning is not None:
                    self.finetuning = part(
                        lambda: finetuning(
                            self.classifier, generated and generated(average, classes), examples, seeds[1]
                        ),
                        *networks,
                    )
        self.training_curves = training_curves and part(training_curves)
        self.generation_scores = generation_scores and part(generation_scores)
        if self.generation_scores is not None and self.data is not None:
            part(lambda: self.generation_scores.check(self.data))
        problems.raise_found()

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The networks that are trained, by name; the discriminator's class branch is not named apart."""
        networks = {}
        if self.cotraining is not None:
            networks["generator"] = self.cotraining.generator
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        if self.classifier is not self.class_branch:
            networks["classifier"] = self.classifier
        return networks

    @property
    def result(self) -> Classifier:
        """The classifier that the last stage trains, which is evaluated and exported."""
        return self.class_branch if self.finetuning is None else self.finetuning.result

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
            DataChangedError: where the data are not those that the run began with.
        """
        # A folder that was not claimed is no run yet, and stays as it is.
        self.check_data(run_directory, keep=run_directory.config.exists())
        if "cotrain" in stages:
            self._cotrain(run_directory)
        if "finetune" in stages:
            self._finetune(run_directory)
        on_chief = self.workers.on_chief
        if "evaluate" in stages and not on_chief(run_directory.robustness.exists):
            evaluation = self.evaluate(run_directory)
            on_chief(lambda: write_evaluation(run_directory.tensorboard, evaluation.report))
            on_chief(lambda: evaluation.write(run_directory.robustness))  # which tells that all of it is done
        if "export" in stages and not on_chief(lambda: any(run_directory.exports.glob("[0-9]*"))):
            self.export(run_directory)
        on_chief(lambda: update_run_report(run_directory))

    def check_data(self, run_directory: RunDirectory, keep: bool = False):
        """Compares the data with those that the run is trained on.

        Args:
            run_directory: the run.
            keep: whether to write the description of the data where the run has none yet.

        Raises:
            DataChangedError: where they differ, with the classes that do.
        """
        self.workers.on_chief(lambda: self._check_data(run_directory.data, keep))

    def _check_data(self, path: pathlib.Path, keep: bool):
        described = describe(self.data)
        if not path.exists():
            if keep:
                write_json(path, described)
                uneven = uneven_classes(described)
                if uneven:  # once in a run: every later command finds the description
                    logging.warning("%s", uneven)
            return
        try:
            found = differences(json.loads(path.read_text()), described)
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise DataChangedError(
                f"{path}, the description of the run's data, can't be read ({error}): restore it from a copy, or "
                f"remove it if you are sure that the data are those of the run."
            ) from error
        if found:
            raise DataChangedError(
                f"The data ({self.data.name}) are not those that {path.parent} is trained on: {found}. Restore them, "
                f"give the path of the run's data by --gin_param, or train in a new --run_dir."
            )

    def restore_generator(self, run_directory: RunDirectory) -> keras.Model:
        """Loads the newest co-training checkpoint and returns the averaged generator, ready to be sampled from.

        Raises:
            NotTrainedError: where there is none.
        """
        self.check_data(run_directory)
        if self.cotraining is None:
            raise NotTrainedError("This configuration has no generator (Experiment.cotraining is None).")
        with self.strategy.scope():
            if not self._training(self.cotraining, run_directory).restore():
                raise NotTrainedError(f"{run_directory.path} holds no checkpoint of co-training yet.")
            self.cotraining.standardize_average_generator()
        return self.cotraining.average_generator

    def restore_classifier(self, run_directory: RunDirectory) -> Classifier:
        """Loads the classifier that the last finished stage made: the best of fine-tuning, else the discriminator's.

        Raises:
            NotTrainedError: where training is not finished.
        """
        self.check_data(run_directory)
        last = self.finetuning or self.cotraining
        with self.strategy.scope():
            self._training(last, run_directory).restore()
            if last.steps_done < last.total_steps:
                raise NotTrainedError(
                    f"{last.name_of_stage} in {run_directory.path} is at step {last.steps_done} of {last.total_steps}: "
                    f"finish the training first (python -m robgan_tf.train)."
                )
            if last is self.finetuning:
                self._best(run_directory).restore()
            return self.result

    def evaluate(self, run_directory: RunDirectory) -> Evaluation:
        """Evaluates the classifier of a finished run, in float32 as it is exported."""
        classifier = self.restore_classifier(run_directory)
        with self.strategy.scope(), devices.precision("float32"):
            return self.evaluate_logits(classifier.inference_copy())

    def evaluate_logits(self, logits: Callable) -> Evaluation:
        """Evaluates any function from images [B, H, W, C] in [-1, 1] to class logits [B, K].

        Raises:
            ValueError: where it does not fit the data.
        """
        return self.evaluation(logits, self.data, progress=print)

    def evaluate_generator(
        self, run_directory: RunDirectory, extractors: Sequence[Extractor] = (), samples: str | None = None
    ) -> dict:
        """Measures the generator of a run, or the images of a file; returns what `generation.json` holds.

        Args:
            run_directory: the run; what measuring keeps is kept there.
            extractors: networks to measure by, instead of the configuration's.
            samples: an .npz file of images to measure in place of the run's generator, see `images_of_file`.

        Raises:
            ValueError: for no generator, or extractors, samples or settings that won't do.
        """
        if samples is not None:
            images = images_of_file(samples, self.data, self.seed)
        else:
            images = self._generated(self.restore_generator(run_directory), self.generation.seed)

        with devices.precision("float32"):
            folder = run_directory.generation_files
            return self.generation(images, self.data, self.result.another, folder, extractors, progress=print)

    def _generated(self, generator: keras.Model, seed: int) -> ImageSource:
        about = {"generator": "moving average of the weights, standing statistics", "step": self.cotraining.steps_done}
        return GeneratedImages(generator, seed, about)

    def export(self, run_directory: RunDirectory) -> str:
        """Exports the classifier of a finished run as the next version; returns its folder."""
        classifier = self.restore_classifier(run_directory)

        def export():
            # Plain variables: the export must not need this run's devices or precision.
            with devices.precision(self.export_options.precision):
                exported = classifier.inference_copy()
            return export_classifier(
                exported,
                exported.weights,
                image_shape=self.data.image_shape,
                class_names=self.data.class_names,
                export_root=str(run_directory.exports),
                check_images=self.data.test.take(16, self.seed).images,
                options=self.export_options,
                about=about_export(self, run_directory),
                features_fn=exported.features_and_logits,
            )

        directory = self.workers.on_chief(export)
        print(f"exported to {directory}")
        return directory

    def _cotrain(self, run_directory: RunDirectory):
        with self.strategy.scope():
            training = self._training(self.cotraining, run_directory)
            training.restore()
            grids = SampleGrids(self.cotraining, self.data, run_directory, self._seed(_SAMPLES))
            sampler = Periodic(self.sample_every, grids.write)
            periodics = [sampler, *self._watching(self.cotraining, self.sample_every)]
            if len(self.data.validation):
                examples = self.data.validation.take(
                    min(_WATCHED_EXAMPLES, len(self.data.validation)), self._seed(_VALIDATION)
                )
                accuracies = self._accuracies(self.class_branch, examples)
                periodics.append(Periodic(self.sample_every, lambda step: accuracies()))
            if self.generation_scores is not None:
                periodics.append(Periodic(self.generation_scores.every, self._scoring(run_directory)))
            self._describe(run_directory, self.cotraining)
            training.run(self.data.train, self._seed(_DATA), self.augment, self.cotraining_noise, periodics)

    def _scoring(self, run_directory: RunDirectory) -> Callable[[int], dict]:
        """Returns a function that measures the averaged generator as it is."""
        images = self._generated(self.cotraining.average_generator, self.generation_scores.seed)
        folder = run_directory.generation_files

        def score(step):
            self.cotraining.standardize_average_generator()
            return self.workers.on_chief(lambda: self.generation_scores(images, self.data, folder))

        return score

    def _finetune(self, run_directory: RunDirectory):
        stage = self.finetuning
        with self.strategy.scope():
            # 1. The end of co-training: the generator, and the discriminator's weights to start from.
            if self.cotraining is not None:
                self._training(self.cotraining, run_directory).restore()
                if self.cotraining.steps_done < self.cotraining.total_steps:
                    raise NotTrainedError(
                        f"finetune needs the end of co-training, which is at step {self.cotraining.steps_done} of "
                        f"{self.cotraining.total_steps} in {run_directory.path}: run the stage cotrain first."
                    )
                self.cotraining.standardize_average_generator()
            # 2. The moving average of the classifier starts there.
            stage.start()
            # 3. The newest checkpoint of fine-tuning itself, where there is one, over both.
            training = self._training(stage, run_directory)
            training.restore()
            best = self._best(run_directory)
            accuracies = self._accuracies(stage.result, self.data.validation)

            def validate(step):
                found = accuracies()
                accuracy = found["validation_accuracy"]
                if accuracy > stage.best_accuracy.numpy():
                    best.save(step, {"validation_accuracy": accuracy})
                    stage.best_accuracy.assign(accuracy)
                return found

            periodics = [Periodic(self.validate_every, validate), *self._watching(stage, self.validate_every)]
            if self.training_curves is not None:
                measure = self.training_curves(stage.result, self.data, self.validation_attacker)
                periodics.append(Periodic(self.training_curves.every, lambda step: measure()))
            self._describe(run_directory, stage)
            training.run(self.data.train, self._seed(_DATA), self.augment, 0.0, periodics)

    def _training(self, stage: Stage, run_directory: RunDirectory) -> StageTraining:
        return StageTraining(stage, run_directory, self.upkeep, self.stops, self.profile_steps)

    def _watching(self, stage: Stage, every: int) -> list[Periodic]:
        if stage.attacker is None:
            return []
        return [Periodic(every, AttackTimer(stage, self.data.image_shape, self.data.num_classes).measure)]

    def _accuracies(self, classifier: Classifier, examples: Examples) -> Callable[[], dict]:
        """Returns a function that measures the classifier's accuracy on `examples`, clean and attacked."""
        return validation_accuracies(
            classifier, self.validation_attacker, examples, self.evaluation.batch_size, self._seed(_VALIDATION)
        )

    def _describe(self, run_directory: RunDirectory, stage: Stage):
        """Writes what the run is, for people, where the stage is not done."""
        if stage.steps_done >= stage.total_steps or not self.workers.is_chief:
            return
        manifest = about_run(self)
        write_json(run_directory.manifest, manifest)
        if run_directory.config.exists():
            config = run_directory.config.read_text()
            write_run(run_directory.tensorboard, config, bindings(config), manifest, COMPARED, OUTCOMES)

    def _best(self, run_directory: RunDirectory) -> Checkpoints:
        """The checkpoint of the best validation of fine-tuning, and the second best in case that it gets damaged."""
        folder, objects = run_directory.checkpoints("finetuning_best"), {"classifier": self.finetuning.result}
        return Checkpoints(folder, objects, workers=self.workers)

    def _seed(self, use: int) -> int:
        return self.seed * 16 + use
