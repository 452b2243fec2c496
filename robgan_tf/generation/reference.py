"""Statistics of the features of real images, kept on the disk, and refused where they are of something else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import zipfile
from typing import TYPE_CHECKING, Callable

import numpy as np

from robgan_tf.data.datasets import ImageData, TrainingSplit
from robgan_tf.data.files import written_aside
from robgan_tf.generation.image_sources import StoredImages
from robgan_tf.generation.statistics import FeatureStatistics, gather

if TYPE_CHECKING:
    from robgan_tf.generation.extractors import Extractor

# Images by which data sets of the same name are told apart.
_FINGERPRINTED = 64


def reference_statistics(
    extractor: Extractor,
    images: StoredImages,
    data: ImageData,
    count: int,
    kept: int,
    splits: int,
    seed: int,
    batch_size: int,
    folder: pathlib.Path | None,
    progress: Callable[[str], None] = lambda line: None,
) -> FeatureStatistics:
    """Returns the statistics of `count` images of a split of `data`, see `gather`; kept in `folder` for the next time.

    Raises:
        ValueError: where the file there was made from something else, or can't be read.
    """
    key = {
        "dataset": data.name,
        "split": images.about["split"],
        "image_size": data.image_shape[0],
        "count": count,
        "kept": kept,
        "seed": seed,
        "extractor": extractor.checksum,
        "splits": splits,
        "available": images.available,
        "images": fingerprint(images.split),
    }

    def make():
        batches = images.batches(count, batch_size)
        return gather(extractor, batches, count, data.num_classes, kept, splits, seed, progress)

    return cached(folder, key, make)


def cached(folder: pathlib.Path | None, key: dict, make: Callable[[], FeatureStatistics]) -> FeatureStatistics:
    """Returns the statistics of real images that `key` describes: from `folder`, or made and written there.

    Args:
        folder: where the files are; None to make them each time.
        key: JSON values by name: `dataset`, `split`, `image_size`, `count`, `kept`, `seed`, `extractor` (its checksum)
            and whatever else they depend on. Those named are in the file's name; all of it is in the file.
        make: makes them.

    Raises:
        ValueError: where the file of this name was made from something else, or can't be read.
    """
    if folder is None:
        return make()
    words = [str(key[name]) for name in ("dataset", "split", "image_size", "count", "kept", "seed")] + [
        key["extractor"][:12]
    ]
    path = pathlib.Path(folder) / (re.sub(r"[^\w.-]+", "_", "_".join(words)) + ".npz")
    if path.exists():
        return _read(path, key)
    statistics = make()
    with written_aside(path) as partial:
        np.savez(partial, key=json.dumps(key), **dataclasses.asdict(statistics))
    return statistics


def _read(path: pathlib.Path, key: dict) -> FeatureStatistics:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = json.loads(str(file["key"]))
            arrays = {field.name: file[field.name] for field in dataclasses.fields(FeatureStatistics)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no statistics of features: delete it. ({error})") from error
    differences = [
        f"{name} is {found.get(name)!r} there and {key.get(name)!r} here"
        for name in {**found, **key}
        if found.get(name) != key.get(name)
    ]
    if differences:
        raise ValueError(
            f"{path} was made from something else: {'; '.join(differences)}. Delete it, or give another folder "
            f"(GenerationEvaluation.cache)."
        )
    return FeatureStatistics(**{**arrays, "count": int(arrays["count"]), "right": float(arrays["right"])})


def fingerprint(split: TrainingSplit) -> str:
    """Returns a short checksum of some images of a split and their labels: data of equal names may differ."""
    few = split.take(_FINGERPRINTED, 0)
    return hashlib.sha256(few.images.tobytes() + few.labels.tobytes()).hexdigest()[:16]
