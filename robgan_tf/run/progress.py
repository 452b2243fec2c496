"""How far a stage is: a bar in a terminal, a plain line now and then in a file."""

from __future__ import annotations

import contextlib
import os
import sys

import tqdm

from robgan_tf.run.metrics import described
from robgan_tf.time_left import TimeLeft

# Seconds between two lines where there is no terminal.
_LINE_EVERY = 15.0
_PREPARING = "compiling the first step"
# Columns: of a terminal that does not tell its own, and the fewest that a bar is drawn in.
_USUAL_WIDTH, _BAR_WIDTH = 80, 10


class Progress:
    """The progress of a stage on standard error: stage, step, rate, time left, and the stage's headlines.

    Without a standard error, or once it is closed, it shows nothing.

    Args:
        stage: the stage, for its name, length and headlines.
        silent: whether to show nothing: on all workers but the chief.
    """

    def __init__(self, stage, silent: bool = False):
        self.stage = stage
        self.silent = silent or sys.stderr is None
        self._headlines = {}
        self._step = stage.steps_done
        self._time_left = TimeLeft(stage.total_steps, "steps", _LINE_EVERY, self._step)
        self._bar = None
        with self._writing():
            if self.silent:
                pass
            elif sys.stderr.isatty():
                self._bar = _Bar(
                    total=stage.total_steps,
                    initial=self._step,
                    desc=stage.name_of_stage,
                    file=sys.stderr,
                    mininterval=0.5,
                    miniters=1,
                    dynamic_ncols=True,
                )
            else:
                self._print(f"{self._step} of {stage.total_steps} steps, {_PREPARING}")

    def close(self):
        """Ends the bar."""
        if self._bar is not None:
            with self._writing():
                self._bar.close()

    def advance(self, step: int):
        """Says that so many steps are done."""
        if self._bar is not None:
            with self._writing():
                self._bar.update(step - self._step)
        self._step = step

    def show(self, metrics: dict):
        """Takes new metrics; a headline that is not among them keeps its last value."""
        self._headlines.update({name: metrics[name] for name in self.stage.headlines if name in metrics})
        words = [
            f"{described(name).label} {described(name).text(self._headlines[name])}"
            for name in self.stage.headlines
            if name in self._headlines
        ]
        if self._bar is not None:
            self._bar.headlines = words
        elif not self.silent and (line := self._time_left.line(self._step, self._step >= self.stage.total_steps)):
            with self._writing():
                self._print("; ".join(filter(None, (line, ", ".join(words)))))

    def interrupted(self):
        """A context in which others may write to the terminal: the bar steps aside."""
        return contextlib.nullcontext() if self._bar is None else tqdm.tqdm.external_write_mode(file=sys.stderr)

    def _print(self, text: str):
        print(f"{self.stage.name_of_stage}: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _writing(self):
        """Within it, a standard error that was closed ends the progress, and not the training."""
        try:
            yield
        except (OSError, ValueError):  # the terminal or the reader of a pipe is gone; the file is closed
            self.silent, self._bar = True, None
            # What is still in its buffer must go somewhere, or the process could not end with status 0.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Bar(tqdm.tqdm):
    """A bar whose line leaves out whole parts, the least important first, where the terminal is too narrow."""

    headlines: list[str] = []

    @property
    def format_dict(self):
        return {**super().format_dict, "postfix": self.headlines}

    @staticmethod
    def format_meter(n, total, elapsed, ncols=None, prefix="", rate=None, postfix=(), initial=0, **unused):
        """Returns the line, see `fitting_line`; tqdm calls it."""
        if rate is None and elapsed:
            rate = (n - initial) / elapsed
        return fitting_line(prefix.rstrip(": "), n, total, rate if n > initial else None, postfix, ncols)


def fitting_line(name: str, done: int, total: int, rate: float | None, headlines, columns: int | None) -> str:
    """Returns name, share, bar, step, rate, time left and headlines, as far as they fit into a line.

    Args:
        name: name of the stage.
        done: steps done.
        total: steps in all.
        rate: steps per second; None while the first step is being compiled.
        headlines: metrics in words.
        columns: width of the terminal; None or 0 if unknown.
    """
    room = (columns or _USUAL_WIDTH) - 1  # some terminals begin a new line behind the last column
    left = TimeLeft(total, "steps").left(done, rate) if rate else _PREPARING
    # Parts in the order in which they are shown, each with its separator, and their importance.
    parts = [(1, name), (0, f" {100 * done // total} %"), (len(headlines) + 3, f", step {done} of {total}")]
    if rate:
        parts.append((len(headlines) + 4, f", {rate:.3g} steps/s"))
    parts.append((2, f", {left}"))
    parts += [(3 + place, f"{', ' if place else '; '}{text}") for place, text in enumerate(headlines)]
    shown = set()
    for place in sorted(range(len(parts)), key=lambda place: parts[place][0]):
        if sum(len(parts[one][1]) for one in (*shown, place)) > room:
            break
        shown.add(place)
    texts = [text for place, (_, text) in enumerate(parts) if place in shown]
    spare = room - sum(map(len, texts)) - len(" [],")
    if len(shown) == len(parts) and spare >= _BAR_WIDTH:
        width = min(spare, 3 * _BAR_WIDTH)
        filled = width * done // total
        texts.insert(2, f" [{'#' * filled}{'.' * (width - filled)}]")
    return "".join(texts).strip(" ,;")
