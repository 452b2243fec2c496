"""Paths that a user gives: what they mean, and which are refused, in a line and before anything is written.

No TensorFlow here.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys

# TensorFlow takes these for a pattern where it reads checkpoints and SavedModels, so what was written under such a name
# is not found again.
_PATTERN = re.compile(r"[*?\[\]\\]")
# Bytes, on every usual file system and in Linux; what a run makes in its folder needs some of the latter.
_LONGEST_NAME = 255
_LONGEST_PATH = 4096 - 256


def user_path(text: str, name: str) -> str:
    """Returns a path where TensorFlow reads or writes, as `local_path` does.

    Raises:
        ValueError: as `local_path`, for a name that TensorFlow takes for a pattern, and for one that is not UTF-8.
    """
    path = local_path(text, name)
    text = os.fspath(text)
    if not path.isascii():
        try:
            os.fsencode(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}={text!r} is not text in UTF-8, which TensorFlow needs: rename it.") from error
        if sys.getfilesystemencoding() != "utf-8":
            raise ValueError(
                f"{name}={ascii(text)}: in this locale only plain letters may be in a path; set LC_ALL=C.UTF-8, or "
                "PYTHONUTF8=1."
            )
    found = _PATTERN.search(text)
    if found:
        raise ValueError(
            f"{name}={text}: TensorFlow takes {found[0]} for a pattern and would not find what it wrote; choose a path "
            "without * ? [ ] and \\."
        )
    return path


def local_path(text: str, name: str) -> str:
    """Returns a path that a user gave, with `~` expanded.

    Args:
        text: the path.
        name: the flag or binding that it was given for, for messages.

    Raises:
        ValueError: for the address of a remote place, and a name that no file system takes.
    """
    if not isinstance(text, (str, os.PathLike)):
        raise ValueError(f'{name} is a path in quotes, such as "data/images"; got {text!r}.')
    text = os.fspath(text)
    if not text.strip():
        raise ValueError(f"{name} is empty: give the path of a file or folder.")
    if re.match(r"\w+://", text):
        raise ValueError(
            f"{name}={text}: only paths of this machine are read and written; mount the place (for example with "
            "gcsfuse, s3fs or NFS) and give the path of the mount, or copy the files."
        )
    if "\0" in text:
        raise ValueError(f"{name}: a path holds no NUL character, got {text!r}.")
    long = [part for part in pathlib.PurePath(text).parts if len(os.fsencode(part)) > _LONGEST_NAME]
    if long:
        raise ValueError(
            f"{name}: a name in a path has at most {_LONGEST_NAME} bytes; {long[0][:20]}... has "
            f"{len(os.fsencode(long[0]))}."
        )
    size = len(os.fsencode(os.path.abspath(text)))
    if size > _LONGEST_PATH:
        raise ValueError(f"{name}: a path has at most {_LONGEST_PATH} bytes; {text[:20]}... has {size} from the root.")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(f"{name}={text}: there is no user {path.split(os.sep)[0][1:]!r} on this machine.")
    return path


def folder_to_write(text: str, name: str) -> str:
    """Returns the path of a folder that is there or can be made; it is not made.

    Raises:
        ValueError: as `user_path`, where a file is in its place, and where this process may not write.
    """
    path = user_path(text, name)
    here = pathlib.Path(path).absolute()
    while not os.path.lexists(here):
        here = here.parent
    if not here.is_dir():
        what = "is a file, no folder" if here.exists() else "is a link that leads nowhere"
        raise ValueError(f"{name}={text}: {here} {what}; choose another path.")
    if not os.access(here, os.W_OK | os.X_OK):
        raise ValueError(f"{name}={text}: {here} can't be written; choose another path, or change its permissions.")
    return path


def file_to_write(text: str, name: str) -> str:
    """Returns the path of a file that is there or can be made, in a folder that is there or can be made.

    Raises:
        ValueError: as `folder_to_write`, and where a folder is in its place.
    """
    path = user_path(text, name)
    if os.path.isdir(path) or path.endswith(os.sep):
        raise ValueError(f"{name}={text} is a folder: give the path of a file in it.")
    folder_to_write(os.path.dirname(path) or ".", name)
    return path


def export_versions(root: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the folders of an export's versions, `<root>/1`, `<root>/2`, ..., the newest last."""
    return sorted(
        (path for path in pathlib.Path(root).glob("[0-9]*") if path.name.isdecimal()), key=lambda path: int(path.name)
    )
