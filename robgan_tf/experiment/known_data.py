"""Whether the data at hand are those that a run is trained on."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

from absl import logging

from robgan_tf.data.datasets import ImageData
from robgan_tf.data.description import describe, differences, uneven_classes
from robgan_tf.data.files import write_json
from robgan_tf.run.directory import RunDirectory

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment


class DataChangedError(ValueError):
    """The data at hand are not those that a run is trained on."""


def check_data(experiment: Experiment, run_directory: RunDirectory, keep: bool = False):
    """Compares the data with those that the run is trained on.

    Args:
        experiment: all parts.
        run_directory: the run.
        keep: whether to write the description of the data where the run has none yet.

    Raises:
        DataChangedError: where they differ, with the classes that do.
    """
    experiment.workers.on_chief(lambda: _check(experiment.data, run_directory.data, keep))


def _check(data: ImageData, path: pathlib.Path, keep: bool):
    if not path.exists() and not keep:
        return
    described = describe(data)
    if not path.exists():
        write_json(path, described)
        uneven = uneven_classes(described)
        if uneven:  # once in a run: every later command finds the description
            logging.warning("%s", uneven)
        return
    try:
        found = differences(json.loads(path.read_text()), described)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise DataChangedError(
            f"{path}, the description of the run's data, can't be read ({error}): restore it from a copy, or remove it "
            f"if you are sure that the data are those of the run."
        ) from error
    if found:
        raise DataChangedError(
            f"The data ({data.name}) are not those that {path.parent} is trained on: {found}. Restore them, give the "
            f"path of the run's data by --gin_param, or train in a new --run_dir."
        )
