"""What the runs of an experiment would cost on this machine, and what of them is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reproduction.runs import Run, wanted_steps


def plan(runs: Sequence[Run], expected: dict[str, dict]) -> Iterator[str]:
    """Yields a line for each run, and one for all.

    The cost is the measured time of a finished run of the same system where there is one. Else it is that of the
    arithmetic of its steps, at the rate that finished runs of other systems reached; where there are none of them
    either, at the rate of a large matrix product: less than it will be.

    Args:
        runs: the runs, in order.
        expected: what each configuration comes to, by the run's name; with costs for the first seed of each system.
    """
    measured, counted = {}, {}
    for run in runs:
        steps, answer = wanted_steps(run, expected[run.name]), expected[run.name]
        if not run.missing(steps):
            measured.setdefault(run.system, run.directory.last_wall_seconds())
        if answer["rate"]:
            flops = sum(stage["flops"] for stage in answer["stages"] if stage["stage"] in steps)
            counted[run.system] = flops / answer["rate"]
    slower = [measured[system] / seconds for system, seconds in counted.items() if system in measured and seconds]
    total, at_least = 0.0, False
    for run in runs:
        steps = wanted_steps(run, expected[run.name])
        status = run.status(steps)
        done = sum(min(run.step_of(stage), count) for stage, count in steps.items()) / sum(steps.values())
        if run.system in measured:
            seconds, kind = measured[run.system], "as measured"
        elif slower:
            seconds = counted[run.system] * sum(slower) / len(slower)
            kind = "by its arithmetic, at the rate of finished runs"
        else:
            seconds, kind = counted[run.system], "at least, by its arithmetic"
        if not run.trained(steps):
            total += (1 - done) * seconds
            at_least |= not slower and run.system not in measured
        length = ", ".join(f"{count:,} steps of {stage}" for stage, count in steps.items())
        yield f"{run.name}: {status}; {length}; training takes {duration(seconds)} ({kind}); {run.path}"
    yield f"training that is left: {'at least ' if at_least else ''}{duration(total)}, and the evaluations"
    if at_least:
        yield "(small networks reach a tenth of that rate or less; once a run is done, the plan goes by that)"


def duration(seconds: float) -> str:
    """Returns a time in the largest unit that fits."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
