"""The stages of a run, each a function that reads from top to bottom: cotrain, finetune, evaluate, export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from robgan_tf.bindings import bindings
from robgan_tf.data.datasets import Examples
from robgan_tf.data.files import write_json
from robgan_tf.experiment import build
from robgan_tf.experiment.build import Experiment
from robgan_tf.experiment.describe import COMPARED, OUTCOMES, about_export, about_run
from robgan_tf.experiment.known_data import check_data
from robgan_tf.experiment.restoring import (
    NotTrainedError,
    best_checkpoints,
    restore_classifier,
    restore_generator,
    training_of,
)
from robgan_tf.generation.extractors import Extractor
from robgan_tf.generation.image_sources import ImageSource, SampledImages, images_of_file
from robgan_tf.keras2 import keras
from robgan_tf.pages.run_page import update_run_report
from robgan_tf.paths import export_versions
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.robustness.evaluation import Evaluation
from robgan_tf.robustness.validation import validation_accuracies
from robgan_tf.run import devices
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.signals import StopRequests
from robgan_tf.run.tensorboard import write_evaluation, write_run
from robgan_tf.serving.saved_model import export_classifier
from robgan_tf.training.attack_time import AttackTimer
from robgan_tf.training.loop import Periodic, StageTraining
from robgan_tf.training.samples import SampleGrids
from robgan_tf.training.stage import Stage

# Co-training is validated to be watched, not to choose anything: on so many images at most.
_WATCHED_EXAMPLES = 500
# Images by which an export is compared with the classifier that it was made of.
_CHECKED_EXAMPLES = 16
_NEVER = StopRequests()


def run_stages(
    experiment: Experiment,
    run_directory: RunDirectory,
    stages: Sequence[str],
    stops: StopRequests = _NEVER,
    profile_steps: tuple[int, int] | None = None,
):
    """Runs `stages` in order; what is done already is not done again.

    Args:
        experiment: all parts.
        run_directory: the run's folder, claimed for the experiment's configuration.
        stages: names out of `experiment.stages`.
        stops: tells whether the run shall stop at the end of the current step.
        profile_steps: the first and the last step of each stage to profile; None for none.

    Raises:
        NotTrainedError: where a stage needs an earlier one that is neither done nor asked for.
        DataChangedError: where the data are not those that the run began with.
        Stopped: where it was asked to stop.
    """
    on_chief = experiment.workers.on_chief
    # A folder that was not claimed is no run yet, and stays as it is.
    check_data(experiment, run_directory, keep=run_directory.config.exists())
    if "cotrain" in stages:
        cotrain(experiment, run_directory, stops, profile_steps)
    if "finetune" in stages:
        finetune(experiment, run_directory, stops, profile_steps)
    if "evaluate" in stages and not on_chief(run_directory.robustness.exists):
        evaluation = evaluate(experiment, run_directory)
        on_chief(lambda: write_evaluation(run_directory.tensorboard, evaluation.report))
        on_chief(lambda: evaluation.write(run_directory.robustness))  # which tells that all of it is done
    if "export" in stages and not on_chief(lambda: export_versions(run_directory.exports)):
        export(experiment, run_directory)
    on_chief(lambda: update_run_report(run_directory))


def cotrain(
    experiment: Experiment,
    run_directory: RunDirectory,
    stops: StopRequests = _NEVER,
    profile_steps: tuple[int, int] | None = None,
):
    """Trains the first stage from its newest checkpoint, or from the start, to its end."""
    choices, data, stage = experiment.configuration, experiment.data, experiment.cotraining
    with experiment.strategy.scope():
        # 1. The newest checkpoint of co-training, where there is one: players, averages, optimizers, step.
        training = StageTraining(stage, run_directory, experiment.upkeep, stops, profile_steps)
        training.restore()
        # 2. What is done now and then: image grids, validation, scores.
        grids = SampleGrids(stage, data, run_directory, choices.seed_of(build.SAMPLES))
        every = choices.sample_every
        periodics = [Periodic(every, grids.write), *_attack_time(experiment, stage, every)]
        if len(data.validation):
            count = min(_WATCHED_EXAMPLES, len(data.validation))
            examples = data.validation.take(count, choices.seed_of(build.VALIDATION))
            accuracies = _accuracies(experiment, experiment.class_branch, examples)
            periodics.append(Periodic(every, lambda step: accuracies()))
        if experiment.generation_scores is not None:
            periodics.append(Periodic(experiment.generation_scores.every, _scores(experiment, run_directory)))
        # 3. The steps.
        _describe(experiment, run_directory, stage)
        training.run(data.train, choices.seed_of(build.DATA), choices.augment, choices.cotraining_noise, periodics)


def finetune(
    experiment: Experiment,
    run_directory: RunDirectory,
    stops: StopRequests = _NEVER,
    profile_steps: tuple[int, int] | None = None,
):
    """Trains the second stage from its newest checkpoint, or from the end of the first one, to its end.

    Raises:
        NotTrainedError: where the first stage is not finished.
    """
    choices, data, stage = experiment.configuration, experiment.data, experiment.finetuning
    with experiment.strategy.scope():
        # 1. The end of co-training: the generator, and the discriminator's weights to start from.
        if experiment.cotraining is not None:
            training_of(experiment, experiment.cotraining, run_directory).restore()
            if experiment.cotraining.steps_done < experiment.cotraining.total_steps:
                raise NotTrainedError(
                    f"finetune needs the end of co-training, which is at step {experiment.cotraining.steps_done} of "
                    f"{experiment.cotraining.total_steps} in {run_directory.path}: run the stage cotrain first."
                )
            experiment.cotraining.standardize_average_generator()
        # 2. The moving average of the classifier starts there.
        stage.start()
        # 3. The newest checkpoint of fine-tuning itself, where there is one, over both.
        training = StageTraining(stage, run_directory, experiment.upkeep, stops, profile_steps)
        training.restore()
        # 4. The best classifier so far stays on the disk: only its accuracy, which the checkpoint holds, is needed.
        best = best_checkpoints(experiment, run_directory)
        accuracies = _accuracies(experiment, stage.result, data.validation, stage.attacker)

        def validate(step):
            found = accuracies()
            accuracy = found["validation_accuracy"]
            if accuracy > stage.best_accuracy.numpy():
                best.save(step, {"validation_accuracy": accuracy})
                stage.best_accuracy.assign(accuracy)
            return found

        every = choices.validate_every
        periodics = [Periodic(every, validate), *_attack_time(experiment, stage, every)]
        if experiment.training_curves is not None:
            measure = experiment.training_curves(stage.result, data, experiment.validation_attacker)
            periodics.append(Periodic(experiment.training_curves.every, lambda step: measure()))
        # 5. The steps.
        _describe(experiment, run_directory, stage)
        training.run(data.train, choices.seed_of(build.DATA), choices.augment, 0.0, periodics)


def evaluate(experiment: Experiment, run_directory: RunDirectory) -> Evaluation:
    """Evaluates the classifier of a finished run, in float32 as it is exported."""
    classifier = restore_classifier(experiment, run_directory)
    with experiment.strategy.scope(), devices.precision("float32"):
        return evaluate_logits(experiment, classifier.inference_copy())


def evaluate_logits(experiment: Experiment, logits: Callable) -> Evaluation:
    """Evaluates any function from images [B, H, W, C] in [-1, 1] to class logits [B, K].

    Raises:
        ValueError: where it does not fit the data.
    """
    return experiment.evaluation(logits, experiment.data, progress=print)


def evaluate_generator(
    experiment: Experiment,
    run_directory: RunDirectory,
    extractors: Sequence[Extractor] = (),
    samples: str | None = None,
) -> dict:
    """Measures the generator of a run, or the images of a file; returns what `generation.json` holds.

    Args:
        experiment: all parts.
        run_directory: the run; what measuring keeps is kept there.
        extractors: networks to measure by, instead of the configuration's.
        samples: an .npz file of images to measure in place of the run's generator, see `images_of_file`.

    Raises:
        ValueError: for no generator, or extractors, samples or settings that are invalid.
    """
    if samples is not None:
        images = images_of_file(samples, experiment.data, experiment.configuration.seed)
    else:
        generator = restore_generator(experiment, run_directory)
        images = _generated(experiment, generator, experiment.generation.seed)
    with devices.precision("float32"):
        folder, another = run_directory.generation_files, experiment.result.another
        return experiment.generation(images, experiment.data, another, folder, extractors, progress=print)


def export(experiment: Experiment, run_directory: RunDirectory) -> str:
    """Exports the classifier of a finished run as the next version; returns its folder."""
    classifier = restore_classifier(experiment, run_directory)

    def write():
        # Plain variables: the export must not need this run's devices or precision.
        with devices.precision(experiment.export_options.precision):
            exported = classifier.inference_copy()
        return export_classifier(
            exported,
            exported.weights,
            image_shape=experiment.data.image_shape,
            class_names=experiment.data.class_names,
            export_root=str(run_directory.exports),
            check_images=experiment.data.test.take(_CHECKED_EXAMPLES, experiment.configuration.seed).images,
            options=experiment.export_options,
            about=about_export(experiment, run_directory),
            features_fn=exported.features_and_logits,
        )

    directory = experiment.workers.on_chief(write)
    print(f"exported to {directory}")
    return directory


def _accuracies(
    experiment: Experiment, classifier: Classifier, examples: Examples, training_attacker: Attack | None = None
) -> Callable[[], dict]:
    """Returns a function that measures the classifier's accuracy on `examples`, clean and attacked."""
    seed = experiment.configuration.seed_of(build.VALIDATION)
    attacker, batch_size = experiment.validation_attacker, experiment.evaluation.batch_size
    return validation_accuracies(classifier, attacker, examples, batch_size, seed, training_attacker)


