"""The metrics of a run: what each is called, its unit, and the chart that it belongs to.

The module that computes a metric declares it there, once. The progress line, TensorBoard and the pages read the
declaration. A run keeps the declarations of its metrics in `metrics.json`, so that a page can be made without importing
what computed them. A metric that nobody declared, e.g. of an older run, is shown under its name.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence

# The groups of charts, in the order in which they are shown.
GROUPS = ("health", "generator", "discriminator", "classifier", "sigma", "machine")
# The unit of a value from 0 to 1 that is shown in per cent.
SHARE = "%"
# The declarations in a run's folder.
FILE = "metrics.json"
# What a line of metrics.jsonl says beside its metrics.
NOT_METRICS = ("stage", "step", "images_seen", "wall_seconds")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as people see it.

    Attributes:
        name: its key in `metrics.jsonl`.
        label: a few words for it, in the progress line and beside its curve.
        chart: title of the chart on the run's page. Metrics with the same title share a chart.
        group: one of `GROUPS`.
        unit: what its value is counted in, `SHARE` for a share; empty where there is none.
        tag: its name within the group in TensorBoard, which cuts long ones; if empty, `name` without the group.
        description: what it means, in a sentence.
        healthy: what it looks like in a healthy run, in sentences, for beside its chart.

    Raises:
        ValueError: for an unknown group.
    """

    name: str
    label: str
    chart: str
    group: str = "machine"
    unit: str = ""
    tag: str = ""
    description: str = ""
    healthy: str = ""

    def __post_init__(self):
        if self.group not in GROUPS:
            raise ValueError(f"Metric.group of {self.name} must be one of {', '.join(GROUPS)}; got {self.group!r}.")

    @property
    def tensorboard(self) -> str:
        """Its tag in TensorBoard, which sorts groups by their names: hence the number in front."""
        return f"{group_tag(self.group)}/{self.tag or self.name.removeprefix(f'{self.group}_')}"

    def text(self, value: float) -> str:
        """Returns a value with its unit: "93 %", "1.25", "312 images/s"."""
        if self.unit == SHARE:
            return f"{100 * value:.0f} %"
        return f"{value:.3g} {self.unit}".rstrip()


_declared: dict[str, Metric] = {}


def declare(*metrics: Metric):
    """Makes metrics known, to be called where they are computed. The same declaration may come twice.

    Raises:
        ValueError: where another metric has the name already.
    """
    for metric in metrics:
        if _declared.setdefault(metric.name, metric) != metric:
            raise ValueError(f"The metric {metric.name!r} is declared already, as {_declared[metric.name]}.")


def declare_of_player(player: str, *metrics: Metric):
    """Declares metrics named `<player>_<name>` from metrics named `<name>`, with the player as group and label."""
    declare(
        *(dataclasses.replace(metric, name=f"{player}_{metric.name}", label=player, group=player) for metric in metrics)
    )


def described(name: str) -> Metric:
    """Returns the declaration of a metric; where there is none, one made of its name."""
    return _declared.get(name) or _from_name(name)


def declarations(names: Iterable[str], kept: dict[str, Metric]) -> dict:
    """Returns the declarations of metrics, as JSON, in the order of their groups and then as they were declared.

    Args:
        names: the metrics.
        kept: what a run's folder holds already: all of it stays, and is replaced where it is declared anew.
    """
    metrics = [_declared.get(name) or kept.get(name) or _from_name(name) for name in dict.fromkeys([*kept, *names])]
    return {metric.name: dataclasses.asdict(metric) for metric in _sorted(metrics, list(_declared))}


def read_declarations(folder: pathlib.Path) -> dict[str, Metric]:
    """Returns the declarations that a run's folder holds, by name; none for a run that kept none."""
    path = folder / FILE
    return {name: Metric(**fields) for name, fields in json.loads(path.read_text()).items()} if path.exists() else {}


@dataclasses.dataclass(frozen=True)
class Chart:
    """Metrics to be drawn in one frame.

    Attributes:
        title: its title.
        group: one of `GROUPS`: that of its first metric.
        unit: the unit of all of its values.
        lines: the metrics, with their points (step, value).
    """

    title: str
    group: str
    unit: str
    lines: list[tuple[Metric, list[tuple[int, float]]]]


def charts(records: Sequence[dict], folder: pathlib.Path) -> list[Chart]:
    """Returns the charts of one stage, in the order in which they are to be shown.

    Args:
        records: lines of `metrics.jsonl`, of one stage.
        folder: the run's folder, for the declarations.
    """
    declared = read_declarations(folder)
    names = dict.fromkeys(name for record in records for name in record if name not in NOT_METRICS)
    metrics = _sorted([declared.get(name) or described(name) for name in names], list(declared))
    found: dict[tuple[str, str], Chart] = {}
    for metric in metrics:
        chart = found.setdefault((metric.chart, metric.unit), Chart(metric.chart, metric.group, metric.unit, []))
        chart.lines.append((metric, [(one["step"], one[metric.name]) for one in records if metric.name in one]))
    return list(found.values())


def group_tag(group: str) -> str:
    """Returns the name of a group in TensorBoard."""
    return f"{GROUPS.index(group) + 1}_{group}"


def _sorted(metrics: Iterable[Metric], order: Sequence[str]) -> list[Metric]:
    """By group, then as in `order`; those that are not there last."""
    places = {name: place for place, name in enumerate(order)}
    return sorted(metrics, key=lambda one: (GROUPS.index(one.group), places.get(one.name, len(places))))


def _from_name(name: str) -> Metric:
    player, _, rest = name.partition("_")
    unit = SHARE if name.endswith(("accuracy", "share")) else ""
    if rest and player in ("generator", "discriminator", "classifier"):
        return Metric(name, player, _words(rest), player, unit, rest)
    group = "health" if name.endswith("accuracy") else "machine"
    return Metric(name, _words(name).lower(), "Accuracy" if group == "health" else _words(name), group, unit)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
