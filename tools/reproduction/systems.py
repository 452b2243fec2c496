"""What is trained.

A system is a base configuration (of data and scale, see scales.py), modifiers of gin/baselines/ and bindings. Systems
that experiments share are trained once.
"""

from __future__ import annotations

import dataclasses

# The classifier by whose features all generators are measured.
EXTRACTOR = "standard_training"
# The co-trainings whose generators make the images that the systems of `strongest` take from a file: on the training
# images of the classifiers, and on more of them.
SAMPLED = "sampled_generator"
SAMPLED_OF_MORE = "sampled_generator_of_more"


@dataclasses.dataclass(frozen=True)
class System:
    """A system that is trained.

    Attributes:
        title: what tables and plots call it.
        modifiers: names of files in gin/baselines/, applied in order behind the base configuration.
        bindings: gin bindings of its own.
        stages: the stages of `robgan_tf.train` that are wanted; none for all.
        from_nothing: whether fine-tuning starts from a network of its own, for which the modifier sets the length.
        resnet: whether its classifier is PreActResNet-18.
        scored: whether the generator is scored while it trains.
        watched: whether accuracy and LLV are measured while the classifier trains.
        recipe: whether it is based on the configuration of gin/strongest/ instead of the one in gin/.
        samples_of: the system whose generator, with the same seed, made its generated images, which it takes from a
            file; none if not given.
        sees_more: whether it is trained on more images than the others, by bindings of the scale.
        doubled: whether batches of co-training are twice as large, by bindings of the scale.
    """

    title: str
    modifiers: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    from_nothing: bool = False
    resnet: bool = False
    scored: bool = False
    watched: bool = False
    recipe: bool = False
    samples_of: str | None = None
    sees_more: bool = False
    doubled: bool = False

    @property
    def of_more(self) -> bool:
        """Whether its generated images are of the generator that saw more images."""
        return self.samples_of == SAMPLED_OF_MORE


def _scored(title: str, *modifiers: str) -> System:
    """Co-training alone, with scores of its generator."""
    return System(title, modifiers, ("Experiment.finetuning = None",), ("cotrain",), scored=True)


def _sampled(title: str, sees_more: bool = False) -> System:
    """Co-training alone, for a file of generated images."""
    return System(title, (), ("Experiment.finetuning = None",), ("cotrain",), sees_more=sees_more)


def _recipe(title: str, *bindings: str, samples_of: str | None = SAMPLED) -> System:
    """The recipe of gin/strongest/ with `bindings`; generated images are of a file, or there are none."""
    without = ("Experiment.generator = None", "Experiment.cotraining = None")
    source = "@sample_file" if samples_of else "None"
    bindings = (*without, f"Experiment.generated = {source}", *bindings)
    stages = ("finetune", "evaluate")
    return System(title, (), bindings, stages, recipe=True, samples_of=samples_of)


_REAL_ALONE = "FineTuning.generated_share = None"
_PLAIN = (
    _REAL_ALONE,
    "FineTuning.objective = @adversarial()",
    "FineTuning.label_smoothing = 0.0",
    "FineTuning.average_decay = 0.0",
)
_ADAM = (
    "FineTuning.optimizer = @finetuning/Adam",
    "FineTuning.schedule = @finetuning/linear",
    "finetuning/linear.initial = %scratch_rate",
)
# DiffAugment as its authors ran it on CIFAR-10.
_COLOURS_STAY = ("diff_augment.color = False",)


