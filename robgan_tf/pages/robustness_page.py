"""The page for people of an evaluation: what `robustness.json` holds."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from robgan_tf.data.files import write_text
from robgan_tf.pages.charts import accuracy_chart
from robgan_tf.pages.rendering import png, render

# Confusion matrices of more classes than this are shown as a list of the most frequent confusions.
_MOST_CLASSES = 20


def write_report(report: dict, path: str | os.PathLike, images: Mapping | None = None) -> None:
    """Writes one self-contained page: inline style and figures, no script, no request to anywhere.

    Args:
        report: what `robustness.json` holds; parts that older versions did not write may be missing.
        path: of the file, e.g. `<run_dir>/robustness.html`; it is replaced as a whole.
        images: n adversarial examples to show, or None: `clean` and `adversarial`, float32 [n, H, W, C] in [-1, 1];
            `labels` and `predictions` (those under attack), int [n]; `epsilon`, float [n]; `attack`, n names.
    """
    write_text(pathlib.Path(path), page(report, images))


def page(report: dict, images: Mapping | None = None) -> str:
    """Returns the HTML of `write_report`."""
    worst, train = report.get("worst_case"), report.get("train") or {}
    same = [point for point in train.get("curve", ()) if worst and point["epsilon"] == worst["epsilon"]]
    return render(
        "robustness.html",
        title=f"Accuracy under attack: {report['dataset']}",
        report=report,
        curve=accuracy_chart(report),
        gap=100 * (same[0]["accuracy"] - worst["accuracy"]) if same else None,
        examples=_examples(report, images),
        classes=_weakest_first(report.get("per_class") or []),
        most_classes=_MOST_CLASSES,
        confusions=_confusions(report),
    )


def _examples(report, images) -> list[dict]:
    """The adversarial examples, each with its three pictures as PNG."""
    if images is None:
        return []
    names, keys = report["class_names"], ("clean", "adversarial", "labels", "predictions", "epsilon", "attack")
    examples = []
    for clean, adversarial, label, prediction, epsilon, attack in zip(*(images[key] for key in keys)):
        change = np.asarray(adversarial) - np.asarray(clean)
        factor = 1 / max(float(np.max(np.abs(change))), 1e-6)
        examples.append(
            {
                "label": names[label],
                "prediction": names[prediction],
                "point": {"epsilon": float(epsilon), "epsilon_255": 127.5 * float(epsilon)},
                "attack": attack,
                "factor": factor,
                "pictures": {"clean": png(clean), "attacked": png(adversarial), "change": png(change * factor)},
            }
        )
    return examples


def _weakest_first(rows) -> list[dict]:
    """Classes by their accuracy under attack; those without images last."""
    return sorted(rows, key=lambda row: (row["worst_case"] is None, row["worst_case"] or 0.0))


def _confusions(report) -> list[dict]:
    """For clean and attacked images a matrix of counts and shares, or the most frequent confusions of many classes."""
    names, found = report.get("class_names"), []
    for kind, words in (("clean", "clean images"), ("worst_case", "images under attack")):
        counts = np.array((report.get("confusion") or {}).get(kind) or [], int)
        if not counts.size:
            continue
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        if len(names) <= _MOST_CLASSES:
            rows = [
                {"name": name, "cells": list(zip(*line))}
                for name, *line in zip(names, shares.tolist(), counts.tolist())
            ]
            found.append({"words": words, "matrix": rows})
            continue
        wrong = counts * (1 - np.eye(len(names), dtype=int))
        most = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CLASSES]
        pairs = [divmod(int(place), len(names)) for place in most if wrong.flat[place]]
        rows = [(names[true], names[taken], int(counts[true, taken]), shares[true, taken]) for true, taken in pairs]
        found.append({"words": words, "pairs": rows})
    return found
