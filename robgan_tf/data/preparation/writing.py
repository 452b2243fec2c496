"""Writes images of a source as TFRecords of small square JPEGs, and the manifest that describes them.

What is written is a function of the source's listing and the settings alone: byte for byte the same whatever the number
of processes, and however often it was interrupted. `robgan_tf.data.sources.dataset_manifest` describes the result.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import fcntl
import functools
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import PIL

from robgan_tf.data.files import clear_unfinished, write_json, written_aside
from robgan_tf.data.names import some
from robgan_tf.data.preparation.classes import readable_names, select_classes
from robgan_tf.data.preparation.shards import PROGRESS, Finished, Part, progress_bar, write_parts
from robgan_tf.data.preparation.sources import Source
from robgan_tf.data.sources import dataset_manifest as _manifest
from robgan_tf.data.sources import pillow_images
from robgan_tf.data.sources.class_folders import TEST, TRAIN
from robgan_tf.data.sources.dataset_manifest import SPLITS, DatasetManifest, Split

# No TensorFlow here: every worker process imports this file again.

IMAGENET_143 = "151:293"
VALIDATION = SPLITS[1]
LEAST_SHARDS, SHARD_BYTES = 16, 96 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the content of the records, together with the source.

    Attributes:
        image_size: side of the written images, in pixels.
        classes: selection, see `classes.select_classes`.
        class_names: file of readable names, see `classes.readable_names`; None keeps the source's.
        min_side: images with a smaller side are left out, in pixels.
        quality: of the JPEGs, 1..100.
        filter: of resizing, a name of `pillow_images.Filter`, in lower case.
        validation_per_class: how many training images of each class become the validation split, counted before those
            that are too small or corrupt are left out.
        shards: of the training split; 0 for a number that gives files of 96 MiB, and 16 at least. The other splits have
            shards of about the same size.
        seed: of the order and of the choice of validation images.
    """

    image_size: int = 64
    classes: str = IMAGENET_143
    class_names: str | None = None
    min_side: int = 256
    quality: int = 95
    filter: str = "lanczos"
    validation_per_class: int = 10
    shards: int = 0
    seed: int = 0


def prepare(
    source: Source,
    out: str | os.PathLike,
    settings: Settings,
    processes: int | None = None,
    max_corrupt_share: float = 0.001,
) -> DatasetManifest:
    """Writes the records of `source` to the folder `out`; goes on with what is there of the same preparation.

    Args:
        source: the images.
        out: the folder, made if there is none.
        settings: what decides the content.
        processes: how many decode; None is one for each core.
        max_corrupt_share: largest share of images that may be left out because they can't be decoded.

    Returns:
        The manifest, written when all shards were.

    Raises:
        ValueError: if source and settings don't fit, `out` holds anything else or too little space is left, or too many
            images are corrupt.
        OSError: if a file can't be read or written.
    """
    out = pathlib.Path(out).expanduser().resolve()
    classes = select_classes(settings.classes, source.classes)
    names = readable_names(settings.class_names, classes) if settings.class_names else classes
    recipe = {
        "source": source.name,
        "listing": {split: dataclasses.asdict(source.listing(split, classes)) for split in (TRAIN, TEST)},
        **dataclasses.asdict(settings),
        "classes": classes,
        "class_names": names,
        "smallest_side": pillow_images.SMALLEST_SIDE,
        "chroma": "4:4:4",
        "unchanged": "JPEGs in RGB of image_size x image_size, upright by their EXIF data, keep their bytes",
        "pillow": PIL.__version__,
    }
    if (out / _manifest.FILE_NAME).exists():
        return _finished(out, recipe)
    progress = out / PROGRESS
    begun = progress / "settings.json"
    if begun.exists():
        try:
            before = json.loads(begun.read_text())
        except ValueError as error:
            raise ValueError(f"{begun} is damaged; remove {out} and start anew") from error
        _check_same(before, recipe, out)
    parts = _plan(source, classes, settings)
    _check_content(out, parts)
    _check_space(out, parts, settings)
    try:
        progress.mkdir(parents=True, exist_ok=True)
        lock = open(progress / "lock", "w")
    except OSError as error:
        raise ValueError(f"--out={out} can't be written ({error.strerror}); choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is writing to {out} at this moment; wait for it or stop it") from error
        encode = functools.partial(
            pillow_images.square_jpeg,
            size=settings.image_size,
            min_side=settings.min_side,
            quality=settings.quality,
            filter=pillow_images.Filter[settings.filter.upper()],
        )
        try:
            clear_unfinished(progress)
            write_json(begun, recipe)
            finished = write_parts(out, parts, encode, processes or os.cpu_count(), max_corrupt_share)
            manifest = _manifest_of(parts, finished, recipe)
            with written_aside(out / _manifest.FILE_NAME, folder=progress) as partial:
                partial.write_text(manifest.to_json(), encoding="utf-8")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(f"no space is left for {out}; make room, and the same command goes on") from error
        shutil.rmtree(progress)
    return manifest


# ---- what is written where


