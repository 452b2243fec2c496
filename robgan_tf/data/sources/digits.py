"""Handwritten digits that need no network: a data set to try the whole project on in minutes."""

from __future__ import annotations

import contextlib
import fcntl
import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds

_CITATION = """@misc{alpaydin1998digits,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title = {Optical Recognition of Handwritten Digits},
  howpublished = {UCI Machine Learning Repository},
  year = {1998},
  doi = {10.24432/C50P49}
}"""
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits that come with scikit-learn, as a TFDS data set named `digits`.

    They are the test part of the UCI set (Alpaydin and Kaynak, 1998): 8x8 pixels in 17 levels of grey, white on black,
    stored here as uint8 [8, 8, 1] scaled from 0..16 to 0..255. The set has no official split, so 20 % (360 images) are
    set aside as test, stratified by class with a fixed seed. As scikit-learn no longer tells who wrote which digit, the
    same writers occur in both splits: test accuracy says more about images than about new writers.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        # Built directly rather than by dataset_info_from_configs, which wants README and CITATIONS files beside the
        # module: those would have to be packaged too.
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,797 handwritten digits, 8x8 grey, from scikit-learn's load_digits.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # here: needed once, and slow to import
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        images = np.round(images.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).astype(np.uint8)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED
        )
        return {
            "train": self._generate_examples(images, labels, train),
            "test": self._generate_examples(images, labels, test),
        }

    def _generate_examples(self, images, labels, indices):
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether a builder's data can be read. Unlike TFDS's own method, warns of nothing where there is no folder."""
    return builder.data_path.exists() and builder.is_prepared()


@contextlib.contextmanager
def preparing(folder):
    """Within it, no other process prepares data in `folder`: TFDS removes what another one has half-written there."""
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".preparing.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepared_digits(data_dir: str | None = None) -> Digits:
    """The `Digits` builder, prepared on disk; the first call writes about 0.5 MB, later calls only look.

    Several processes may start at once: one writes, the others wait for it.

    Args:
        data_dir: TFDS folder; None is TFDS's default, ~/tensorflow_datasets.

    Returns:
        A builder whose splits can be read.

    Raises:
        ValueError: if the folder can't be written.
    """
    builder = Digits(data_dir=data_dir)
    if is_prepared(builder):
        return builder
    tfds.disable_progress_bar()
    try:
        with preparing(builder.data_dir_root):
            builder = Digits(data_dir=data_dir)
            # Another process may have been faster. TFDS announces even a quarter second of work in bold.
            if not is_prepared(builder):
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare(
                        download_config=tfds.download.DownloadConfig(try_download_gcs=False, compute_stats="skip")
                    )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"digits: can't prepare the data in {builder.data_dir} ({reason}); give a writable data_dir."
        ) from error
    return builder
