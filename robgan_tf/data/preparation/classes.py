"""Which classes of a source are prepared, and what they are called."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Sequence

from robgan_tf.data.names import some


def select_classes(wanted: str, classes: Sequence[str]) -> list[str]:
    """Chooses classes of a source.

    Args:
        wanted: "all"; "first:last", indices into `classes`, both included; names with commas between; or "@path", of a
            file with a name in each line.
        classes: those there are.

    Returns:
        The names, in the order of `classes`.

    Raises:
        ValueError: if a class is not there or named twice, or none is named.
    """
    count = len(classes)
    if wanted == "all":
        return list(classes)
    first, colon, last = wanted.partition(":")
    if colon and first.strip().isdigit() and last.strip().isdigit():
        if not int(first) <= int(last) < count:
            raise ValueError(
                f"--classes={wanted} does not fit: the source has {count} classes, 0:{count - 1} (ImageNet has 1000); "
                "give a range within, --classes=all, or names"
            )
        return list(classes[int(first) : int(last) + 1])
    names = _lines(wanted[1:], "--classes") if wanted.startswith("@") else wanted.split(",")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"--classes={wanted} names no class; give all, first:last, names, or @file with a name a line")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"--classes={wanted} names {some(repeated)} twice; name each class once")
    unknown = set(names) - set(classes)
    if unknown:
        close = difflib.get_close_matches(min(unknown), classes, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {some(classes)}"
        raise ValueError(f"--classes={wanted}: the source has no class {some(unknown)}; {hint}")
    return [name for name in classes if name in set(names)]


def readable_names(path: str, classes: Sequence[str]) -> list[str]:
    """Reads names for classes from lines "n01440764 tench, Tinca tinca", as in ImageNet's LOC_synset_mapping.txt.

    Args:
        path: the file.
        classes: the first words of the lines to look for.

    Returns:
        The rest of these lines, in the order of `classes`; where two are equal (there are two cranes), with the class
        behind.

    Raises:
        ValueError: if the file can't be read or lacks one of the classes.
    """
    names = dict(line.strip().partition(" ")[::2] for line in _lines(path, "--class_names") if line.strip())
    missing = [name for name in classes if not names.get(name, "").strip()]
    if missing:
        raise ValueError(
            f"--class_names={path} has no name for {some(missing)}; a line is: n01440764 tench, Tinca tinca"
        )
    chosen = [names[name].strip() for name in classes]
    return [f"{text} ({name})" if chosen.count(text) > 1 else text for name, text in zip(classes, chosen)]


def _lines(path: str, flag: str) -> list[str]:
    try:
        return pathlib.Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{flag}: can't read {path}: {error}") from error