SYSTEMS = {
    "robgan": System("Rob-GAN with fine-tuning"),
    "adversarial_training": System("adversarial training", ("adversarial_training",), from_nothing=True, watched=True),
    "adversarial_training_vgg16": System(
        "adversarial training, VGG16", ("adversarial_training_vgg16",), from_nothing=True, watched=True
    ),
    "adversarial_training_preact_resnet18": System(
        "PreActResNet-18, real images", ("adversarial_training_preact_resnet18",), from_nothing=True, resnet=True
    ),
    "generated_preact_resnet18": System(
        "PreActResNet-18, real and generated images", ("generated_preact_resnet18",), from_nothing=True, resnet=True
    ),
    EXTRACTOR: System("standard training", ("standard_training",), stages=("finetune", "export"), from_nothing=True),
    "split_attack": _scored("split loss, attack (Rob-GAN)"),
    "split_no_attack": _scored("split loss, no attack", "standard_gan"),
    "ac_gan_attack": _scored("AC-GAN loss, attack", "ac_gan_attack"),
    "ac_gan_no_attack": _scored("AC-GAN loss, no attack", "standard_gan_ac_gan"),
    "sn_gan": _scored("SN-GAN", "sn_gan"),
    "robgan_diff_augment": System("DiffAugment", (), ("CoTraining.augmentation = @diff_augment()", *_COLOURS_STAY)),
    "robgan_balanced": System(
        "balanced classes", (), ("CoTraining.balanced_labels = True", "this_generator.balanced_labels = True")
    ),
    "robgan_top_k": System(
        "top-k", (), ("CoTraining.top_k = @top_k()", "top_k.decay = 0.99", "top_k.least_share = 0.5")
    ),
    "robgan_better": System(
        "all three: gin/strongest/better_gan.gin",
        (),
        ('include "gin/strongest/better_gan.gin"', "this_generator.balanced_labels = True"),
    ),
    "robgan_two_time_scales": System(
        "two time scales: a quarter of the rate for the generator",
        (),
        ("CoTraining.generator_schedule = @generator/linear", "generator/linear.initial = 2.5e-4"),
    ),
    "robgan_truncation": System("truncation at 1.5, in fine-tuning", (), ("this_generator.truncation = 1.5",)),
    "robgan_r1": System("R1 penalty", (), ("CoTraining.penalty = @r1()", "r1.gamma = 10.0")),
    "robgan_wgan_gp": System(
        "WGAN-GP, all weights 1",
        (),
        (
            "split.weights = @as_paper()",
            "split.source_loss = @wasserstein",
            "split.generator_source_loss = @hinge_generator",
            "CoTraining.penalty = @wgan_gp()",
        ),
    ),
    "robgan_large_batches": System("batches twice as large, half as many steps", doubled=True),
    SAMPLED: _sampled("co-training of the generator"),
    SAMPLED_OF_MORE: _sampled("co-training of a generator on more images", sees_more=True),
    "recipe": _recipe("the recipe, half of the images generated"),
    "recipe_share_0": _recipe("the recipe, no generated images", _REAL_ALONE, samples_of=None),
    "recipe_plain": _recipe("plain adversarial training, Adam, no generated images", *_PLAIN, *_ADAM, samples_of=None),
    "recipe_plain_with_sgd": _recipe(
        "plain adversarial training, SGD as in the recipe, no generated images", *_PLAIN, samples_of=None
    ),
    "recipe_share_0_with_adam": _recipe(
        "the recipe with Adam, no generated images", _REAL_ALONE, *_ADAM, samples_of=None
    ),
    "recipe_share_100": _recipe("the recipe, generated images alone", "FineTuning.generated_share = 1.0"),
    "recipe_share_75": _recipe("the recipe, three quarters generated", "FineTuning.generated_share = 0.75"),
    "recipe_without_trades": _recipe("without TRADES (plain loss)", "FineTuning.objective = @adversarial()"),
    "recipe_without_average": _recipe("without the average of the weights", "FineTuning.average_decay = 0.0"),
    "recipe_without_smoothing": _recipe("without label smoothing", "FineTuning.label_smoothing = 0.0"),
    "recipe_share_25": _recipe("the recipe, a quarter generated", "FineTuning.generated_share = 0.25"),
    "recipe_without_one_cycle": _recipe(
        "with a rate that falls in a line, not of one cycle",
        "FineTuning.schedule = @finetuning/linear",
        "finetuning/linear.initial = 0.05",  # the peak of the cycle
    ),
    "recipe_with_awp": _recipe(
        "with adversarial weight perturbation", "FineTuning.weight_perturbation = @awp()", "awp.gamma = 0.005"
    ),
    "recipe_with_cutmix": _recipe(
        "with CutMix of half of the images", "FineTuning.mixing = @cutmix()", "cutmix.probability = 0.5"
    ),
    "recipe_of_more": _recipe(
        "the recipe, half generated, by a generator that saw more images", samples_of=SAMPLED_OF_MORE
    ),
    "recipe_of_more_share_100": _recipe(
        "the recipe, generated images of that generator alone",
        "FineTuning.generated_share = 1.0",
        samples_of=SAMPLED_OF_MORE,
    ),
}
