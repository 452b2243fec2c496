"""Requests to stop: SIGTERM, as schedulers send it before they take a machine away, and SIGINT (Ctrl-C)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequests:
    """Whether somebody wants the run to stop. This one: nobody ever does."""

    def requested(self) -> int:
        """The status to exit with where the run shall stop at the end of the current step, else 0."""
        return 0

    @contextlib.contextmanager
    def active(self):
        """Within it, the run asks `requested` after each step and stops by itself."""
        yield


class StopSignals(StopRequests):
    """Signals as requests: while a stage trains, the first one lets it end its step and save; else it ends the process.

    A second one ends the process at once in any case. Files are whole at any moment, so nothing is lost by that but the
    steps since the last checkpoint.

    A thread of its own waits for the signals: a Python signal handler would run only once TensorFlow comes back from a
    step, which may take minutes. To be made in the main thread before TensorFlow starts its own threads, since the
    signals must be blocked in all of them.

    The process ends with 128 + the number of the signal, as shells have it: 143 for SIGTERM, 130 for SIGINT.

    Attributes:
        before_exit: is called before the process is ended.
    """

    def __init__(self):
        self._exit_status = 0
        self.before_exit: Callable[[], None] = lambda: None
        self._active = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._wait, daemon=True, name="stop signals").start()

    def requested(self) -> int:
        return self._exit_status

    @contextlib.contextmanager
    def active(self):
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def _wait(self):
        number = signal.sigwait(_SIGNALS)
        self._exit_status = 128 + number
        if self._active:
            self._say(number, "stopping with a checkpoint after this step; once more to end at once")
            number = signal.sigwait(_SIGNALS)
        self._say(number, "ending; the same command goes on from the last checkpoint")
        self.before_exit()
        # Not sys.exit, which would end this thread alone.
        os._exit(128 + number)

    @staticmethod
    def _say(number: int, what: str):
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
            print(f"\n{signal.Signals(number).name}: {what}", file=sys.stderr, flush=True)
