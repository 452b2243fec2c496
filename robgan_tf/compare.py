"""Puts the accuracies of several classifiers side by side: `robgan compare runs/digits runs/mine other.json`.

Each is a run that was evaluated, or the report of an evaluation (`evaluate --out=other.json`). They are compared where
data and threat model are the same, and refused where not. Differences within the 95 % intervals may be chance.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from absl import flags

from robgan_tf import command_line

# What must be equal for accuracies to be comparable, and what is said where it is not.
_SAME = {
    "dataset": "the data set differs",
    "split": "the split differs",
    "examples": "the number of images differs",
    "class_names": "the classes differ",
    "norm": "the norm differs",
    "reference_epsilon": "epsilon differs",
}
# What is printed beside that.
_SHOWN = ("clean", "clean_interval", "worst_case", "curve", "attacks", "checks")


def compare(arguments: Sequence[str]):
    """Prints a table of the runs and reports that are named."""
    if len(arguments) < 2:
        command_line.fail("name two or more runs or reports, e.g. robgan compare runs/digits runs/mine other.json")
    reports = {name: command_line.or_fail(lambda name=name: read(name)) for name in arguments}
    print("\n".join(command_line.or_fail(lambda: table(reports))))


def read(name: str) -> dict:
    """Returns the report of a run or of a file.

    Raises:
        ValueError: where there is none, or it is of an older version or no report.
    """
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        path = path / "robustness.json"
        if not path.exists():
            raise ValueError(
                f"{name} has no robustness.json: evaluate it, python -m robgan_tf.evaluate --run_dir={name}"
            )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no {name}: name a run, or a report that robgan evaluate --out wrote") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is neither a run nor a report of an evaluation ({error})") from error
    missing = [key for key in (*_SAME, *_SHOWN) if not isinstance(report, dict) or key not in report]
    if missing:
        raise ValueError(
            f"{name} is no report of an evaluation, or of an older version: it has no {', '.join(missing)}"
        )
    return report


def table(reports: dict[str, dict]) -> list[str]:
    """Returns the lines of the table.

    Args:
        reports: by name, see `read`.

    Raises:
        ValueError: where data or threat models differ.
    """
    (first, one), *others = reports.items()
    for name, other in others:
        for key, what in _SAME.items():
            if one[key] != other[key]:
                values = "" if key == "class_names" else f": {one[key]} and {other[key]}"
                raise ValueError(f"{first} and {name} can't be compared, {what}{values}")
    point = one["worst_case"]
    epsilon = f"at {point['epsilon']:g} = {point['epsilon_255']:.4g}/255"
    rows = [["", "clean", epsilon, "attacks", "checks"]]
    for name, report in reports.items():
        worst = report["worst_case"]
        attacks = ", ".join(attack["label"] for attack in report["attacks"])
        clean = _share(report["clean"], report["clean_interval"])
        rows.append([name, clean, _share(worst["accuracy"], worst["interval"]), attacks, _verdict(report)])
    lines = [
        f"{one['dataset']}, {one['examples']} {one['split']} images, {one['norm']}: "
        "accuracy in per cent (95 % interval)",
        "",
        *_aligned(rows),
    ]
    curves = {
        name: {point["epsilon"]: point["accuracy"] for point in report["curve"]} for name, report in reports.items()
    }
    shared = [epsilon for epsilon in curves[first] if all(epsilon in curve for curve in curves.values())]
    if len(shared) > 2:
        rows = [["epsilon", *(f"{epsilon:g}" for epsilon in shared)]]
        rows += [[name, *(f"{100 * curve[epsilon]:.1f}" for epsilon in shared)] for name, curve in curves.items()]
        lines += ["", *_aligned(rows)]
    if len({json.dumps(report["attacks"], sort_keys=True) for report in reports.values()}) > 1:
        lines += ["", "The attacks differ: a classifier that met fewer or weaker ones looks better than it is."]
    return lines


def _share(accuracy: float, interval: Sequence[float]) -> str:
    return f"{100 * accuracy:.1f} ({100 * interval[0]:.1f} - {100 * interval[1]:.1f})"


def _verdict(report: dict) -> str:
    """What the checks of an evaluation say, in a few words."""
    if not report.get("sanity_checked", True):
        return "not made"
    found = {
        status: [check["name"] for check in report["checks"] if check["status"] == status]
        for status in ("pass", "warn", "fail")
    }
    words = [f"{len(found['pass'])} pass"]
    words += [f"{len(found[kind])} {kind} ({'; '.join(found[kind])})" for kind in ("warn", "fail") if found[kind]]
    return ", ".join(words)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command: it has none."""


def main():
    """Runs this command."""
    command_line.main(compare, define_flags, arguments="RUN_OR_JSON ...")


if __name__ == "__main__":
    main()
