"""What a run keeps of its data, and what differs between that and the data at hand, class by class."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from robgan_tf.data.datasets import READ_BATCH, Examples, ImageData

# Differences that a message names; a renamed class in the middle of a thousand shifts hundreds.
_NAMED = 8
# Times as many images in the largest class as in the smallest, beyond which it is said.
_UNEVEN = 5
_CONTENTS = "image_shape", "class_names", "counts", "fingerprint"


def describe(data: ImageData) -> dict:
    """Returns image shape, class names, counts for each split and class, and fingerprint of a data set.

    Data that was only moved has the same description.
    """
    fingerprint = data.fingerprint
    if fingerprint is None:
        fingerprint = {name: _checksum(split) for name, split in data.splits.items() if isinstance(split, Examples)}
    return {
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
        "counts": {name: split.counts(data.num_classes) for name, split in data.splits.items()},
        "fingerprint": dict(fingerprint),
    }


def check_class_names(names: Sequence[str]):
    """Raises ValueError for class names that reports and exports can't hold: not text in UTF-8, blank, or twice."""
    wrong = [name for name in names if not _is_text(name)]
    if wrong:
        raise ValueError(
            f"Class names must be text in UTF-8 without control characters, for reports and exports; got "
            f"{', '.join(map(ascii, wrong[:3]))}{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}: rename "
            f"these classes (or the folders that name them)."
        )
    twice = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"Class names must be all different; there are several of {', '.join(map(repr, twice[:3]))}.")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # how Python reads names of files that are not UTF-8
        return False
    # XML and HTML have no place for control characters, nor for U+FFFE and U+FFFF.
    return bool(name.strip()) and not any(unicodedata.category(one) == "Cc" or one in "\ufffe\uffff" for one in name)


def whereabouts(path: str | os.PathLike) -> str:
    """Returns a path for a message; of a relative one it says so, and which folder it starts from."""
    return str(path) if os.path.isabs(path) else f"{path} (a relative path, looked for in {os.getcwd()})"


def uneven_classes(description: Mapping) -> str | None:
    """Returns a sentence where training images are far from equally many for each class; None where they are not."""
    counts = description["counts"]["train"]
    fewest, most = min(counts), max(counts)
    if most <= _UNEVEN * fewest:
        return None
    names = description["class_names"]
    return (
        f"The classes have from {fewest} ({names[counts.index(fewest)]}) to {most} ({names[counts.index(most)]}) "
        f"training images: what is learnt, and accuracy over all images, will mostly be about the large ones."
    )


def _checksum(examples: Examples) -> str:
    digest = hashlib.sha256(examples.labels.tobytes())
    for start in range(0, len(examples), READ_BATCH):
        digest.update(examples.images[start : start + READ_BATCH].tobytes())
    return digest.hexdigest()


def differences(before: Mapping, now: Mapping) -> str:
    """Returns what differs between two descriptions (`describe`) as a phrase, empty where nothing does.

    Args:
        before: the description that the run keeps.
        now: that of the data as they are.

    Raises:
        ValueError: where `before` is no description.
    """
    missing = [key for key in _CONTENTS if key not in before]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    found = list(_differences(before, now))
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


def _differences(before: Mapping, now: Mapping) -> Iterator[str]:
    if before["image_shape"] != now["image_shape"]:
        yield f"images of shape {_shape(before)} are {_shape(now)} now"
    old, new = before["class_names"], now["class_names"]
    gone, added = [name for name in old if name not in set(new)], [name for name in new if name not in set(old)]
    yield from (f"class {name!r} (label {old.index(name)}) is gone" for name in gone)
    yield from (f"class {name!r} (label {new.index(name)}) is new" for name in added)
    labels = {name: label for label, name in enumerate(new)}
    moved = [(name, label, labels[name]) for label, name in enumerate(old) if labels.get(name, label) != label]
    yield from (f"class {name!r} had label {label}, has {there}" for name, label, there in moved)
    counted = set()
    for split, counts in before["counts"].items():
        then, here = dict(zip(old, counts)), dict(zip(new, now["counts"].get(split, ())))
        for name in (name for name in old if name in here and then[name] != here[name]):
            counted.add(f"{split}/{name}")
            yield f"{split}: class {name!r} had {then[name]} images, has {here[name]}"
    explained = {f"{split}/{name}" for split in before["counts"] for name in (*gone, *added)} | counted
    for what, checksum in before["fingerprint"].items():
        other = now["fingerprint"].get(what)
        if checksum != other and what not in explained:
            readable = len(checksum) < 64  # a version, and no checksum
            yield f"{what} was {checksum}, is {other}" if readable else f"{what}: other files than before"


def _shape(description: Mapping) -> str:
    return " x ".join(map(str, description["image_shape"]))
