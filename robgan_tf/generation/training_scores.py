"""Scores of the generator while it trains."""

from __future__ import annotations

import pathlib

import gin

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import ImageData
from robgan_tf.generation.extractors import Extractor
from robgan_tf.generation.image_sources import ImageSource, StoredImages
from robgan_tf.generation.reference import reference_statistics
from robgan_tf.generation.scores import scores
from robgan_tf.generation.statistics import gather
from robgan_tf.run.metrics import Metric, declare
from robgan_tf.values import checked, whole

for _network in ("classifier", "inception"):
    declare(
        Metric(
            f"generator_{_network}_score",
            f"{_network} score",
            "Score of the averaged generator",
            "generator",
            healthy="It rises. The most that is possible is the number of classes of the network that scores.",
        ),
        Metric(
            f"generator_frechet_{_network}_distance",
            f"by {_network} features",
            "Frechet distance of generated from real images",
            "generator",
            healthy="It falls and levels off; 0 would be the distribution of the real images.",
        ),
    )


@gin.configurable
@may_change()
@checked(every=whole(1), samples=whole(1), reference_images=whole(1), batch_size=whole(1), seed=whole(0))
class TrainingScores:
    """Classifier score and Frechet distance of the averaged generator while it trains: Fig. 8 of the paper.

    Args:
        extractor: the network, `@classifier_extractor()` or `@inception()`.
        every: steps of co-training between two measurements.
        samples: number of generated images.
        reference_images: number of real training images to compare with.
        batch_size: images at once.
        seed: of noise, and of the choice of real images.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        extractor: Extractor = gin.REQUIRED,
        every: int = 500,
        samples: int = 2000,
        reference_images: int = 10_000,
        batch_size: int = 250,
        seed: int = 0,
    ):
        self.extractor = extractor
        self.every = every
        self.samples = samples
        self.reference_images = reference_images
        self.batch_size = batch_size
        self.seed = seed

    def check(self, data: ImageData):
        """Raises ValueError where the extractor does not fit the data, or there are too few images for its features."""
        dimension = self.extractor.check(data, self.batch_size, self.seed)
        fewest = min(self.samples, self.reference_images, len(data.train))
        if fewest <= dimension:
            raise ValueError(
                f"TrainingScores needs more images than the extractor's {dimension} features, got {fewest}: raise "
                f"samples and reference_images."
            )

    def __call__(self, images: ImageSource, data: ImageData, folder: pathlib.Path) -> dict:
        """Returns the scores of generated images as metrics. Statistics of the real ones are kept in `folder`."""
        extractor = self.extractor
        train = StoredImages(data.train, self.seed, {"split": "train"})
        count = min(self.reference_images, train.available)

        real = reference_statistics(extractor, train, data, count, 0, 1, self.seed, self.batch_size, folder)
        batches = images.batches(self.samples, self.batch_size)
        generated = gather(extractor, batches, self.samples, data.num_classes, kept=0, splits=1)
        names = extractor.score_names
        found = scores(generated, real, names, data.class_names, nearest=1, few_samples=False)
        return {f"generator_{names[name]}": found[names[name]] for name in ("score", "frechet")}
