"""The report for people: `robustness.json` as one HTML page that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from robgan_tf.pages.charts import accuracy_section
from robgan_tf.pages.elements import (
    Html,
    box,
    element,
    escaped,
    image,
    percent,
    section,
    shaded,
    table,
    tile,
    write_page,
)
from robgan_tf.pages.elements import page as whole_page

_STATUS = {"fail": "✕ fail", "warn": "! warn", "pass": "✓ pass"}
# Confusion matrices of more classes than this are shown as a list of the most frequent confusions.
_MOST_CLASSES = 20


def write_report(report: dict, path: str | os.PathLike, images: Mapping | None = None) -> None:
    """Writes one self-contained page: inline style and figures, no script, no request to anywhere.

    Args:
        report: what `robustness.json` holds.
        path: of the file, e.g. `<run_dir>/robustness.html`; it is replaced as a whole.
        images: n adversarial examples to show, or None: `clean` and `adversarial`, float32 [n, H, W, C] in [-1, 1];
            `labels` and `predictions` (those under attack), int [n]; `epsilon`, float [n]; `attack`, n names.
    """
    write_page(path, page(report, images))


def page(report: dict, images: Mapping | None = None) -> str:
    """Returns the HTML of `write_report`."""
    title = f"Accuracy under attack: {report['dataset']}"
    parts = (
        _head(report, title),
        _summary(report),
        accuracy_section(report),
        _attacks(report),
        _examples(report, images),
        _classes(report),
        _corruptions(report),
        _checks(report),
        _settings(report),
    )
    return whole_page(title, parts)


def _status(status: str) -> Html:
    return element("b", _STATUS.get(status, status), class_=status)


def _head(report, title) -> Html:
    """Title, what failed, what is to be said."""
    checks = report.get("checks") or []
    by_status = {status: [check for check in checks if check["status"] == status] for status in _STATUS}
    source = f"Classifier: {report['saved_model']}. " if report.get("saved_model") else ""
    subtitle = f"{source}{report['examples']} test images, {report.get('norm', '')} threat model."
    parts = [element("h1", title), element("p", subtitle, class_="dim")]
    upper_bound = "Accuracy under the attacks named here is an upper bound: a stronger attack can only lower it."
    if by_status["fail"]:
        words = f"{len(by_status['fail'])} of {len(checks)} checks failed: do not trust the accuracies below."
        parts.append(box("fail", words, _named(by_status["fail"])))
    if by_status["warn"]:
        parts.append(box("warn", f"{len(by_status['warn'])} of {len(checks)} checks warn.", _named(by_status["warn"])))
    if not report.get("sanity_checked", checks):
        parts.append(box("warn", f"The sanity checks were not run. {upper_bound}"))
    elif len(by_status["pass"]) == len(checks):
        parts.append(box("pass", f"All {len(checks)} checks passed. {upper_bound}"))
    if report.get("notes"):
        parts.append(element("div", element("ul", *(element("li", note) for note in report["notes"])), class_="box"))
    return element("header", *parts)


def _named(checks) -> list[tuple]:
    return [(element("b", check["name"]), ": ", check["message"]) for check in checks]


def _summary(report) -> Html:
    worst, train = report.get("worst_case"), report.get("train") or {}
    tiles = [tile(percent(report["clean"]), f"clean accuracy {_range(report.get('clean_interval'))}")]
    if worst:
        where = f"under attack at epsilon {worst['epsilon']:.4g} ({worst['epsilon_255']:.4g}/255)"
        tiles.append(tile(percent(worst["accuracy"]), f"{where} {_range(worst.get('interval'))}"))
        same = [point for point in train.get("curve", ()) if point["epsilon"] == worst["epsilon"]]
        if same:
            gap = 100 * (same[0]["accuracy"] - worst["accuracy"])
            tiles.append(tile(f"{gap:+.1f}", "points, train above test at that epsilon: the generalization gap"))
    if report.get("corruptions"):
        tiles.append(tile(percent(report["corruptions"]["mean"]), "mean accuracy on corrupted images"))
    if report.get("lipschitz"):
        words = "mean local Lipschitz value on test images"
        if train.get("lipschitz"):
            words += f"; {train['lipschitz']['mean']:.3g} on training images"
        tiles.append(tile(f"{report['lipschitz']['mean']:.3g}", words))
    return element("div", *tiles, class_="tiles")


def _range(interval) -> str:
    return f"(95 %: {100 * interval[0]:.1f} – {100 * interval[1]:.1f})" if interval else ""


def _attacks(report) -> Html:
    made = {}
    for point in report["curve"]:
        if point.get("attacks"):
            rows = [
                [attack["label"], attack["attacked"], attack["broken"], percent(attack["accuracy"])]
                for attack in point["attacks"]
            ]
            caption = f"Test images at epsilon {point['epsilon']:.4g} ({point['epsilon_255']:.4g}/255)"
            made[point["epsilon"]] = table(caption, ["attack", "attacked", "broken", "accuracy after it"], rows)
    if not made:
        return Html("")
    words = "In the order in which they ran: an image that one attack broke is not attacked again by the next."
    reference = made.pop(report.get("reference_epsilon"), "")
    others = element("details", element("summary", f"{len(made)} other epsilons"), *made.values()) if made else ""
    return section("Attacks", element("p", words, class_="dim"), reference, others)


def _examples(report, images) -> Html:
    if images is None or not len(images["clean"]):
        return Html("")
    names = report["class_names"]
    figures = []
    for clean, adversarial, label, prediction, epsilon, attack in zip(
        *(images[key] for key in ("clean", "adversarial", "labels", "predictions", "epsilon", "attack"))
    ):
        difference = np.asarray(adversarial) - np.asarray(clean)
        magnified = 1 / max(float(np.max(np.abs(difference))), 1e-6)
        words = f"{names[label]} taken for {names[prediction]}"
        three = element(
            "div",
            image(clean, f"{names[label]}, as it is"),
            image(adversarial, f"the same after the attack, {words}"),
            image(difference * magnified, f"the difference, {magnified:.0f} times magnified"),
            class_="three",
        )
        caption = (
            f"{words} at epsilon {epsilon:.4g} ({127.5 * epsilon:.4g}/255), {attack}. Difference × {magnified:.3g}."
        )
        figures.append(element("figure", three, element("figcaption", caption)))
    words = (
        "Images that fell at the smallest epsilon: as they are, after the attack, and the difference (grey is none)."
    )
    return section(
        "Worst adversarial examples", element("p", words, class_="dim"), element("div", *figures, class_="examples")
    )


def _classes(report) -> Html:
    parts = []
    if report.get("per_class"):
        known = [row for row in report["per_class"] if row["worst_case"] is not None]
        rest = [row for row in report["per_class"] if row["worst_case"] is None]
        rows = [
            [row["name"], row["examples"], shaded(row["clean"]), shaded(row["worst_case"])]
            for row in sorted(known, key=lambda row: row["worst_case"]) + rest
        ]
        head = ["class", "images", "clean", "under attack"]
        parts.append(_long(table("Accuracy of each class, the weakest first", head, rows), len(rows)))
    for name, words in (("clean", "clean images"), ("worst_case", "images under attack")):
        if report.get("confusion") and report["confusion"].get(name):
            parts.append(_confusion(np.array(report["confusion"][name]), report["class_names"], words))
    return section("Classes", element("div", *parts, class_="columns")) if parts else Html("")


def _long(made, rows) -> Html:
    return made if rows <= _MOST_CLASSES else element("details", element("summary", f"All {rows} classes"), made)


def _confusion(counts, names, words) -> Html:
    """Rows are true classes, columns what they are taken for."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if len(names) <= _MOST_CLASSES:
        rows = [
            [name, *(shaded(share, int(count) if count else "") for share, count in zip(*line))]
            for name, *line in zip(names, shares, counts)
        ]
        return table(f"Confusion on {words}: true class (row) taken for (column)", ["", *names], rows)
    wrong = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CLASSES]
    pairs = [divmod(int(place), len(names)) for place in most if wrong.flat[place]]
    rows = [
        [names[true], names[taken], int(counts[true, taken]), percent(shares[true, taken])] for true, taken in pairs
    ]
    return table(f"Most frequent confusions on {words}", ["class", "taken for", "images", "of the class"], rows)


