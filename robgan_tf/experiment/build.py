"""From gin to parts: a configuration's choices, and all that contradicts each other in them, before a step is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable

import gin

from robgan_tf.bindings import may_change
from robgan_tf.data.batches import check_augmentations
from robgan_tf.data.description import check_class_names
from robgan_tf.data.expected import data_or_expected
from robgan_tf.experiment import parts  # noqa: F401  (so that gin knows all parts)
from robgan_tf.experiment.problems import Problems
from robgan_tf.generation.evaluation import GenerationEvaluation
from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier
from robgan_tf.players.classifiers.keras_classifier import as_classifier
from robgan_tf.run import devices
from robgan_tf.run.workers import Workers
from robgan_tf.serving.saved_model import ExportOptions
from robgan_tf.training.generated import this_generator
from robgan_tf.training.stage import Stage
from robgan_tf.training.upkeep import Upkeep
from robgan_tf.values import check, maker, number, optional, several, whole

# The stages by the names that commands use.
STAGES = ("cotrain", "finetune", "evaluate", "export")
# A seed for each use, so that no two of them draw the same numbers.
DATA, COTRAINING, FINETUNING, VALIDATION, SAMPLES = range(5)


@gin.configurable("Experiment")
@may_change(
    *("evaluation", "sample_every", "upkeep", "export_options", "generation", "generation_scores", "training_curves"),
    "expected_data",
)
@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a configuration chooses: its bindings are `Experiment.<name> = ...`.

    A part is chosen by what makes it (`@Generator`, without parentheses): `Experiment` makes all parts itself, so that
    whatever is wrong with them is found, and named in one go, before a file is written or a step is done.

    Attributes:
        data: makes the data set: `@digits`, `@tfds_images`, `@image_folder` or `@tfrecord_images`.
        discriminator: makes the discriminator, whose class branch is the classifier where `classifier` is None.
        evaluation: makes the evaluation of the classifier.
        generator: makes the generator; None for adversarial training.
        cotraining: makes the first stage; None to start with fine-tuning.
        finetuning: makes the second stage; None for none.
        classifier: makes another classifier for fine-tuning (eq. 6), any Keras network: `@PreActResNet18`, `@VGG16`,
            `@WideResNet`, `@ConvNeXt` or your own; it starts from nothing. None for the discriminator's class branch
            (eq. 10).
        generated: makes the source of generated images for fine-tuning: `@this_generator` for the averaged generator of
            this run, where it has one; `@sample_file`; or None for none.
        validation_attacker: makes the attack that chooses the best checkpoint of fine-tuning, on the validation part of
            the training split; None to choose by accuracy on clean images.
        augment: augmentations of training images, see `data/preprocessing.py`.
        cotraining_noise: width of the uniform noise that is added to training images in co-training, on [-1, 1].
        seed: seed of everything random.
        validate_every: steps of fine-tuning between two validations.
        sample_every: steps of co-training between two image grids, each with a validation on part of the images.
        upkeep: makes the intervals of metrics and checkpoints, and what happens after a broken step.
        export_options: makes the settings of the export.
        generation: makes the evaluation of the generator, on demand.
        generation_scores: makes the scores of the generator while it trains, `@TrainingScores`; None for none.
        training_curves: makes the measures of the classifier while it trains, `@TrainingCurves`; None for none.
        expected_data: what the data will be, `@expected_data`, for a dry run where they are missing; None: unknown.
    """

    data: Callable = gin.REQUIRED
    discriminator: Callable = gin.REQUIRED
    evaluation: Callable = gin.REQUIRED
    generator: Callable | None = None
    cotraining: Callable | None = None
    finetuning: Callable | None = None
    classifier: Callable | None = None
    generated: Callable | None = this_generator
    validation_attacker: Callable | None = None
    augment: Sequence[Callable] = ()
    cotraining_noise: float = 1 / 128
    seed: int = 0
    validate_every: int = 200
    sample_every: int = 500
    upkeep: Callable = Upkeep
    export_options: Callable = ExportOptions
    generation: Callable = GenerationEvaluation
    generation_scores: Callable | None = None
    training_curves: Callable | None = None
    expected_data: Callable | None = None

    def seed_of(self, use: int) -> int:
        """The seed of one of the uses above, `DATA`, `COTRAINING`, ..."""
        return self.seed * 16 + use

    def contradictions(self) -> list[str]:
        """Returns a line for each choice that makes no sense beside the others, of which no stage could be made."""
        without = {
            "Experiment.cotraining needs Experiment.generator; without a generator train by fine-tuning alone.": (
                self.cotraining is not None and self.generator is None
            ),
            "Nothing to train: set Experiment.cotraining, Experiment.finetuning or both.": (
                self.cotraining is None and self.finetuning is None
            ),
            "Experiment.generator would stay untrained: set Experiment.cotraining too, or generator to None.": (
                self.cotraining is None and self.generator is not None
            ),
            "Experiment.classifier would stay untrained: set Experiment.finetuning too, or classifier to None.": (
                self.classifier is not None and self.finetuning is None
            ),
            "Experiment.generation_scores are taken in co-training: set Experiment.cotraining too, or them to None.": (
                self.generation_scores is not None and self.cotraining is None
            ),
            "Experiment.training_curves are taken in fine-tuning: set Experiment.finetuning too, or them to None.": (
                self.training_curves is not None and self.finetuning is None
            ),
        }
        return [message for message, contradicts in without.items() if contradicts]


