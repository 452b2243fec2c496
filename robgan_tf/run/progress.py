"""How far a stage is, for whoever watches: a bar in a terminal, a plain line now and then in a file."""

from __future__ import annotations

import sys
import time

import tqdm

# Seconds between two lines where there is no terminal.
_LINE_EVERY = 15.0


class Progress:
    """The progress of a stage on standard error: stage, step, rate, time left, and the stage's three `headlines`.

    Args:
        stage: the stage, for its name, length and headlines.
        silent: whether to show nothing: on all workers but the chief.
    """

    def __init__(self, stage, silent: bool = False):
        self.stage = stage
        self.silent = silent
        self._headlines = {}
        self._step = self._told_step = stage.steps_done
        self._told = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not silent:
            self._bar = tqdm.tqdm(
                total=stage.total_steps,
                initial=self._step,
                desc=stage.name_of_stage,
                unit="step",
                mininterval=0.5,
                dynamic_ncols=True,
            )

    def close(self):
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int):
        """Says that so many steps are done."""
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def show(self, metrics: dict):
        """Takes new metrics; a headline that is not among them keeps its last value."""
        self._headlines.update({name: metrics[name] for name in self.stage.headlines if name in metrics})
        words = ", ".join(
            f"{self.stage.headlines[name]} {_figure(name, value)}" for name, value in self._headlines.items()
        )
        if self._bar is not None:
            self._bar.set_postfix_str(words, refresh=False)
        now, last = time.monotonic(), self._step >= self.stage.total_steps
        if self._bar is None and not self.silent and (last or now - self._told >= _LINE_EVERY):
            # Of the time since the line before: the first steps of a start take long, for tracing and compiling.
            rate = (self._step - self._told_step) / max(now - self._told, 1e-9)
            self._told, self._told_step = now, self._step
            left = tqdm.tqdm.format_interval((self.stage.total_steps - self._step) / rate) if rate else "?"
            share = 100 * self._step // self.stage.total_steps
            print(
                f"{self.stage.name_of_stage}: step {self._step} of {self.stage.total_steps} ({share} %), "
                f"{rate:.3g} steps/s, {left} left" + (f"; {words}" if words else ""),
                file=sys.stderr,
                flush=True,
            )

    def interrupted(self):
        """A context in which others may write to the terminal: the bar steps aside."""
        return tqdm.tqdm.external_write_mode(file=sys.stderr)


def _figure(name: str, value: float) -> str:
    return f"{100 * value:.0f} %" if name.endswith("accuracy") else f"{value:.3g}"
