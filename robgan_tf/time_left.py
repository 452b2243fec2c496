"""How long work takes, in words, and how long the rest of it will take."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Returns a duration with its two largest units: "45 s", "7 min 6 s", "2 h 5 min", "3 d 4 h"."""
    seconds = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (unit, size) in enumerate(units[:-1]):
        if seconds >= size:
            smaller, smaller_size = units[place + 1]
            rest = seconds % size // smaller_size
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"


class TimeLeft:
    """Tells now and then how far some work is, how fast it goes, and how long the rest will take.

    The rate is that since it last told: the first items take longer, for tracing and compiling.

    Args:
        total: number of items in all; None if unknown.
        unit: what an item is, in the plural.
        every: seconds between two lines.
        done: items that were done before.
    """

    def __init__(self, total: int | None, unit: str, every: float = 10.0, done: int = 0):
        self.total = total
        self.unit = unit
        self.every = every
        self._told, self._told_done = time.monotonic(), done

    def line(self, done: int, last: bool = False) -> str | None:
        """Returns "500 of 2000 images (25 %), 132 images/s, 11 s left" where the time for a line has come, else None.

        Args:
            done: number of items done.
            last: whether this line is due at any time.
        """
        now = time.monotonic()
        if now - self._told < self.every and not last:
            return None
        rate = (done - self._told_done) / max(now - self._told, 1e-9)
        self._told, self._told_done = now, done
        return ", ".join(filter(None, (self._share(done), f"{rate:.3g} {self.unit}/s", self.left(done, rate))))

    def left(self, done: int, rate: float | None) -> str:
        """Returns "11 s left", or nothing where the total or the rate, in items per second, is unknown."""
        return f"{duration((self.total - done) / rate)} left" if self.total is not None and rate else ""

    def _share(self, done: int) -> str:
        if self.total is None:
            return f"{done} {self.unit}"
        return f"{done} of {self.total} {self.unit} ({100 * done // self.total} %)"