class Experiment:
    """All parts of a run, made of its configuration: data, players, stages, evaluation, export. `run` runs them.

    Args:
        configuration: what was chosen.
        dry_run: whether it is made to be counted alone: nothing is downloaded or prepared, and where the data are
            missing, what the configuration expects of them takes their place.

    Attributes:
        data: the data set.
        missing: for a dry run: what is said of the data where they are missing, else None.
        strategy, workers: the devices, and the processes that train together.
        discriminator, classifier: networks; the former is None where nothing needs it.
        cotraining, finetuning: the stages; None for one that the configuration does not have.
        evaluation, generation, export_options: of the classifier, of the generator, of the export.
        upkeep, validation_attacker, training_curves, generation_scores: see `Configuration`.

    Raises:
        ConfigurationError: for parts that can't be made or contradict each other; it names all of them.
    """

    def __init__(self, configuration: Configuration, dry_run: bool = False):
        self.configuration = configuration
        problems = Problems()
        contradictions = configuration.contradictions()
        for message in contradictions:
            problems.check(True, message)
        self._check_values(problems)
        self._make_surroundings(problems)
        data, expected = configuration.data, configuration.expected_data
        found = problems.part(lambda: data_or_expected(data, expected) if dry_run else (data(), None))
        self.data, self.missing = found or (None, None)
        self._check_data(problems)
        self.discriminator = self.class_branch = self.classifier = self.cotraining = self.finetuning = None
        if self.strategy is not None and self.data is not None:
            with self.strategy.scope():
                # Where the choices contradict each other there are no stages, whatever else is wrong with them.
                self._make_players_and_stages(problems, stages=not contradictions)
        if not contradictions:
            self._make_watchers(problems)
        problems.raise_found()

    def _check_values(self, problems: Problems):
        kinds = {
            "seed": whole(0),
            "validate_every": whole(1),
            "sample_every": whole(1),
            "cotraining_noise": number(least=0),
            "augment": several(maker("@random_flip"), least=0),
            "data": maker("@digits"),
            "discriminator": maker("@Discriminator"),
            "evaluation": maker("@RobustnessEvaluation"),
            "generator": optional(maker("@Generator")),
            "cotraining": optional(maker("@CoTraining")),
            "finetuning": optional(maker("@FineTuning")),
            "classifier": optional(maker("@PreActResNet18")),
            "generated": optional(maker("@this_generator")),
            "validation_attacker": optional(maker("@validation/Attacker")),
            "upkeep": maker("@Upkeep"),
            "export_options": maker("@ExportOptions"),
            "generation": maker("@GenerationEvaluation"),
            "generation_scores": optional(maker("@TrainingScores")),
            "training_curves": optional(maker("@TrainingCurves")),
            "expected_data": optional(maker("@expected_data")),
        }
        for name, kind in kinds.items():
            value = getattr(self.configuration, name)
            problems.part(lambda name=name, value=value, kind=kind: check(f"Experiment.{name}", value, kind))

    def _make_surroundings(self, problems: Problems):
        """Makes all but players and stages. The devices come first, since whatever TensorFlow does sets them up."""
        choices, part = self.configuration, problems.part
        self.upkeep = part(choices.upkeep)
        self.export_options = part(choices.export_options)
        self.strategy = part(lambda: devices.configure(seed=choices.seed))
        self.workers = Workers(self.strategy)
        self.evaluation = part(choices.evaluation)
        self.generation = part(choices.generation)  # may load classifiers
        self.validation_attacker = choices.validation_attacker and part(choices.validation_attacker)

    def _check_data(self, problems: Problems):
        """Has every part say what it needs of the data."""
        data, part = self.data, problems.part
        if data is None:
            return
        part(lambda: check_augmentations(self.configuration.augment, data.image_shape))
        part(lambda: check_class_names(data.class_names))
        part(lambda: self.export_options.check(data.image_shape), self.export_options)
        part(lambda: self.evaluation.check_classes(data.num_classes), self.evaluation)
        problems.check(
            self.configuration.finetuning is not None and not len(data.validation),
            "Fine-tuning chooses its best checkpoint on the validation part of the training split, which is empty: set "
            "the data's validation_examples above 0.",
        )

    def _make_players_and_stages(self, problems: Problems, stages: bool):
        choices, part = self.configuration, problems.part
        shape, classes, examples = self.data.image_shape, self.data.num_classes, len(self.data.train)
        cotraining, finetuning = (choices.cotraining, choices.finetuning) if stages else (None, None)
        if cotraining is not None or choices.classifier is None:
            self.discriminator = part(lambda: choices.discriminator(classes, shape))
            self.class_branch = part(lambda: ClassBranch(self.discriminator), self.discriminator)
        self.classifier = self.class_branch
        if choices.classifier is not None:
            self.classifier = part(lambda: as_classifier(choices.classifier(classes, shape)))
        networks, average = [self.classifier], None
        if choices.generator is not None:
            player = part(lambda: choices.generator(classes, shape))
            average = part(lambda: choices.generator(classes, shape, name="average_generator"), player)
            networks.append(average)
        seeds = choices.seed_of(COTRAINING), choices.seed_of(FINETUNING)
        if cotraining is not None:
            self.cotraining = part(
                lambda: cotraining(player, average, self.discriminator, examples, seeds[0]),
                self.discriminator,
                *networks,
            )
        if finetuning is not None:
            self.finetuning = part(
                lambda: finetuning(
                    self.classifier, choices.generated and choices.generated(average, classes), examples, seeds[1]
                ),
                *networks,
            )

    def _make_watchers(self, problems: Problems):
        choices = self.configuration
        self.training_curves = choices.training_curves and problems.part(choices.training_curves)
        self.generation_scores = choices.generation_scores and problems.part(choices.generation_scores)
        if self.generation_scores is not None and self.data is not None:
            problems.part(lambda: self.generation_scores.check(self.data))

    def new_generator(self, num_classes: int) -> keras.Model:
        """Returns a generator of any number of classes, untrained: for images between classes."""
        return self.configuration.generator(num_classes, self.data.image_shape, name="blended_generator")

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
    def training_stages(self) -> list[Stage]:
        """Co-training and fine-tuning, those that the configuration has."""
        return [stage for stage in (self.cotraining, self.finetuning) if stage is not None]

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all stages that this configuration has, in order."""
        missing = {"cotrain": self.cotraining is None, "finetune": self.finetuning is None}
        return tuple(stage for stage in STAGES if not missing.get(stage))


def build(dry_run: bool = False, **choices) -> Experiment:
    """Makes the experiment that gin's bindings describe; `choices` win over the bindings of `Configuration`.

    Args:
        dry_run: see `Experiment`.
        **choices: attributes of `Configuration`.

    Raises:
        ConfigurationError: see `Experiment`.
        RuntimeError: where a required binding is missing.
    """
    return Experiment(Configuration(**choices), dry_run)
