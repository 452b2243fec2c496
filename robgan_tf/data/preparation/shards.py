"""Writes TFRecords of encoded images: worker processes encode, this one writes, and a stop costs one shard.

A shard is written aside, renamed, and noted in a file of its own in the folder `PROGRESS`. What is noted and has the
noted checksum need not be written again.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator

import tqdm

from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.files import write_text, written_aside
from robgan_tf.data.names import shown, some
from robgan_tf.data.preparation.sources import Image
from robgan_tf.data.sources import dataset_manifest
from robgan_tf.data.sources.dataset_manifest import Shard

PROGRESS = ".progress"
_CHUNK = 32  # images that a worker takes at once

# Bytes of a source image -> JPEG, or None for one that is not wanted; ValueError for one that can't be decoded.
Encoder = Callable[[bytes], "bytes | None"]


@dataclasses.dataclass(frozen=True)
class Part:
    """The source images of one shard, in the order they are written.

    Attributes:
        name: of the file.
        split: of `dataset_manifest.SPLITS`.
        images: each becomes a record, unless it is too small or corrupt.
    """

    name: str
    split: str
    images: list[Image]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What is known of a shard that was written.

    Attributes:
        shard: its entry in the manifest.
        too_small: number of images left out for their size.
        corrupt: images left out because they can't be decoded, "name (reason)".
        records: name, label and SHA-256 of the source's bytes of each record.
    """

    shard: Shard
    too_small: int
    corrupt: list[str]
    records: list[tuple[str, int, str]]

    @classmethod
    def read(cls, out: pathlib.Path, part: Part) -> Finished | None:
        """Reads what was noted of `part`; None where it is not finished, or not the same any more."""
        try:
            noted = json.loads(_note(out, part).read_text())
            shard = Shard(**noted.pop("shard"))
            records = [tuple(record) for record in noted.pop("records")]
            path = out / part.name
            whole = path.stat().st_size == shard.bytes and file_checksum(path) == shard.sha256
            return cls(shard, records=records, **noted) if whole else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def write_parts(
    out: pathlib.Path, parts: list[Part], encode: Encoder, processes: int, max_corrupt_share: float
) -> list[Finished]:
    """Writes the shards that are not there yet.

    Args:
        out: folder of the shards; holds the folder PROGRESS.
        parts: all shards, written in this order.
        encode: makes a JPEG of an image; goes to worker processes, so it must be possible to pickle it.
        processes: how many encode; 1 does without another process.
        max_corrupt_share: largest share of all images that may be left out because they can't be decoded.

    Returns:
        What is known of each shard, in the order of `parts`.

    Raises:
        ValueError: if too many images are corrupt, or one changed in the meantime.
        OSError: if a file can't be read or written.
        BrokenProcessPool: if a worker process was killed.
    """
    finished = {part.name: known for part in parts if (known := Finished.read(out, part))}
    remaining = [part for part in parts if part.name not in finished]
    total, left = (sum(len(part.images) for part in some_parts) for some_parts in (parts, remaining))
    if finished:
        print(f"{len(finished)} of {len(parts)} shards are there already", flush=True)

    def check_corrupt():
        corrupt = [name for known in finished.values() for name in known.corrupt]
        if len(corrupt) > max_corrupt_share * total:
            raise ValueError(
                f"{len(corrupt)} images (of {total}) can't be decoded, over --max_corrupt_share={max_corrupt_share:g}: "
                f"{some(corrupt)}; mend or remove them and start with an empty --out, or raise the share"
            )

    check_corrupt()
    with progress_bar(total, "images", total - left) as bar, _workers(processes) as workers:
        results = _encoded(workers, 8 * processes, [part.images for part in remaining], encode)
        for part in remaining:
            finished[part.name] = _write_part(out, part, results, bar)
            check_corrupt()
    return [finished[part.name] for part in parts]


