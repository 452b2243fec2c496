"""Standard output and error that nothing breaks: no closed file, no reader that leaves, no letter that is missing."""

from __future__ import annotations

import os
import sys


class _Lasting:
    """A stream that goes on, into nothing, once nobody reads it: a run must not end for a `| head`."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._go_on_into_nothing()
            return len(text)

    def flush(self):
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._go_on_into_nothing()

    def _go_on_into_nothing(self):
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name):
        return getattr(self._stream, name)


def make_lasting():
    """Makes standard input, output and error last: to be called before any file is opened."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened, a checkpoint perhaps, would get what is printed
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Lasting):
            continue
        if stream is None:
            stream = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
        stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Lasting(stream))