def _attack_time(experiment: Experiment, stage: Stage, every: int) -> list[Periodic]:
    if not stage.attacks_apart:
        return []
    data = experiment.data
    return [Periodic(every, AttackTimer(stage, data.image_shape, data.num_classes).measure)]


def _scores(experiment: Experiment, run_directory: RunDirectory) -> Callable[[int], dict]:
    """Returns a function that measures the averaged generator as it is."""
    stage, scores = experiment.cotraining, experiment.generation_scores
    images = _generated(experiment, stage.average_generator, scores.seed)

    def score(step):
        stage.standardize_average_generator()
        return experiment.workers.on_chief(lambda: scores(images, experiment.data, run_directory.generation_files))

    return score


def _generated(experiment: Experiment, generator: keras.Model, seed: int) -> ImageSource:
    step = experiment.cotraining.steps_done
    about = {"generator": "moving average of the weights, standing statistics", "step": step}
    return SampledImages(generator, seed, about)


def _describe(experiment: Experiment, run_directory: RunDirectory, stage: Stage):
    """Writes what the run is, for people, where the stage is not done."""
    if stage.steps_done >= stage.total_steps or not experiment.workers.is_chief:
        return
    manifest = about_run(experiment)
    write_json(run_directory.manifest, manifest)
    if run_directory.config.exists():
        config = run_directory.config.read_text()
        write_run(run_directory.tensorboard, config, bindings(config), manifest, COMPARED, OUTCOMES)