def _plan(source: Source, classes: list[str], settings: Settings) -> list[Part]:
    """All shards, in the order of writing."""
    train, test = (source.images(split, classes, progress_bar) for split in (TRAIN, TEST))
    # A stream of random numbers for each split, so that a changed validation part leaves the test shards alone.
    train, test = (
        [images[i] for i in np.random.default_rng([settings.seed, stream]).permutation(len(images))]
        for stream, images in enumerate((train, test))
    )
    counts = collections.Counter(image.label for image in train)
    short = [name for label, name in enumerate(classes) if counts[label] <= settings.validation_per_class]
    if short:
        raise ValueError(
            f"--validation_per_class={settings.validation_per_class} leaves nothing to train on of {some(short)} "
            f"(the smallest class has {min(counts.values())} images); give a smaller number"
        )
    taken, splits = collections.Counter(), {split: [] for split in SPLITS}
    for image in train:
        taken[image.label] += 1
        splits[VALIDATION if taken[image.label] <= settings.validation_per_class else TRAIN].append(image)
    splits[TEST] = test
    expected = _expected_bytes(len(splits[TRAIN]), settings)
    train_shards = settings.shards or max(LEAST_SHARDS, round(expected / SHARD_BYTES))
    per_shard = len(splits[TRAIN]) / train_shards
    parts = []
    for split, images in splits.items():
        shards = min(train_shards if split == TRAIN else max(1, round(len(images) / per_shard)), len(images))
        for number in range(shards):
            first, last = (len(images) * n // shards for n in (number, number + 1))
            name = f"{split}-{number:05d}-of-{shards:05d}.tfrecord"
            parts.append(Part(name, split, images[first:last]))
    return parts


def _expected_bytes(count: int, settings: Settings) -> int:
    """A generous estimate for `count` records: bytes per pixel as of photographs at 64 px, larger ones need fewer."""
    return round(count * (800 + settings.image_size**2 * 12 / (108 - settings.quality)))


def _check_content(out: pathlib.Path, parts: list[Part]) -> None:
    """Refuses a folder that holds anything but a part of this preparation."""
    if not out.is_dir():
        return
    begun = (out / PROGRESS / "settings.json").exists()
    foreign = {entry.name for entry in out.iterdir()} - {PROGRESS, *(part.name for part in parts if begun)}
    if foreign:
        raise ValueError(f"--out={out} holds {some(foreign)}, which is not of this preparation; choose an empty folder")


def _check_space(out: pathlib.Path, parts: list[Part], settings: Settings) -> None:
    missing = sum(len(part.images) for part in parts if not (out / part.name).exists())
    needed = _expected_bytes(missing, settings) / 2**30
    folder = next(folder for folder in (out, *out.parents) if folder.exists())
    free = shutil.disk_usage(folder).free / 2**30
    print(f"{missing} images, about {needed:.2g} GiB to write; {free:.3g} GiB are free in {folder}", flush=True)
    if needed > free:
        raise ValueError(f"{out} needs about {needed:.2g} GiB, and {free:.2g} GiB are free; make room")


def _check_same(before: dict, now: dict, out: pathlib.Path) -> None:
    differences = _differences(before, now)
    if differences:
        raise ValueError(
            f"{out} was prepared from something else: {'; '.join(differences)}; give the same source and settings, or "
            "another --out"
        )


def _differences(before: dict, now: dict, of: str = "") -> list[str]:
    """A phrase for each entry that differs."""
    phrases = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            phrases += _differences(old, value, f"{of}{key}.")[:1]  # of a listing: number, bytes, checksum
        elif isinstance(value, list) and isinstance(old, list) and value != old:
            position, pair = next(
                (i, pair) for i, pair in enumerate(itertools.zip_longest(old, value)) if pair[0] != pair[1]
            )
            phrases.append(f"{of}{key}[{position}] was {pair[0]} and is now {pair[1]}")
        elif value != old:
            phrases.append(f"{of}{key} was {old} and is now {value}")
    return phrases


def _finished(out: pathlib.Path, recipe: dict) -> DatasetManifest:
    """The manifest of a folder that is finished, if it was made from the same."""
    manifest = DatasetManifest.read(out)
    # A newer Pillow is no reason to make the records anew.
    before = {**manifest.settings, "class_names": list(manifest.class_names), "pillow": recipe["pillow"]}
    _check_same(before, recipe, out)
    damaged = manifest.damaged_shards(out, checksums=False)
    if damaged:
        raise ValueError(f"{out} is finished but damaged: {some(damaged)}; prepare it anew, into another folder")
    shutil.rmtree(out / PROGRESS, ignore_errors=True)  # left by a stop between the manifest and this
    print(f"{out} is finished already")
    return manifest


def _manifest_of(parts: list[Part], finished: list[Finished], recipe: dict) -> DatasetManifest:
    names, splits, sources = recipe["class_names"], {}, {}
    for split in SPLITS:
        known = [one for part, one in zip(parts, finished) if part.split == split]
        if not known:
            continue
        records = [record for one in known for record in one.records]
        counts = np.bincount([label for _, label, _ in records], minlength=len(names)).tolist()
        unusable = [name for name, count in zip(recipe["classes"], counts) if not count]
        if unusable and split != VALIDATION:
            raise ValueError(f"no image of {some(unusable)} in {split} can be used; add some or leave the class out")
        splits[split] = Split(
            tuple(one.shard for one in known),
            tuple(counts),
            sum(one.too_small for one in known),
            tuple(name for one in known for name in one.corrupt),
        )
        sources[split] = {sha256: name for name, _, sha256 in sorted(records, reverse=True)}
    duplicates = sorted(
        (sources[first][sha256], sources[second][sha256])
        for first, second in itertools.combinations(sources, 2)
        for sha256 in sources[first].keys() & sources[second].keys()
    )
    settings = {key: value for key, value in recipe.items() if key != "class_names"}
    return DatasetManifest(recipe["image_size"], tuple(names), splits, settings, tuple(duplicates))


def verify(out: str) -> str:
    """Compares a finished folder with its manifest, checksums included; returns a line that says so.

    Raises:
        ValueError: if it is not finished, or a shard is missing or damaged.
    """
    manifest = DatasetManifest.read(out)
    damaged = manifest.damaged_shards(out, checksums=True)
    if damaged:
        raise ValueError(f"{out} is damaged: {'; '.join(damaged)}; prepare it anew, into another folder")
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    return f"{out}: {len(shards)} shards with {sum(shard.examples for shard in shards)} images are as the manifest says"
