"""Networks by whose features generated images are measured: TF-GAN's Inception, or a classifier of one's own.

A distance between features says nothing without the network that made them. So each extractor carries a name and the
checksum of its files, and only scores of the standard Inception are called by the names of the literature.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import ImageData
from robgan_tf.data.names import first_line
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.paths import export_versions, user_path
from robgan_tf.players.attacker import inputs
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.serving.loading import load_saved_model

# The network that TF-GAN measures with, the side of the images it takes, and the outputs that count.
INCEPTION = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
INCEPTION_SIZE = 299
_LOGITS, _POOL = "logits", "pool_3"
INCEPTION_VARIABLE = "ROBGAN_INCEPTION"


class ExtractorUnavailableError(ValueError):
    """A network that is not on this machine and can't be fetched."""


class Extractor:
    """A network for features and logits of images.

    Args:
        network: images float32 [B, H, W, C] in [-1, 1] -> features [B, D] and logits [B, K], in inference mode.
        name: what reports call it.
        checksum: SHA-256 of its files, in hexadecimal digits.
        image_shape: (H, W, C) of the images that it takes; None for any.
        standard: whether it is the Inception that the literature's scores are made with.
    """

    def __init__(
        self,
        network: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        name: str,
        checksum: str,
        image_shape: Sequence[int] | None = None,
        standard: bool = False,
    ):
        self.name = name
        self.checksum = checksum
        self.image_shape = None if image_shape is None else tuple(int(size) for size in image_shape)
        self.standard = standard
        self._network = network
        self._run = tf.function(lambda images: network(to_pixel_range(images)), reduce_retracing=True, autograph=False)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns features float32 [B, D] and logits float32 [B, K] of images uint8 [B, H, W, C]."""
        features, logits = self._run(tf.convert_to_tensor(images))
        return features.numpy(), logits.numpy()

    @property
    def score_names(self) -> dict[str, str]:
        """The names that `score`, `frechet` and `kernel` have with this network."""
        word = "inception" if self.standard else "classifier"
        return {
            "score": f"{word}_score",
            "frechet": f"frechet_{word}_distance",
            "kernel": f"kernel_{word}_distance",
        }

    def check(self, data: ImageData, batch_size: int, seed: int) -> int:
        """Returns D, the number of features; raises ValueError where the network does not fit the images of `data`.

        That is: another size, answers that are not finite, or, of a classifier of the same classes, answers that are
        far better on another scale of pixels.
        """
        if self.image_shape not in (None, data.image_shape):
            raise ValueError(
                f"The extractor {self.name} takes images of {self.image_shape}, {data.name} has {data.image_shape}: "
                f"use a classifier that was trained on images of this size."
            )
        examples = data.test.take(256, seed)
        if not len(examples):
            raise ValueError(f"The test split of {data.name} is empty: there is nothing to check the extractor on.")
        try:
            features, logits = self(examples.images)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"The extractor {self.name} does not take images of {data.name}, {data.image_shape} "
                f"({first_line(error)})."
            ) from error
        if features.ndim != 2 or logits.ndim != 2:
            raise ValueError(
                f"The extractor {self.name} must give features [N, D] and logits [N, K]; got shapes "
                f"{list(features.shape)} and {list(logits.shape)}."
            )
        if not (np.isfinite(features).all() and np.isfinite(logits).all()):
            raise ValueError(f"The extractor {self.name} gives features or logits that are not finite on {data.name}.")
        if logits.shape[1] == data.num_classes and not self.standard:
            try:
                inputs.check_answers(AttackedClassifier(lambda x: self._network(x)[1], None, batch_size), examples)
            except ValueError as error:
                raise ValueError(f"The extractor {self.name}: {error}") from error
        return features.shape[1]


@gin.configurable
def inception(directory: str | None = None) -> Extractor:
    """Makes the extractor of Inception score, FID and KID as TF-GAN has them: features are `pool_3`.

    Images are resized to 299 px, bilinearly, and gray ones repeated in three channels.

    Args:
        directory: folder of a SavedModel that maps images float32 [N, 299, 299, 3] in [-1, 1] to a dictionary with
            `logits` and `pool_3`. None for what the environment variable ROBGAN_INCEPTION names, and without that for
            TF-Hub's.

    Raises:
        ExtractorUnavailableError: where TF-Hub is needed and can't be reached.
        ValueError: for a folder that holds no such model.
    """
    directory = directory or os.environ.get(INCEPTION_VARIABLE) or None
    directory = directory and user_path(directory, "inception.directory")
    name = f"Inception in {directory}"
    if directory is None:
        directory, name = _from_hub(), f"Inception, {INCEPTION}"
    loaded = load_saved_model(directory)
    function = loaded if callable(loaded) else loaded.signatures.get("serving_default")

    def network(images):
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)
        images = tf.image.resize(images, [INCEPTION_SIZE, INCEPTION_SIZE])
        outputs = function(images)
        return tf.reshape(outputs[_POOL], [tf.shape(images)[0], outputs[_POOL].shape[-1]]), outputs[_LOGITS]

    try:
        outputs = function(tf.zeros([1, INCEPTION_SIZE, INCEPTION_SIZE, 3]))
        found = sorted(outputs)
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The SavedModel in {directory} does not take float images [N, {INCEPTION_SIZE}, {INCEPTION_SIZE}, 3]: "
            f"inception.directory must hold {INCEPTION}. ({first_line(error)})"
        ) from error
    if not {_LOGITS, _POOL} <= set(found):
        raise ValueError(
            f"The SavedModel in {directory} has the outputs {', '.join(map(str, found))}; inception.directory must "
            f"hold {INCEPTION}, with {_LOGITS} and {_POOL}."
        )
    extractor = Extractor(network, name, checksum(directory), standard=True)
    extractor.loaded = loaded  # its variables live as long as it does
    return extractor


@gin.configurable
def classifier_extractor(directory: str = gin.REQUIRED) -> Extractor:
    """Makes an extractor of an exported classifier: features are what its last layer is given.

    Args:
        directory: folder of an export of this project, such as `runs/digits/export/1`, or of a run, whose newest export
            is taken.

    Raises:
        ValueError: for a folder without an export, or an export without the function `features`.
    """
    directory = user_path(directory, "classifier_extractor.directory")
    versions = export_versions(pathlib.Path(directory, "export"))
    if versions:
        directory = str(versions[-1])
    loaded = load_saved_model(directory)
    if not callable(getattr(loaded, "features", None)):
        raise ValueError(
            f"The SavedModel in {directory} has no function `features`: export the run anew (python -m "
            f"robgan_tf.export), or take the export of another classifier."
        )

    def network(images):
        outputs = loaded.features(images)
        return outputs["features"], outputs["logits"]

    return Extractor(network, f"classifier in {directory}", checksum(directory), loaded.image_shape().numpy())


def checksum(directory: str | os.PathLike) -> str:
    """Returns the SHA-256 of the graph and the weights of a SavedModel: of names and contents of the files."""
    digest = hashlib.sha256()
    folder = pathlib.Path(directory)
    for path in sorted([folder / "saved_model.pb", *folder.glob("variables/*")]):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _from_hub() -> str:
    """Returns the folder that TF-Hub has put the standard Inception in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pkg_resources, which setuptools will drop
        import tensorflow_hub as hub
    try:
        return hub.resolve(INCEPTION)
    except Exception as error:  # of urllib, ssl, tarfile, and TensorFlow's own
        raise ExtractorUnavailableError(
            f"{INCEPTION} can't be fetched ({first_line(error)}): download it elsewhere, unpack it, and give its "
            f"folder in the environment variable {INCEPTION_VARIABLE} or as inception.directory."
        ) from error