def progress_bar(total: int, description: str, initial: int = 0) -> tqdm.tqdm:
    """Makes a bar with rate and time left, on the standard error; `initial` images were done before."""
    interval = 0.2 if sys.stderr.isatty() else 30  # for a log file a line every half minute is enough
    return tqdm.tqdm(
        total=total, desc=description, initial=initial, unit=" images", mininterval=interval, maxinterval=interval
    )


def _note(out: pathlib.Path, part: Part) -> pathlib.Path:
    return out / PROGRESS / f"{part.name}.json"


def _write_part(out: pathlib.Path, part: Part, results: Iterator, bar: tqdm.tqdm) -> Finished:
    """Writes one shard of the next results, and notes it."""
    import tensorflow as tf  # here: worker processes import this module, and need no TensorFlow

    def bytes_feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def int64_feature(value):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    records, corrupt, too_small = [], [], 0
    try:
        with written_aside(out / part.name, folder=out / PROGRESS) as partial:
            with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
                for image in part.images:
                    jpeg, sha256, reason = next(results)
                    bar.update()
                    if reason:
                        corrupt.append(f"{shown(image.name)} ({reason})")
                    elif jpeg is None:
                        too_small += 1
                    else:
                        features = {
                            dataset_manifest.ENCODED: bytes_feature(jpeg),
                            dataset_manifest.LABEL: int64_feature(image.label),
                            dataset_manifest.SOURCE_NAME: bytes_feature(os.fsencode(image.name)),
                        }
                        example = tf.train.Example(features=tf.train.Features(feature=features))
                        writer.write(example.SerializeToString(deterministic=True))
                        records.append((image.name, image.label, sha256))
            shard = Shard(part.name, len(records), partial.stat().st_size, file_checksum(partial))
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        raise OSError(errno.ENOSPC if full else errno.EIO, error.message, str(out / part.name)) from error
    finished = Finished(shard, too_small, corrupt, records)
    write_text(_note(out, part), json.dumps(dataclasses.asdict(finished)))
    return finished


# ---- encoding, in worker processes


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[concurrent.futures.Executor | None]:
    """Worker processes, ended in any case; None for one process."""
    if processes == 1:
        yield None
        return
    # Not multiprocessing.Pool: it hangs when a worker is killed for lack of memory, and takes in all jobs at once.
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads, as TensorFlow has, may hang
    executor = concurrent.futures.ProcessPoolExecutor(processes, spawn, initializer=_start_worker)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    # Workers wait at a pipe that they hold open for each other: after a kill -9 of their parent they would for ever.
    threading.Thread(target=end_with_parent, daemon=True).start()


def _encoded(
    workers: concurrent.futures.Executor | None, window: int, images: Iterable[list[Image]], encode: Encoder
) -> Iterator[tuple[bytes | None, str, str | None]]:
    """The results of `_encode_chunk`, image by image, in order; up to `window` chunks are on their way."""
    chunks = (
        [(image.path, image.offset, image.size) for image in part[start : start + _CHUNK]]
        for part in images
        for start in range(0, len(part), _CHUNK)
    )
    if workers is None:
        yield from itertools.chain.from_iterable(_encode_chunk(chunk, encode) for chunk in chunks)
        return
    pending = collections.deque()
    for chunk in chunks:
        pending.append(workers.submit(_encode_chunk, chunk, encode))
        if len(pending) >= window:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _encode_chunk(images: list[tuple[str, int, int]], encode: Encoder) -> list[tuple[bytes | None, str, str | None]]:
    """JPEG, SHA-256 of the source's bytes, and why it can't be decoded, for each (path, offset, size)."""
    results = []
    for path, offset, size in images:
        with open(path, "rb") as file:
            file.seek(offset)
            encoded = file.read(size)
        if len(encoded) != size:
            raise ValueError(f"{path} was changed in the meantime; start anew")
        jpeg = reason = None
        try:
            with warnings.catch_warnings():  # of Pillow, about metadata; the pixels are what counts
                warnings.simplefilter("ignore")
                jpeg = encode(encoded)
        except ValueError as error:
            reason = str(error)
        results.append((jpeg, hashlib.sha256(encoded).hexdigest(), reason))
    return results
