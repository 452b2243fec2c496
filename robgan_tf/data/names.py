"""What messages say of files, classes and errors: few of many names, printable whatever bytes they have."""

from __future__ import annotations

import os
from collections.abc import Collection


def some(names: Collection[str], most: int = 3) -> str:
    """At most `most` names, for a message."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(shown, names[:most])) + more) or "none"


def shown(name: str | os.PathLike) -> str:
    """A name that can be printed on one line anywhere, whatever bytes it has."""
    name = os.fspath(name)
    return name if name.isprintable() else escaped(name)


def quoted(name: str) -> str:
    """A name in ASCII, as bash takes it."""
    return f"$'{escaped(name)}'"


def escaped(name: str) -> str:
    """A name in ASCII, as it stands between $' and ' in bash."""

    def escape(letter: str) -> str:
        code = ord(letter)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python has it
            return f"\\x{code - 0xDC00:02x}"
        return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"

    name = name.replace("\\", "\\\\").replace("'", "\\'")
    return "".join(letter if " " <= letter <= "~" else escape(letter) for letter in name)


def first_line(error: Exception) -> str:
    """The first line of an error's text that is not blank, or the error's type, for a message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
