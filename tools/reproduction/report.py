"""Writes what was gathered: Markdown, JSON, a plot."""

from __future__ import annotations

import pathlib
import shlex
import sys
import time

from reproduction.comparable import commits
from reproduction.experiments import Comparison
from reproduction.gathering import Gathered, Runs
from reproduction.runs import read_json
from reproduction.scales import Scale
from robgan_tf.bindings import bindings
from robgan_tf.data.files import write_json, write_text, written_aside
from robgan_tf.run.machine import machine
from robgan_tf.run.provenance import provenance

# Plots are committed: coarser ones are tried until one is small enough. Bytes.
_LARGEST_PLOT = 300_000
_DPI = (110, 90, 70, 50)
NO_PLOT = "no plot: matplotlib is missing (pip install matplotlib); Markdown and JSON are written"


def write(
    base: pathlib.Path, comparison: Comparison, scale: Scale, about: dict, runs: Runs, gathered: Gathered
) -> list[str]:
    """Writes `base`.json, .md and, where matplotlib is there, .png.

    Args:
        base: path without ending.
        comparison: the table or figure.
        scale: how large it is.
        about: experiment, data and scale by name.
        runs: what it was gathered from.
        gathered: what came out.

    Returns:
        Lines about what was written.
    """
    of_commits = commits(runs.runs)
    # What makes all of it anew; --gather_only would not.
    arguments = [one for one in sys.argv[1:] if one.lstrip("-").split("=")[0] != "gather_only"]
    command = shlex.join(["python", "tools/reproduce.py", *arguments])
    configs = [bindings(run.directory.config.read_text()) for run in runs.runs]
    shared = dict(set.intersection(*(set(config.items()) for config in configs)))
    report = {
        **about,
        "title": comparison.title,
        "seeds": runs.seeds,
        "scaled": scale.scaled,
        "command": command,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "results": gathered.results,
        "bindings_of_all_runs": dict(sorted(shared.items())),
        "runs": [
            _about_run(run, runs, {name: value for name, value in config.items() if name not in shared})
            for run, config in zip(runs.runs, configs)
        ],
        "commits_of_training": of_commits,
        "machine": machine(),
        **provenance(),
    }
    of_runs = [run["machine"] or report["machine"] for run in report["runs"]]
    machines = sorted({f"{one['cpu']}, {one['cores']} core(s) for a run" for one in of_runs})
    plotted = plot(base.with_name(f"{base.name}.png"), gathered, comparison)
    lines = [
        f"# {comparison.title}",
        "",
        f"{about['data']}, scale {about['scale']}; seeds {', '.join(map(str, runs.seeds))}. "
        f"Scaled, where it applies: {scale.scaled}. "
        + ("Mean and standard error over the seeds." if len(runs.seeds) > 1 else "One seed: no standard error."),
        "",
        f"    {command}",
        "",
        *gathered.lines,
        *_how_evaluated([one for run in report["runs"] for one in run["evaluations"]]),
        *([f"![{comparison.title}]({base.name}.png)", ""] if plotted else []),
        f"Commits of the training: {', '.join(f'{commit} ({len(runs)} runs)' for commit, runs in of_commits.items())}. "
        f"Machine: {', '.join(machines)}. Everything else, with all bindings and commands, is in "
        f"[{base.name}.json]({base.name}.json).",
        "",
    ]
    write_json(base.with_name(f"{base.name}.json"), report)
    write_text(base.with_name(f"{base.name}.md"), "\n".join(lines))
    found = [f"wrote {base}.md, .json{' and .png' if plotted else ''}"]
    if len(of_commits) > 1:
        found.append(f"note: the runs were trained with different commits: {', '.join(of_commits)}")
    return found if plotted else [*found, NO_PLOT]


def _about_run(run, runs: Runs, own_bindings: dict[str, str]) -> dict:
    seconds = max((record["wall_seconds"] for record in run.directory.metric_records()), default=None)
    manifest = read_json(run.directory.manifest) if run.directory.manifest.exists() else {}
    return {
        "system": run.system,
        "seed": run.seed,
        "run_dir": str(run.path),
        "gin_files": run.files,
        "gin_params": run.params,
        "own_bindings": own_bindings,
        "commands": [str(command) for command in run.commands()],
        "stages": runs.expected[run.name]["stages"],
        "data": runs.expected[run.name]["data"],
        "training_seconds": seconds,
        "git_commit": manifest.get("git_commit"),
        "machine": manifest.get("machine"),
        "evaluations": [_evaluation(run, path) for path in run.robustness_reports],
    }


def _evaluation(run, path: pathlib.Path) -> dict:
    """How a classifier was attacked, and what the checks had to say against it."""
    report = read_json(path)
    return {
        "of": f"{run.name}, before fine-tuning" if path == run.before_finetuning else run.name,
        "attacks": report["attacks"],
        "examples": report["examples"],
        "training_examples": report["train"]["examples"],
        "git_commit": report["git_commit"],
        "checks_made": len(report["checks"]),
        "checks_not_passed": [check for check in report["checks"] if check["status"] != "pass"],
    }


def _how_evaluated(evaluations: list[dict]) -> list[str]:
    """The attacks, which are the same in all evaluations that may be compared, and all checks that did not pass."""
    if not evaluations:
        return []
    first, lines = evaluations[0], []
    attacks = "; then ".join(map(_in_words, first["attacks"]))
    lines.append(
        f"Accuracy under attack: {attacks}; counted cumulatively, on {first['examples']:,} test and "
        f"{first['training_examples']:,} training images."
    )
    made = sorted({one["checks_made"] for one in evaluations})
    found = [(one["of"], check) for one in evaluations for check in one["checks_not_passed"]]
    lines[0] += f" Checks of each evaluation: {' or '.join(map(str, made))}" + (
        "; those that did not pass:" if found else ", all passed."
    )
    items = [f"- {of}: {check['status']}, {check['name']}: {check['message']}" for of, check in found]
    return [*lines, "", *items, *([""] if items else [])]


def _in_words(attack: dict) -> str:
    """The name of an attack and, of the gradient steps, what the name does not tell."""
    words = f"{attack['label']}, {attack['norm']}"
    if attack.get("relative_step_size"):
        words += f", steps of {attack['relative_step_size']:g} epsilon"
    if "random_start" in attack:
        words += f", {'random' if attack['random_start'] else 'no random'} start"
    return words


def plot(path: pathlib.Path, gathered: Gathered, comparison: Comparison) -> bool:
    """Draws the plot into `path`; returns whether it could, that is, whether matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        path.unlink(missing_ok=True)  # one of other numbers would be taken for this one
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(10, 4.2))
    gathered.draw(figure)
    figure.suptitle(comparison.title, fontsize=10)
    figure.tight_layout()
    with written_aside(path) as partial:
        for dpi in _DPI:
            figure.savefig(partial, dpi=dpi, format="png")
            if partial.stat().st_size <= _LARGEST_PLOT:
                break
    pyplot.close(figure)
    return True
