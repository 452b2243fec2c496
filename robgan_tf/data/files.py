"""Writing files so that they are never seen half-written: aside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

# What a killed process may leave where it wrote: files, the folders of checkpoints that come or go. (Older versions
# named files like folders.)
_UNFINISHED = (".*.partial.*", ".*.partial", ".*.removed")


@contextlib.contextmanager
def written_aside(path: str | os.PathLike, folder: str | os.PathLike | None = None) -> Iterator[pathlib.Path]:
    """A context for writing a file, which takes its name once it is whole; after an error there is nothing new.

    Folders on the way are made. The name to write to is hidden, of this process alone, and has the same ending, by
    which some writers choose the format.

    Args:
        path: the file.
        folder: where it is written at first, on the same file system; beside `path` if None.

    Yields:
        The name to write to.
    """
    path = pathlib.Path(path)
    partial = pathlib.Path(folder or path.parent) / f".{os.getpid()}.partial.{path.name}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str):
    """Writes a text file in UTF-8, see `written_aside`."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: dict):
    """Writes `content` as JSON, see `written_aside`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def flush(path: str | os.PathLike):
    """Has the system write a file or a folder's entries to the disk, so that a power cut does not lose them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_unfinished(folder: str | os.PathLike):
    """Removes what killed processes left half-written below `folder`. To be called by the owner of the folder alone."""
    for pattern in _UNFINISHED:
        for path in pathlib.Path(folder).rglob(pattern):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
