"""Where a run is written: whether it can be, and what it needs of the disk."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import TYPE_CHECKING

from robgan_tf.experiment.footprint import bytes_of, variables_of

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment
    from robgan_tf.training.stage import Stage

# The exported graph, with its signatures.
_EXPORTED_GRAPH_BYTES = 2**19
# The two best classifiers, and the one that is being written.
_BEST_CHECKPOINTS = 3
# Cells of both image grids: 10 x 8 generated images, and 3 x 8 attacked ones.
_GRID_CELLS = 104
GRIDS = "image grids, at most"


class DiskError(ValueError):
    """A run can't be written where it is to be."""


def disk_needs(experiment: Experiment) -> dict[str, int]:
    """Returns the bytes that a whole run writes, by what it is."""
    needs = {}
    upkeep, classifier = experiment.upkeep, bytes_of(experiment.classifier.variables)
    for stage in experiment.training_stages:
        # Those that are kept, and the one that is being written.
        count = upkeep.keep_checkpoints + 1 + (stage.total_steps // upkeep.keep_every if upkeep.keep_every else 0)
        needs[f"checkpoints of {stage.name_of_stage}"] = count * checkpoint_bytes(stage)
    if experiment.finetuning is not None:
        needs["checkpoints of the best classifiers"] = _BEST_CHECKPOINTS * classifier
    if experiment.cotraining is not None:
        height, width, _ = experiment.data.image_shape
        written = experiment.cotraining.total_steps // experiment.configuration.sample_every
        # Uncompressed RGB, and twice: as PNG and for TensorBoard.
        needs[GRIDS] = 2 * written * _GRID_CELLS * height * width * 3
    needs["export"] = classifier + _EXPORTED_GRAPH_BYTES
    return needs


def checkpoint_bytes(stage: Stage) -> int:
    """Returns the bytes of one checkpoint of a stage."""
    return bytes_of([variable for owner in stage.checkpoint_objects().values() for variable in variables_of(owner)])


def check_disk(experiment: Experiment, run_dir: str | os.PathLike):
    """Checks, before the first step, that a run can be written to its end.

    Image grids are left out, since their size on the disk is not known before.

    Raises:
        DiskError: where the folder can't be made or written, or the disk has too little left.
    """
    run_dir = pathlib.Path(run_dir).absolute()
    existing = existing_part(run_dir)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is no folder" if not existing.is_dir() else "can't be written"
        raise DiskError(f"--run_dir={run_dir}: {existing} {reason}: give another --run_dir.")
    needed = sum(size for name, size in disk_needs(experiment).items() if name != GRIDS)
    # What is there of this run already will be written over, or is kept.
    needed -= sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
    free = free_bytes(run_dir)
    if needed > free:
        raise DiskError(
            f"--run_dir={run_dir}: checkpoints and export need {readable(needed)}, {readable(free)} are free: give "
            f"another --run_dir, make room, or lower Upkeep.keep_checkpoints (or Upkeep.keep_every) if you raised it."
        )


def free_bytes(run_dir: pathlib.Path) -> int:
    """Returns the bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(existing_part(run_dir.absolute())).free


def existing_part(path: pathlib.Path) -> pathlib.Path:
    """Returns an absolute path itself if it exists, else the nearest folder above it that does."""
    return next(part for part in (path, *path.parents) if part.exists())


def readable(count: int) -> str:
    """Returns a number of bytes for people."""
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
