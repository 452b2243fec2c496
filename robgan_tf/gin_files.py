"""Where configurations are: what the user names, the copies that an installed package brings, or those of the checkout.

No TensorFlow and no gin here: a misspelt name is answered at once.
"""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Iterator

_PACKAGE = pathlib.Path(__file__).resolve().parent
# A wheel has gin/ in the package, a checkout beside it. `include "gin/robgan.gin"` is looked for here, too.
ROOTS = (_PACKAGE, _PACKAGE.parent)


def find(name: str) -> str:
    """Returns the path of a configuration: the file of this name, else the one that comes with the package.

    Raises:
        ValueError: where there is neither; the message names the configurations that are alike.
    """
    if pathlib.Path(name).is_file():
        return name
    for root in ROOTS:
        if (root / name).is_file():
            return str(root / name)
    if pathlib.Path(name).exists():
        what = "a folder" if pathlib.Path(name).is_dir() else "no file of text"
        raise ValueError(f"--gin_file={name} is {what}: give a file such as gin/digits.gin")
    names = [path for path, _ in listing()]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    same = [path for path in names if pathlib.Path(path).name == pathlib.Path(name).name]
    meant = f"; did you mean {(same or near)[0]}?" if same or near else f"; there are {', '.join(_bases(names))}"
    raise ValueError(f"--gin_file={name} does not exist{meant} (robgan configurations lists all)")


def listing() -> Iterator[tuple[str, str]]:
    """Yields the configurations of the package, as `--gin_file` takes them, and the first sentence of each."""
    root = next((root for root in ROOTS if (root / "gin").is_dir()), None)
    if root is None:
        return
    for path in sorted((root / "gin").rglob("*.gin"), key=lambda path: (len(path.parts), path)):
        head = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                break
            head.append(line[2:].strip())
        text = " ".join(head)
        yield path.relative_to(root).as_posix(), re.split(r"(?<!Fig)(?<!eq)(?<!et al)\. ", text)[0].rstrip(".")


def _bases(names: list[str]) -> list[str]:
    """Those that stand by themselves or hold what others share; the others go behind one of them."""
    return [name for name in names if name.count("/") == 1]
