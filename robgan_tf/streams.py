"""Standard output and error that nothing breaks: closed files, readers that leave, full disks, missing letters."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile

_READER_IS_GONE = (errno.EPIPE, errno.EIO)  # of a pipe; of a terminal


class _Lasting:
    """A stream that goes on, into nothing, once it can't be written: a run must not end for a `| head`.

    Attributes:
        error: why it can't, where text was lost that somebody may still want; else None.
    """

    def __init__(self, stream):
        self._stream = stream
        self.error = None

    def write(self, text):
        try:
            return self._stream.write(text)
        except OSError as error:
            self._go_on_into_nothing(error)
            return len(text)

    def flush(self):
        try:
            self._stream.flush()
        except OSError as error:
            self._go_on_into_nothing(error)

    def _go_on_into_nothing(self, error):
        if error.errno not in _READER_IS_GONE:
            self.error = error
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
        # By the line into files and pipes, too: else progress, on standard error, comes before what was printed first.
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, _Lasting(stream))


@contextlib.contextmanager
def native_lines_held():
    """Holds back what native code writes to standard error, which no setting of its own stops; shown after an error."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def lost() -> str | None:
    """Returns why something that was printed since `make_lasting` was not written, or None. Flushes both streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Lasting):
            stream.flush()
            if stream.error is not None:
                return f"{name} could not be written ({stream.error.strerror})"
    return None
