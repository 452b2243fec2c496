"""The shapes of a generator and a discriminator, and how much arithmetic they take; needs no framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

BOTTOM = 4  # side of the generator's first feature map


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The shapes of both networks.

    Attributes:
        side: of the images.
        channels: of the images.
        num_classes: number of classes.
        latent_dim: length of the noise.
        bottom: width of the generator's first feature map.
        generator: for each block its width, and whether it doubles the sides.
        discriminator: for each block its width, and whether it halves the sides.
    """

    side: int
    channels: int
    num_classes: int
    latent_dim: int
    bottom: int
    generator: tuple[tuple[int, bool], ...]
    discriminator: tuple[tuple[int, bool], ...]

    @classmethod
    def of(cls, generator, discriminator) -> Shapes:
        """Returns the shapes of this project's players."""
        return cls(
            BOTTOM * 2 ** sum(block.upsample for block in generator.blocks),
            generator.to_image.filters,
            generator.num_classes,
            generator.latent_dim,
            generator.bottom_width,
            tuple((block.filters, block.upsample) for block in generator.blocks),
            tuple((block.filters, block.downsample) for block in discriminator.blocks),
        )


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Floating-point operations of convolutions and matrix products, two for each multiply-add, of the plain algorithm.

    Plain: as the layers are described, whatever form an implementation chooses. So all are measured by the same.

    Attributes:
        shapes: of the networks.
        batch: images in a micro-batch.
        attack_steps: steps of the attack in training.
        discriminator_steps: discriminator updates in a training step.
        evaluation_steps: steps of the evaluation's PGD.
    """

    shapes: Shapes
    batch: int
    attack_steps: int
    discriminator_steps: int
    evaluation_steps: int

    def parts(self) -> dict[str, float]:
        """Returns the operations of each part of the training, and of the evaluation."""
        # A gradient with respect to a layer's inputs takes as much as the layer, and so does one to its weights.
        judge, judge_image_layers = self._sums(discriminator_layers(self.shapes))
        generate, generate_first = self._sums(generator_layers(self.shapes))
        attack = 2 * self.attack_steps * judge
        discriminator_update = generate + 2 * (3 * judge - judge_image_layers)
        generator_update = 3 * generate - generate_first + 2 * judge
        iteration = generator_update + self.discriminator_steps * (attack + discriminator_update)
        evaluation = (2 * self.evaluation_steps + 1) * judge
        return {
            "attack": attack,
            "discriminator update": discriminator_update,
            "generator update": generator_update,
            "iteration": iteration,
            "evaluation": evaluation,
        }

    def _sums(self, layers) -> tuple[float, float]:
        """Operations of a forward pass, and of those of its layers that work on the network's input."""
        layers = list(layers)
        return self.batch * sum(count for count, _ in layers), self.batch * sum(
            count for count, first in layers if first
        )


def generator_layers(shapes: Shapes) -> Iterator[tuple[float, bool]]:
    """Yields the operations of each layer for one image, and whether its input is the network's."""
    yield 2 * shapes.latent_dim * BOTTOM**2 * shapes.bottom, True
    side, width = BOTTOM, shapes.bottom
    for filters, upsample in shapes.generator:
        if upsample or filters != width:
            yield 2 * side**2 * width * filters, False  # before the up-sampling, with which it commutes
        side *= 2 if upsample else 1
        yield 2 * 9 * side**2 * width * filters, False
        yield 2 * 9 * side**2 * filters * filters, False
        width = filters
    yield 2 * 9 * side**2 * width * shapes.channels, False


def discriminator_layers(shapes: Shapes) -> Iterator[tuple[float, bool]]:
    """Yields the operations of each layer for one image, and whether its input is the image."""
    side, width = shapes.side, shapes.channels
    for index, (filters, downsample) in enumerate(shapes.discriminator):
        first = index == 0
        hidden = filters if first else width
        yield 2 * 9 * side**2 * width * hidden, first
        yield 2 * 9 * side**2 * hidden * filters, False
        shortcut = first or downsample or filters != width
        side //= 2 if downsample else 1
        if shortcut:
            yield 2 * side**2 * width * filters, first  # after the pooling, with which it commutes
        width = filters
    yield 2 * width * (1 + shapes.num_classes), False
