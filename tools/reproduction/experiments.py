"""What each table and figure compares: which systems, and what is done with each of their runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from reproduction.systems import SAMPLED, SAMPLED_OF_MORE, SYSTEMS


@dataclasses.dataclass(frozen=True)
class Part:
    """A system's part in an experiment: what is done with each of its runs after training.

    Attributes:
        system: its name.
        before_finetuning: whether the classifier that co-training left is evaluated, too.
        generator: whether the generator's images are measured, by the common extractor.
        grid: whether a picture of generated images is made.
        samples: whether a file of generated images is made, for systems that take theirs from it.
    """

    system: str
    before_finetuning: bool = False
    generator: bool = False
    grid: bool = False
    samples: bool = False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table or a figure.

    Attributes:
        title: its heading.
        parts: what it compares.
        divisible: whether some of the parts can be compared without the others.
    """

    title: str
    parts: tuple[Part, ...]
    divisible: bool = False

    def of(self, systems: Sequence[str]) -> Comparison:
        """Returns the comparison of some systems, by name; of all if there are none.

        Raises:
            ValueError: for a system that is not in it, and where all are needed.
        """
        if not systems:
            return self
        if not self.divisible:
            raise ValueError(
                f"--systems does not go with this experiment, which needs all of its systems: {self.title}."
            )
        there = [part.system for part in self.parts if not part.samples]
        unknown = sorted(set(systems) - set(there))
        if unknown:
            raise ValueError(f"--systems must be among {', '.join(there)}; got {', '.join(unknown)}.")
        wanted = {*systems, *(SYSTEMS[name].samples_of for name in systems)}
        return dataclasses.replace(self, parts=tuple(part for part in self.parts if part.system in wanted))

    @property
    def needs_extractor(self) -> bool:
        """Whether generators are measured."""
        return any(part.generator or SYSTEMS[part.system].scored for part in self.parts)


_FINETUNED = Part("robgan", before_finetuning=True)
# What was learnt of GANs since the paper, in the order of docs/strongest.md.
BETTER_GANS = (
    "robgan_diff_augment",
    "robgan_top_k",
    "robgan_balanced",
    "robgan_better",
    "robgan_truncation",
    "robgan_r1",
    "robgan_wgan_gp",
    "robgan_two_time_scales",
    "robgan_large_batches",
)


def comparison(name: str, data: str, scale: str) -> Comparison:
    """Returns what an experiment compares.

    Fig. 2 is the paper's VGG16 at its scale, and else the common network. A generator that saw more images than the
    classifiers is there where the data have more: of the digits all others are the test images.
    """
    vgg16 = scale == "paper" and data == "cifar10"
    more = data == "cifar10"
    recipes = [name for name, system in SYSTEMS.items() if system.recipe and (more or not system.of_more)]
    makers = (SAMPLED, SAMPLED_OF_MORE) if more else (SAMPLED,)
    return {
        "table1": Comparison("Table 1: accuracy under attack", (Part("adversarial_training"), _FINETUNED)),
        "fig2": Comparison(
            "Fig. 2: adversarial training on training and on test images",
            (Part("adversarial_training_vgg16" if vgg16 else "adversarial_training"),),
        ),
        "fig6": Comparison(
            "Fig. 6: fine-tuning, and the gap between training and test", (Part("adversarial_training"), _FINETUNED)
        ),
        "fig7": Comparison(
            "Fig. 7: images by the split loss and by the AC-GAN loss, both with attack",
            (Part("robgan", generator=True, grid=True), Part("ac_gan_attack", generator=True, grid=True)),
        ),
        "fig8": Comparison(
            "Fig. 8: score of the generator by epoch",
            tuple(map(Part, ("split_attack", "split_no_attack", "ac_gan_attack", "ac_gan_no_attack", "sn_gan"))),
        ),
        "section1": Comparison(
            "Section 1: ResNet-18 without and with generated images",
            (Part("adversarial_training_preact_resnet18"), Part("generated_preact_resnet18")),
        ),
        "strongest": Comparison(
            "What the parts of the recipe of gin/strongest/ are worth, and generated images beside them",
            (*(Part(name, samples=True) for name in makers), *map(Part, recipes)),
            divisible=True,
        ),
        "better_gan": Comparison(
            "What is known of GANs since the paper: what each part does to the generator and to the classifier",
            (
                Part("robgan", generator=True),
                Part("adversarial_training"),
                *(Part(name, generator=True) for name in BETTER_GANS),
            ),
            divisible=True,
        ),
    }[name]


EXPERIMENTS = ("table1", "fig2", "fig6", "fig7", "fig8", "section1", "strongest", "better_gan")