def _corruptions(report) -> Html:
    found = report.get("corruptions")
    if not found:
        return Html("")
    rows = [
        [name.replace("_", " "), *map(shaded, accuracies), percent(float(np.mean(accuracies)))]
        for name, accuracies in found["by_corruption"].items()
    ]
    severities = max(map(len, found["by_corruption"].values()))
    head = ["corruption", *range(1, severities + 1), "mean"]
    words = ["Mean over all: ", element("b", percent(found["mean"])), f"; clean: {percent(report['clean'])}."]
    return section(
        "Natural corruptions",
        element("p", *words),
        table(f"Accuracy on corrupted test images, at severity 1 to {severities}", head, rows),
    )


def _checks(report) -> Html:
    if not report.get("checks"):
        return Html("")
    words = "What was tried to find masked gradients and faults of the evaluation itself"
    words += f", on {report['check_examples']} test images." if report.get("check_examples") else "."
    items = []
    for check in sorted(report["checks"], key=lambda check: list(_STATUS).index(check["status"])):
        figure = "" if check.get("value") is None else f" ({escaped(check['value'])})"
        items.append(
            element("li", _status(check["status"]), " ", element("b", check["name"]), f"{figure}: ", check["message"])
        )
    return section("Checks", element("p", words, class_="dim"), element("ul", *items, class_="checks"))


def _settings(report) -> Html:
    parts = []
    for attack in report.get("attacks") or []:
        rows = [[name.replace("_", " "), _value(value)] for name, value in attack.items() if name != "label"]
        made = element("div", table(f"All settings of {attack['label']}", ["setting", "value"], rows), class_="wide")
        parts.append(element("details", element("summary", attack["label"]), made))
    made = {
        "data set": report["dataset"],
        "test images": report["examples"],
        "training images": (report.get("train") or {}).get("examples"),
        "pixel scale": f"{report['pixel_range']}: epsilon 0.0627 here is the usual 8/255 of images in [0, 1]",
        "norm": report.get("norm"),
        "seed": report.get("seed"),
        "images at once": report.get("batch_size"),
        "counting": (report.get("attack") or {}).get("counting"),
        **{f"RobustBench: {name}": value for name, value in (report.get("robustbench") or {}).items()},
        **(report.get("versions") or {}),
        "git commit": report.get("git_commit"),
        "seconds": report.get("wall_seconds"),
        "command": "python -m robgan_tf.evaluate, which writes the same figures to robustness.json",
    }
    rows = [[name, _value(value)] for name, value in made.items()]
    summary = element("div", table("How this page was made", ["", ""], rows), class_="wide")
    return section("Settings", *parts, summary)


def _value(value) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
