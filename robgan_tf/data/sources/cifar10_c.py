"""CIFAR-10-C, the corrupted test images of Hendrycks & Dietterich (ICLR 2019), as tensorflow-datasets prepares it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from robgan_tf.data.datasets import Examples
from robgan_tf.data.description import whereabouts
from robgan_tf.data.expected import MissingDataError
from robgan_tf.data.sources.digits import is_prepared
from robgan_tf.paths import user_path

# Its name in tensorflow-datasets, and the 15 corruptions over which the benchmark's figures are means, as named there.
NAME = "cifar10_corrupted"
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "frosted_glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
# The images of all configurations come in one archive.
_SIZE = "2.7 GiB"


class CIFAR10C:
    """The prepared configurations, each read when it is asked for.

    Args:
        data_dir: TFDS folder; None is ~/tensorflow_datasets.
        corruptions: names of those that will be read.

    Attributes:
        version: of the data set, such as "cifar10_corrupted/1.0.0".

    Raises:
        ValueError: for an unknown corruption; `MissingDataError` where a configuration is not prepared.
    """

    def __init__(self, data_dir: str | None = None, corruptions: Sequence[str] = CORRUPTIONS):
        known = sorted({name.rsplit("_", 1)[0] for name in tfds.builder_cls(NAME).builder_configs})
        if not corruptions or not set(corruptions) <= set(known):
            raise ValueError(
                f"cifar10_c_accuracy.corruptions must be some of {', '.join(known)}, got {list(corruptions)}."
            )
        folder = data_dir and user_path(data_dir, "cifar10_c_accuracy.data_dir")
        self._builders = {
            (corruption, severity): tfds.builder(f"{NAME}/{corruption}_{severity}", data_dir=folder)
            for corruption in corruptions
            for severity in SEVERITIES
        }
        missing = [builder for builder in self._builders.values() if not is_prepared(builder)]
        if missing:
            where = pathlib.Path(missing[0].data_dir_root)
            raise MissingDataError(
                f"CIFAR-10-C: {len(missing)} of {len(self._builders)} configurations are not prepared in "
                f"{whereabouts(where)}, the first is {NAME}/{missing[0].builder_config.name}: run `tfds build {NAME} "
                f"--data_dir={where}` (it downloads {_SIZE}), or set cifar10_c_accuracy.data_dir to where they are."
            )
        builder = next(iter(self._builders.values()))
        self.version = f"{builder.name}/{builder.version}"

    def read(self, corruption: str, severity: int, examples: int | None = None) -> Examples:
        """Returns the test images at a severity of 1 to 5, uint8 [N, 32, 32, 3], and their labels.

        Args:
            corruption: one of those that were named.
            severity: 1 to 5.
            examples: the first so many, of 10,000; None for all.
        """
        split = "test" if examples is None else f"test[:{examples}]"
        dataset = self._builders[corruption, severity].as_dataset(split=split, shuffle_files=False, batch_size=1000)
        batches = [(batch["image"], batch["label"]) for batch in tfds.as_numpy(dataset)]
        images, labels = (np.concatenate(part) for part in zip(*batches))
        return Examples(images, labels.astype(np.int32))
