"""What a batch of fine-tuning is made of: how many real and generated images, and what each of them weighs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from robgan_tf.training.generated import GeneratedImages
from robgan_tf.training.mixing import Mixing
from robgan_tf.training.randomness import mixing_seeds

# Within the 0.3 to 0.8 of the authors' code.
_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class Composition:
    """What a batch over all replicas is made of.

    Attributes:
        real: number of real images.
        generated: number of generated images.
        weight: weight of a generated image's loss, that of a real one being 1 (lambda of eq. 6 and 10).
    """

    real: int
    generated: int
    weight: float

    def part(self, share: float, replicas: int) -> Composition:
        """Returns the composition of so small a share of the batch, with even numbers on each replica, as mixing needs.

        Of images that there are, there stay two on each replica at least.
        """

        def count(images):
            images //= replicas
            return replicas * max(2 * round(images * share / 2), min(images, 2))

        return Composition(count(self.real), count(self.generated), self.weight)


def compose(
    batch_size: int, weight: float | None, share: float | None, has_source: bool, replicas: int, parts: int
) -> Composition:
    """Returns the composition of a batch: doubled, as in Rob-GAN, or with a share of generated images.

    Args:
        batch_size: number of real images, or, with a share, of all images.
        weight: lambda; None for 0.5 with a source of generated images and 0 without.
        share: share of the batch that is generated, in [0, 1], with a loss that weighs all images alike; None for as
            many generated images as real ones on top.
        has_source: whether there are generated images.
        replicas: number of replicas that share a batch.
        parts: number of parts that each computes its share in.

    Raises:
        ValueError: for what contradicts the source, or can't be divided evenly.
    """
    if share is None:
        if weight is None:
            weight = _WEIGHT if has_source else 0.0
        if (weight > 0) != has_source:
            raise ValueError(
                f"FineTuning.fake_weight (lambda) is {weight} and there are {'' if has_source else 'no '}generated "
                f"images: it must be > 0 with and 0 without them. Set Experiment.generated = None for adversarial "
                f"training."
            )
        return Composition(batch_size, batch_size if has_source else 0, weight)
    if share and not has_source:
        raise ValueError(
            f"FineTuning.generated_share = {share:g} and there are no generated images: set Experiment.generated = "
            f"@this_generator or @sample_file, or generated_share = None."
        )
    if weight is not None:
        raise ValueError(
            f"FineTuning.generated_share = {share:g} weighs all images alike, and fake_weight (lambda) is {weight:g}: "
            f"set FineTuning.fake_weight = None."
        )
    generated = round(share * batch_size)
    unit = replicas * parts
    if generated % unit:  # of which the batch is a multiple, see `Stage`
        fitting = unit * round(generated / unit) / batch_size
        raise ValueError(
            f"FineTuning.generated_share = {share:g} makes {generated} generated and {batch_size - generated} real "
            f"images of a batch of {batch_size}, which {replicas} replicas in {parts} parts can't share evenly: "
            f"take a share such as {fitting:g}."
        )
    return Composition(batch_size - generated, generated, 1.0)


def real_and_generated(
    images,
    labels,
    shares: Sequence[int],
    generated: GeneratedImages | None,
    mixing: Mixing | None,
    num_classes: int,
    seed,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns this replica's images and labels, real ones first, as they go to the attack.

    Args:
        images: its real images, float32 [b, H, W, C] in [-1, 1]; those beyond its share are left aside.
        labels: their classes, int32 [b].
        shares: how many real and how many generated images it has.
        generated: where generated images come from, or None.
        mixing: mixes the images of each kind, and their labels, which become probabilities; or None.
        num_classes: K.
        seed: int32 [2], the same on all replicas.
    """
    kinds = [(images[: shares[0]], labels[: shares[0]])]
    if generated is not None:
        kinds.append(generated.sample(seed, shares[1]))
    if mixing is not None:
        seeds = mixing_seeds(seed, len(kinds))
        kinds = [mixing(*kind, seed, num_classes) for kind, seed in zip(kinds, seeds)]
    return kinds[0] if len(kinds) == 1 else tuple(tf.concat(both, axis=0) for both in zip(*kinds))
