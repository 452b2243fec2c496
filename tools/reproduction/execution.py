"""Executes what is missing of a run, command by command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from reproduction.expected import REPOSITORY
from reproduction.runs import Command, Run


class RunFailedError(Exception):
    """A command of a run ended with another status than 0.

    Attributes:
        exit_status: what to exit with.
    """

    def __init__(self, message: str, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


def do(run: Run, commands: Sequence[Command]) -> Iterator[str]:
    """Does `commands` of a run, each in a process of its own; what they print is kept in a file beside its folder.

    Yields:
        A line before and after each.

    Raises:
        RunFailedError: where one fails, or is stopped.
    """
    log = run.log
    log.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        yield f"{run.name}: {command.arguments[0]} --run_dir={run.path}, its lines go to {log}"
        start = time.monotonic()
        with open(log, "a") as file:
            arguments = [sys.executable, "-m", *command.arguments]
            status = _wait(subprocess.Popen(arguments, cwd=REPOSITORY, stdout=file, stderr=file))
        if status:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            reason = lines[-1].removeprefix("error: ").strip() if lines else "no message"
            raise RunFailedError(
                f"{run.name} ended with status {status}: {reason} (all of it in {log}); the same command goes on.",
                status if status in (2, 130, 143) else 1,
            )
        yield f"{run.name}: done in {time.monotonic() - start:.0f} s"


def _wait(process: subprocess.Popen) -> int:
    """Waits for a process, which gets the signals that this one gets, and returns its exit status."""

    def pass_on(number, frame):
        process.send_signal(number)

    # Ctrl-C reaches both in a terminal: the child, which it stops, is waited for.
    handlers = {signal.SIGTERM: pass_on, signal.SIGINT: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status
