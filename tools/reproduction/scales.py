"""How large a reproduction is: the one place to change it. Everything is gin bindings, which are printed and recorded.

`classifier_epochs` is how long a classifier without co-training is trained (gin/baselines/): it is to get as many
updates as Rob-GAN's gets in both stages. With batches of one size in both, that is as many epochs as both together.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scale:
    """A base configuration and its bindings at a scale.

    Attributes:
        file: the base configuration, in gin/.
        scaled: what was scaled, in words, for the report.
        shared: bindings of all systems.
        finetuning: those of systems that fine-tune what co-training left; the others have `classifier_epochs`.
        resnet: those of systems with PreActResNet-18.
        extractor: those of the common extractor, which has to be a good classifier: by a weak one's score, generated
            images can rank above real ones.
        scores: of the scores of a generator while it trains.
        curves: of the measures of a classifier while it trains.
        measures: of the evaluation of a generator.
        samples: how many generated images a file for other systems holds.
        more_images: bindings of generators that see more training images than the classifiers.
        doubled: of batches of co-training twice as large.
    """

    file: str
    scaled: str = "nothing"
    shared: tuple[str, ...] = ()
    finetuning: tuple[str, ...] = ()
    resnet: tuple[str, ...] = ()
    extractor: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    samples: int = 0
    more_images: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()


_PAPER_SCORES = ("TrainingScores.every = 1000", "TrainingScores.samples = 10000")


def _paper(file: str) -> Scale:
    return Scale(
        file,
        scores=_PAPER_SCORES,
        curves=("TrainingCurves.every = 2000", "TrainingCurves.examples = 2000"),
        measures=("GenerationEvaluation.samples = 10000", "GenerationEvaluation.accuracy_training = None"),
    )


# The demo with three times its co-training, 9,000 updates of the discriminator: generated images do not help until they
# are good.
# The paper's attack, as in the published figures, and not what else the demo and the checks try.
_PGD_ALONE = ("RobustnessEvaluation.attacks = [@evaluation/PGD()]", "SanityChecks.counted = False")
_DIGITS = Scale(
    "digits.gin",
    scaled="digits at 16 px, widths 24 and 16, 225 + 50 epochs in batches of 32; the data set is not in the paper",
    shared=("CoTraining.epochs = 225", "classifier_epochs = 275", *_PGD_ALONE),
    finetuning=("FineTuning.epochs = 50",),
    resnet=("PreActResNet18.base_width = 8",),
    scores=("TrainingScores.every = 134", "TrainingScores.samples = 2000"),
    curves=("TrainingCurves.every = 800", "TrainingCurves.examples = 360"),
    measures=("GenerationEvaluation.samples = 2000", "GenerationEvaluation.accuracy_training = None"),
    doubled=("CoTraining.batch_size = 64",),
)
_DIGITS_SMOKE = dataclasses.replace(
    _DIGITS,
    scaled="all of it, to see that the commands go through: the numbers mean nothing",
    shared=(
        "Generator.base_width = 4",
        "Discriminator.base_width = 4",
        "CoTraining.epochs = 1",
        "classifier_epochs = 2",
        "Experiment.validate_every = 20",
        "RobustnessEvaluation.epsilons = (0.0, 0.1, 0.2)",
        "RobustnessEvaluation.test_examples = 40",
        "RobustnessEvaluation.checks = None",
        "evaluation/Attacker.steps = 5",
        *_PGD_ALONE,
    ),
    finetuning=("FineTuning.epochs = 1",),
    resnet=("PreActResNet18.base_width = 4",),
    scores=("TrainingScores.every = 5", "TrainingScores.samples = 100", "TrainingScores.reference_images = 200"),
    curves=("TrainingCurves.every = 20", "TrainingCurves.examples = 40"),
    measures=(
        "GenerationEvaluation.samples = 100",
        "GenerationEvaluation.subset = 50",
        "GenerationEvaluation.similarity_images = 50",
        "GenerationEvaluation.accuracy_training = None",
    ),
)

# gin/cifar10_cpu.gin takes an hour; this takes a Rob-GAN some ten minutes on one core. At 32 px that would be a width
# of 8, with which adversarial training stays at 19 % and the generator gets worse from the 300th step on.
_CIFAR10_CPU = Scale(
    "cifar10_cpu.gin",
    scaled="images to 16 px (padding of random crops to 1), training images to 9,000, widths to 24 and 16, 43 + 11 "
    "epochs in batches of 64 instead of 200 + 60, two discriminator updates for each of the generator, evaluation of "
    "2,000 images of either split; rates of 1e-3 and, in fine-tuning, 2e-3",
    shared=(
        'include "gin/networks/16px.gin"',
        "tfds_images.image_size = 16",
        "pad_and_crop.padding = 1",
        'tfds_images.train_split = "train[:20%]"',
        "Generator.base_width = 24",
        "Discriminator.base_width = 16",
        "CoTraining.epochs = 43",
        "CoTraining.discriminator_steps = 2",
        "cotraining/linear.initial = 1e-3",
        "classifier_epochs = 54",
        "scratch_rate = 1e-3",
        "Experiment.validate_every = 500",
        "RobustnessEvaluation.test_examples = 2000",
    ),
    finetuning=("FineTuning.epochs = 11",),
    resnet=("PreActResNet18.base_width = 8",),
    extractor=("Discriminator.base_width = 32", "classifier_epochs = 20"),
    scores=("TrainingScores.every = 150", "TrainingScores.samples = 2000"),
    curves=("TrainingCurves.every = 750", "TrainingCurves.examples = 500"),
    measures=("GenerationEvaluation.samples = 5000", "GenerationEvaluation.accuracy_training = None"),
    doubled=("CoTraining.batch_size = 128",),
)
_CIFAR10_SMOKE = dataclasses.replace(
    _CIFAR10_CPU,
    scaled=_DIGITS_SMOKE.scaled,
    shared=(
        "Generator.base_width = 4",
        "Discriminator.base_width = 4",
        "CoTraining.epochs = 0.02",
        "cotraining/linear.initial = 1e-3",
        "classifier_epochs = 0.03",
        "Experiment.validate_every = 10",
        "RobustnessEvaluation.epsilons = (0.0, 0.02, 0.04)",
        "RobustnessEvaluation.test_examples = 40",
        "RobustnessEvaluation.checks = None",
        "evaluation/Attacker.steps = 5",
    ),
    finetuning=("FineTuning.epochs = 0.01",),
    resnet=("PreActResNet18.base_width = 4",),
    extractor=(),
    scores=("TrainingScores.every = 2", "TrainingScores.samples = 100", "TrainingScores.reference_images = 200"),
    curves=("TrainingCurves.every = 10", "TrainingCurves.examples = 40"),
    measures=_DIGITS_SMOKE.measures,
)

# Few training images, so that there is a gap between them and test images, which is what generated images are to close.
# As many updates of co-training and fine-tuning as the demo's and `cpu`'s.
_DIGITS_FEW = dataclasses.replace(
    _DIGITS,
    scaled="digits at 16 px, which are a toy, 500 of them to train on and 1,147 to test; widths 24 and 16, 193 + 50 "
    "epochs in batches of 32, epsilon .2",
    shared=(
        "digits.train_examples = 650",
        "CoTraining.epochs = 193",
        "classifier_epochs = 243",
        "Experiment.validate_every = 200",
        "RobustnessEvaluation.epsilons = (0.0, 0.1, 0.2)",
        "RobustnessEvaluation.checks = None",
    ),
)
_CIFAR10_FEW = dataclasses.replace(
    _CIFAR10_CPU,
    scaled="images to 16 px (padding of random crops to 1), training images to 2,000, widths to 24 and 16, 193 + 50 "
    "epochs in batches of 64 instead of 200 + 60, two discriminator updates for each of the generator, evaluation of "
    "2,000 images of either split; rates of 1e-3 and, in fine-tuning, 2e-3",
    shared=(
        *_CIFAR10_CPU.shared,
        'tfds_images.train_split = "train[:6%]"',
        "CoTraining.epochs = 193",
        "classifier_epochs = 243",
        "RobustnessEvaluation.epsilons = (0.0, 0.02, 0.04)",
        "RobustnessEvaluation.checks = None",
    ),
    finetuning=("FineTuning.epochs = 50",),
)

SCALES = {
    "paper": {
        "cifar10": _paper("cifar10.gin"),
        "imagenet64": _paper("imagenet64.gin"),
        "imagenet128": _paper("imagenet128.gin"),
    },
    "cpu": {"digits": _DIGITS, "cifar10": _CIFAR10_CPU},
    "few": {"digits": _DIGITS_FEW, "cifar10": _CIFAR10_FEW},
    "smoke": {"digits": _DIGITS_SMOKE, "cifar10": _CIFAR10_SMOKE},
}
# Of `strongest`: few training images here, too.
_STRONGEST = Scale(
    "digits.gin",
    scaled="digits at 16 px, which are a toy, 500 of them to train on and 1,147 to test; a WRN-10-1, epsilon .2, 40 "
    "epochs in batches of 32; the generator of the demo, 193 epochs",
    shared=(
        "digits.train_examples = 650",
        "CoTraining.epochs = 193",
        "FineTuning.epochs = 40",
        "Experiment.validate_every = 75",
        "RobustnessEvaluation.epsilons = (0.0, 0.2)",
        "RobustnessEvaluation.checks = None",
    ),
    samples=5000,
)
_STRONGEST_SMOKE = dataclasses.replace(
    _STRONGEST,
    scaled=_DIGITS_SMOKE.scaled,
    shared=(
        "Generator.base_width = 4",
        "Discriminator.base_width = 4",
        "digits.train_examples = 250",
        "CoTraining.epochs = 1",
        "FineTuning.epochs = 2",
        "Experiment.validate_every = 5",
        "RobustnessEvaluation.epsilons = (0.0, 0.1)",
        "RobustnessEvaluation.test_examples = 20",
        "RobustnessEvaluation.checks = None",
        *_PGD_ALONE,
    ),
    samples=100,
)
# gin/strongest/cifar10_cpu.gin at 16 px. Its generators have the steps of `few`, whatever the number of their images.
_STRONGEST_CIFAR10 = Scale(
    "cifar10_cpu.gin",
    scaled="CIFAR-10 at 16 px, 2,000 of the training images, or all but those of the validation for one generator; a "
    "PreActResNet-18 of width 16, epsilon .04, 30 epochs in batches of 64; generators of widths 24 and 16 with 4,000 "
    "discriminator updates; evaluation of 2,000 images of either split",
    shared=(
        *_CIFAR10_CPU.shared,
        'tfds_images.train_split = "train[:6%]"',
        "LInf.epsilon = 0.04",
        "CoTraining.epochs = 128",
        "FineTuning.epochs = 30",
        "Experiment.validate_every = 150",
        "RobustnessEvaluation.epsilons = (0.0, 0.04)",
        "RobustnessEvaluation.checks = None",
        # As on the digits: behind PGD-20 an attack towards the three likeliest wrong classes.
        "RobustnessEvaluation.attacks = [@evaluation/PGD(), @likeliest/AutoPGD()]",
        "likeliest/AutoPGD.threat_model = %evaluation_ball",
        "likeliest/AutoPGD.steps = 20",
        "likeliest/AutoPGD.loss = @targeted_margin_loss",
        "likeliest/AutoPGD.targets = 3",
    ),
    samples=20000,
    more_images=('tfds_images.train_split = "train"', "CoTraining.epochs = 5.224"),
)
STRONGEST = {"cpu": {"digits": _STRONGEST, "cifar10": _STRONGEST_CIFAR10}, "smoke": {"digits": _STRONGEST_SMOKE}}
DATA = ("digits", "cifar10", "imagenet64", "imagenet128")


def sizes(experiment: str) -> dict[str, dict[str, Scale]]:
    """Returns what an experiment is there for: by scale and data set."""
    if experiment == "strongest":
        return STRONGEST
    # Its bindings, such as rates, are made for these.
    return {name: SCALES[name] for name in ("few", "smoke")} if experiment == "better_gan" else SCALES


def find(experiment: str, scale: str, data: str) -> Scale:
    """Returns the scale of a data set in an experiment.

    Raises:
        ValueError: where there is none.
    """
    there = sizes(experiment)
    found = there.get(scale, {}).get(data)
    if found is None:
        scales = [name for name, sets in there.items() if data in sets]
        sets = sorted({one for of in there.values() for one in of})
        advice = f"is there at --scale={' or '.join(scales)}" if scales else f"is not there, but {' and '.join(sets)}"
        raise ValueError(
            f"There is no --scale={scale} of --data={data} for --experiment={experiment}: {data} {advice}."
        )
    return found
