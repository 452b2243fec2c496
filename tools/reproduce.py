"""Rebuilds a table or a figure of the paper: `python tools/reproduce.py --experiment=table1 --scale=cpu --data=digits`.

Trains what it compares, one run after the other, each in a process and a folder of its own; runs that are done are not
done again, and one that was stopped goes on. Then it gathers, beside the paper's numbers. See tools/README.md.
"""

from __future__ import annotations

import os
import pathlib
import sys

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

from reproduction import better_gan, figures, recipe, report, tables
from reproduction.comparable import NotComparableError, check, differences
from reproduction.execution import RunFailedError, do
from reproduction.expected import REPOSITORY, expected, with_seed
from reproduction.experiments import EXPERIMENTS, comparison
from reproduction.gathering import Runs
from reproduction.planning import plan
from reproduction.runs import relative, runs_of, wanted_steps
from reproduction.scales import DATA, SCALES, find

FLAGS = flags.FLAGS
GATHER = {
    "table1": tables.table1,
    "fig2": figures.fig2,
    "fig6": tables.fig6,
    "fig7": figures.fig7,
    "fig8": figures.fig8,
    "section1": tables.section1,
    "strongest": recipe.strongest,
    "better_gan": better_gan.better_gan,
}


def reproduce():
    """Does what the flags say."""
    experiment, data, scale_name = _choice("experiment", EXPERIMENTS), _choice("data", DATA), _choice("scale", SCALES)
    seeds = [int(seed) for seed in FLAGS.seeds if seed.isdecimal()]
    if not seeds or len(set(seeds)) != len(FLAGS.seeds):
        command_line.fail(f"--seeds takes whole numbers, each once, e.g. --seeds=0,1,2; got {','.join(FLAGS.seeds)}")
    if any(param.replace(" ", "").startswith("Experiment.seed=") for param in FLAGS.gin_param):
        command_line.fail("--gin_param=Experiment.seed would give every run the same seed: use --seeds=0,1,2")
    scale = command_line.or_fail(lambda: find(experiment, scale_name, data))
    root = relative(FLAGS.root) / scale_name / data
    out = relative(FLAGS.out or f"results/reproduce/{experiment}_{data}_{scale_name}")
    os.chdir(REPOSITORY)  # gin files are named from here, and folders of runs are recorded so

    compared = command_line.or_fail(lambda: comparison(experiment, data, scale_name).of(FLAGS.systems))
    runs = runs_of(compared, scale, seeds, root, FLAGS.gin_param)
    print(f"{compared.title}; {data}, scale {scale_name}: scaled is {scale.scaled}")
    for line in _bindings(runs):
        print(line)
    # What takes generated images from a file can't be built before it is there.
    ready = [run for run in runs if not run.taken or run.taken.exists()]
    cost = FLAGS.plan or experiment == "strongest"  # where it is part of what is compared
    wanted = _expected(ready, cost)
    if FLAGS.plan:
        for line in plan(ready, wanted):
            print(line, flush=True)
        if len(ready) < len(runs):
            print(f"{len(runs) - len(ready)} more runs need generated images of these first, then --plan counts them")
        return
    if not FLAGS.gather_only:
        if len(ready) < len(runs):
            _do([run for run in runs if run.part.samples], wanted)
            wanted = _expected(runs, cost)
        _do(runs, wanted)
    elif len(ready) < len(runs):
        command_line.fail(*(f"{run.name}: {run.taken} is missing" for run in runs if run not in ready))
    try:
        check(runs, wanted)
        gathered = GATHER[experiment](Runs(runs, wanted, data))
    except NotComparableError as error:
        command_line.fail(*error.problems)
    except (ValueError, KeyError) as error:
        command_line.fail(f"a report of a run can't be used: {command_line.one_line(error)}")
    about = {"experiment": experiment, "data": data, "scale": scale_name}
    for line in report.write(pathlib.Path(out), compared, scale, about, Runs(runs, wanted, data), gathered):
        print(line)


def _choice(flag: str, allowed) -> str:
    value = FLAGS[flag].value
    if value not in allowed:
        command_line.fail(f"--{flag} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def _first(runs):
    """The first run of each system."""
    return {run.system: run for run in reversed(runs)}


def _expected(runs, cost):
    """What the configuration of each run comes to, by its name; with `cost` the arithmetic of its steps, too."""
    # Data are read for each: once for a system, not for each seed.
    first = _first(runs)
    requests = [{"files": run.files, "params": run.learnt_params, "cost": cost} for run in first.values()]
    of_systems = dict(zip(first, command_line.or_fail(lambda: expected(requests))))
    return {
        run.name: with_seed(of_systems[run.system], run.seed, run.taken and (first[run.system].taken, run.taken))
        for run in runs
    }


def _bindings(runs):
    """Each system's configuration, as it is given to `robgan_tf.train`, by its first run."""
    for system, run in _first(runs).items():
        yield f"{system}: {' '.join(run.files)}"
        yield from (f"    {param}" for param in run.params)


def _do(runs, wanted):
    """Does all that is missing; before any of it, what is there is looked at."""
    wrong = [line for run in runs if run.directory.config.exists() for line in differences(run, wanted[run.name])]
    if wrong:
        command_line.fail(*wrong, "give another --root, or remove these runs")
    for number, run in enumerate(runs, start=1):
        missing = run.missing(wanted_steps(run, wanted[run.name]))
        print(f"{number} of {len(runs)}: {run.name}: {'to do' if missing else 'done already'}", flush=True)
        try:
            for line in do(run, missing):
                print(f"    {line}", flush=True)
        except RunFailedError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_status)


def define_flags(values):
    flags.DEFINE_string("experiment", None, f"What to rebuild: {', '.join(EXPERIMENTS)}.", flag_values=values)
    flags.DEFINE_string("scale", "cpu", f"How large: {', '.join(SCALES)}.", flag_values=values)
    flags.DEFINE_string("data", "cifar10", f"The data set: {', '.join(DATA)}.", flag_values=values)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each system.", flag_values=values)
    flags.DEFINE_list(
        "systems",
        [],
        "Of --experiment=strongest and better_gan: these systems, and the generators they need; all if not given.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "gin_param", [], "One binding for every run, e.g. the folder of the data; repeatable.", flag_values=values
    )
    flags.DEFINE_string(
        "root", "runs/reproduce", "Folder of the runs: <root>/<scale>/<data>/<system>/seed_<n>.", flag_values=values
    )
    flags.DEFINE_string(
        "out", None, "Files to write, without ending; in results/reproduce/ if not given.", flag_values=values
    )
    flags.DEFINE_bool(
        "plan", False, "Print the runs, what they cost here, and what is there already, and stop.", flag_values=values
    )
    flags.DEFINE_bool("gather_only", False, "Train nothing: gather what is there.", flag_values=values)


if __name__ == "__main__":
    command_line.main(reproduce, define_flags)
