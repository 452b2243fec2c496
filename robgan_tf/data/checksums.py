"""Checksums of files, and of what is in folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable


def file_checksum(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def listing_checksum(files: Iterable[tuple[str, int]]) -> str:
    """Returns the checksum of some files' names and sizes in bytes, in any order: what they hold is not read."""
    lines = (os.fsencode(name) + f"\0{size}\n".encode() for name, size in sorted(files))
    return hashlib.sha256(b"".join(lines)).hexdigest()
