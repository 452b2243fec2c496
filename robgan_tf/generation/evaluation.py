"""Measures of a generator: how good, how varied and how useful its images are. What `generation.json` holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Callable

import gin
import numpy as np

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import ImageData
from robgan_tf.data.names import first_line
from robgan_tf.generation.classifier_training import ClassifierTraining, classification_accuracy
from robgan_tf.generation.extractors import (
    Extractor,
    ExtractorUnavailableError,
    classifier_extractor,
    inception,
)
from robgan_tf.generation.image_sources import ImageSource, StoredImages
from robgan_tf.generation.reference import fingerprint, reference_statistics
from robgan_tf.generation.scores import scores
from robgan_tf.generation.similarity import scales, within_class_similarity
from robgan_tf.generation.statistics import FeatureStatistics, gather
from robgan_tf.paths import export_versions, user_path
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.run.provenance import provenance
from robgan_tf.serving.saved_model import export_classifier
from robgan_tf.values import checked, optional, switch, whole

Progress = Callable[[str], None]


@gin.configurable
@may_change()
@checked(
    samples=whole(1),
    reference_images=optional(whole(1)),
    subset=whole(1),
    nearest=whole(1),
    splits=whole(1),
    batch_size=whole(1),
    seed=whole(0),
    similarity_images=whole(0),
    few_samples=switch(),
)
class GenerationEvaluation:
    """Scores of generated images by one extractor or several, against real training images.

    The same scores of real test images stand beside them: what a perfect generator would get.

    Args:
        samples: number of generated images.
        reference_images: number of real training images; None for all.
        subset: of this many of either the features are kept, for kernel distance, precision, recall and diversity.
        nearest: k of precision and recall.
        splits: parts for the standard deviation of the classifier score.
        batch_size: images at once.
        seed: of noise, and of the choice and order of images.
        inception: makes the extractor of the standard scores, which are left out, with a note, where it can't be had;
            None to leave them out.
        extractors: others, such as `[@classifier_extractor()]`. Where there are none, one is trained on the training
            images, once for a run.
        extractor_training: how that one is trained.
        accuracy_training: how the classifiers are trained that give the classification accuracy score; None to
            leave it out.
        similarity_images: number of images of which MS-SSIM within classes is taken; 0 to leave it out.
        few_samples: whether to give Frechet distances of fewer images than there are features, too.
        cache: folder for statistics of real images; None for the run's own.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        samples: int = 10_000,
        reference_images: int | None = None,
        subset: int = 5000,
        nearest: int = 3,
        splits: int = 10,
        batch_size: int = 250,
        seed: int = 0,
        inception: Callable[[], Extractor] | None = inception,
        extractors: Sequence[Extractor] = (),
        extractor_training: Callable[[], ClassifierTraining] = ClassifierTraining,
        accuracy_training: Callable[[], ClassifierTraining] | None = ClassifierTraining,
        similarity_images: int = 2000,
        few_samples: bool = False,
        cache: str | None = None,
    ):
        if subset <= nearest or samples <= nearest:
            raise ValueError(
                f"GenerationEvaluation.samples = {samples} and subset = {subset} must be more than nearest = {nearest}."
            )
        if reference_images is not None and reference_images <= nearest:
            raise ValueError(
                f"GenerationEvaluation.reference_images must be more than nearest = {nearest}, got {reference_images}."
            )
        if not all(isinstance(extractor, Extractor) for extractor in extractors):
            raise ValueError(
                f"GenerationEvaluation.extractors must be such as [@classifier_extractor()], got {extractors!r}."
            )
        self.samples = samples
        self.reference_images = reference_images
        self.subset = subset
        self.nearest = nearest
        self.splits = splits
        self.batch_size = batch_size
        self.seed = seed
        self.inception = inception
        self.extractors = tuple(extractors)
        self.extractor_training = extractor_training()
        self.accuracy_training = None if accuracy_training is None else accuracy_training()
        self.similarity_images = similarity_images
        self.few_samples = few_samples
        self.cache = cache and user_path(cache, "GenerationEvaluation.cache")

    def __call__(
        self,
        images: ImageSource,
        data: ImageData,
        new_classifier: Callable[[], Classifier],
        folder: pathlib.Path,
        extractors: Sequence[Extractor] = (),
        progress: Progress = lambda line: None,
    ) -> dict:
        """Measures generated images.

        Args:
            images: the generated images, or those of a file.
            data: the real ones.
            new_classifier: makes an untrained classifier of the data's images.
            folder: where statistics of real images are kept, and the classifier that is trained to make features.
            extractors: instead of those of the constructor.
            progress: is called with a line of text now and then.

        Returns:
            What `generation.json` holds.

        Raises:
            ValueError: for extractors or a number of images that won't do.
        """
        start = time.monotonic()
        samples = self.samples
        if images.available is not None and images.available < samples:
            raise ValueError(
                f"There are {images.available} images, and GenerationEvaluation.samples is {samples}: set it to "
                f"{images.available}, or make more images."
            )
        extractors, notes = self._extractors(extractors, data, new_classifier, folder, progress)
        train = StoredImages(data.train, self.seed, {"split": "train"})
        test = StoredImages(data.test, self.seed, {"split": "test"})
        reference_images = min(self.reference_images or train.available, train.available)
        for extractor in extractors:  # before any of the work
            self._check(extractor, data, reference_images)
        blocks = []
        for extractor in extractors:
            progress(f"extractor: {extractor.name}")
            real = self._real(extractor, train, data, reference_images, folder, progress)
            held_out = self._real(extractor, test, data, min(test.available, samples), folder, progress)
            generated = self._gather(extractor, images, samples, data, progress)
            block = {
                "extractor": extractor.name,
                "checksum": extractor.checksum,
                "features": generated.dimension,
                "generated": self._scores(generated, real, extractor, data),
                "real_test": self._scores(held_out, real, extractor, data),
                "real_train": {"images": real.count, extractor.score_names["score"]: float(real.score[0])},
            }
            blocks.append(block)
            for name in ("generated", "real_test"):
                shown = {key: value for key, value in block[name].items() if type(value) is float}
                progress(f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in shown.items())}")
        report = {
            "dataset": data.name,
            "class_names": list(data.class_names),
            "image_shape": list(data.image_shape),
            "generated": {**images.about, "images": samples, "pixels": "rounded to uint8, as when saved"},
            "reference": {"split": "train", "images": reference_images},
            "extractors": blocks,
            "similarity": self._similarity(images, train, data),
            "classification_accuracy": self.accuracy_training
            and classification_accuracy(
                self.accuracy_training, images, train, data, new_classifier, self.batch_size, progress
            ),
            "notes": notes,
            "subset": self.subset,
            "nearest": self.nearest,
            "splits": self.splits,
            "seed": self.seed,
            "batch_size": self.batch_size,
            **provenance(),
        }
        report["wall_seconds"] = round(time.monotonic() - start, 1)
        return report

    def _extractors(self, given, data, new_classifier, folder, progress) -> tuple[list[Extractor], list[str]]:
        """The extractors to measure by, and what there is to say of those that can't be had."""
        found, notes = [], []
        if self.inception is not None:
            try:
                found.append(self.inception())
            except ExtractorUnavailableError as error:
                notes.append(f"No Inception score, FID and KID: {first_line(error)}")
                progress(notes[-1])
        given = list(given) or list(self.extractors)
        if not given:
            directory = self._trained(data, new_classifier, folder / "classifier", progress)
            given = [classifier_extractor(directory)]
        return [*found, *given], notes

    def _trained(self, data, new_classifier, folder, progress) -> str:
        """Trains a classifier on the real images, where there is none yet, and returns the folder of its export.

        It is kept by what it is trained with and on: another length or other data make another classifier.
        """
        made_from = {
            **dataclasses.asdict(self.extractor_training),
            "dataset": data.name,
            "images": fingerprint(data.train),
        }
        folder = folder / hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
        versions = export_versions(folder)
        if versions:
            return str(versions[-1])
        progress(f"no extractor is given: a classifier is trained on {data.name}, and kept in {folder}")
        images = StoredImages(data.train, self.seed, {})
        classifier = self.extractor_training(new_classifier, images, progress).inference_copy()
        if classifier.features_and_logits is None:
            raise ValueError(
                f"{type(classifier).__name__} has no features: give GenerationEvaluation.extractors another classifier."
            )
        return export_classifier(
            lambda images: classifier(images, training=False),
            classifier.weights,
            image_shape=data.image_shape,
            class_names=data.class_names,
            export_root=str(folder),
            check_images=data.test.take(16, self.seed).images,
            features_fn=classifier.features_and_logits,
        )

    def _check(self, extractor: Extractor, data: ImageData, reference_images: int):
        dimension = extractor.check(data, self.batch_size, self.seed)
        fewest = min(self.samples, reference_images)
        if fewest <= dimension and not self.few_samples:
            raise ValueError(
                f"A Frechet distance by {extractor.name} needs more images than its {dimension} features, "
                f"better ten times as many; there are {fewest}. Raise GenerationEvaluation.samples or "
                f"reference_images, or set GenerationEvaluation.few_samples = True: such values compare only "
                f"with those of as many images."
            )

    def _gather(self, extractor, images, count, data, progress) -> FeatureStatistics:
        batches = images.batches(count, self.batch_size)
        return gather(extractor, batches, count, data.num_classes, self.subset, self.splits, self.seed, progress)

    def _real(self, extractor, images, data, count, folder, progress) -> FeatureStatistics:
        """Statistics of `count` images of a split, kept for the next time."""
        cache = pathlib.Path(self.cache) if self.cache else folder
        settings = self.subset, self.splits, self.seed, self.batch_size
        return reference_statistics(extractor, images, data, count, *settings, cache, progress)

    def _scores(self, measured, real, extractor, data) -> dict:
        return scores(measured, real, extractor.score_names, data.class_names, self.nearest, self.few_samples)

    def _similarity(self, images: ImageSource, train: ImageSource, data: ImageData) -> dict | None:
        """MS-SSIM of pairs of images of a class, of generated and of real images; None where it is left out."""
        found = {}
        for name, source in (("generated", images), ("real", train)):
            count = min(self.similarity_images, source.available or self.similarity_images)
            batches = source.batches(count, min(self.batch_size, max(count, 1)))
            values = within_class_similarity(batches, data.num_classes) if count else None
            if values is None:
                return None
            found[name] = float(np.nanmean(values)) if np.isfinite(values).any() else None
            found[f"{name}_by_class"] = [None if np.isnan(value) else float(value) for value in values]
        return {
            "measure": "MS-SSIM of pairs within a class",
            "scales": scales(min(data.image_shape[:2])),
            "images": self.similarity_images,
            **found,
        }
