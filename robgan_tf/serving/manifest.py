"""What an exported version says of itself: `assets.extra/manifest.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

FILE = os.path.join("assets.extra", "manifest.json")

# What a report of the evaluation tells about accuracy under attack; the rest stays in robustness.json.
_ACCURACY = ("split", "examples", "clean", "clean_interval", "curve", "worst_case", "attacks", "seed")


def describe_input(image_shape: Sequence[int], max_pixels: int) -> dict:
    """What the signatures take, for whoever writes a client."""
    shape = [None, *image_shape]
    return {
        "image_shape": list(image_shape),
        "signatures": {
            "serving_default": {"name": "images", "dtype": "uint8", "shape": shape, "scale": [0, 255]},
            "encoded": {"name": "encoded", "dtype": "string", "shape": [None], "formats": ["JPEG", "PNG"]},
            "classify": {
                "name": "inputs",
                "dtype": "string",
                "shape": [None],
                "feature": "image/encoded",
                "formats": ["JPEG", "PNG"],
            },
            "logits": {"name": "images", "dtype": "float32", "shape": shape, "scale": [-1, 1]},
        },
        "max_pixels": max_pixels,
    }


def describe_accuracy(report: Mapping | None) -> dict | None:
    """Clean and robust accuracy with the settings of the attacks, out of `robustness.json`; None without a report."""
    if report is None:
        return None
    accuracy = {key: report[key] for key in _ACCURACY if key in report}
    accuracy["checks"] = [
        {key: check.get(key) for key in ("name", "status", "message")} for check in report.get("checks", ())
    ]
    accuracy["failed_checks"] = [check["name"] for check in report.get("checks", ()) if check["status"] == "fail"]
    accuracy["measured_with"] = {"dtype": "float32", "git_commit": report.get("git_commit")}
    return accuracy


def write(directory: str, content: Mapping) -> None:
    """Writes the manifest into the folder of a SavedModel."""
    path = os.path.join(directory, FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read(directory: str) -> dict:
    """Returns the manifest of an exported version.

    Raises:
        ValueError: there is none, or it can't be read.
    """
    path = os.path.join(directory, FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no manifest of an export ({error}).") from error
