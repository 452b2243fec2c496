"""Checkpoints that can be trusted: written aside and renamed, with checksums, and never overwritten."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil

import tensorflow as tf
from absl import logging

from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.files import flush
from robgan_tf.run.workers import Workers

_CHECKSUMS = "checksums.json"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none is whole."""


class Checkpoints:
    """The checkpoints of some objects: a folder `<step>/` for each, with their values, checksums and notes.

    A folder has its name only once it is complete, so a kill at any moment leaves what was there before.

    Args:
        folder: where they are; made at the first save.
        objects: what is saved, by name: models, optimizers, variables.
        keep: number of newest ones to keep.
        keep_every: keeps those at multiples of so many steps, too; 0 for none.
        workers: the processes that train together. All must save and restore at the same steps; the chief alone reads
            and writes.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        objects: dict,
        keep: int = 2,
        keep_every: int = 0,
        workers: Workers | None = None,
    ):
        if keep < 1 or keep_every < 0:
            raise ValueError(
                f"Checkpoints to keep: the newest must be 1 or more and every 0 or more, got {keep} and {keep_every}."
            )
        self.folder = pathlib.Path(folder)
        self.objects = objects
        self.keep = keep
        self.keep_every = keep_every
        self.workers = workers or Workers()
        self._damaged = []

    @property
    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, in rising order."""
        return self.workers.on_chief(lambda: steps_in(self.folder))

    def save(self, step: int, notes: dict | None = None):
        """Writes a checkpoint; what is not to be kept goes once it is there.

        Args:
            step: number of steps done.
            notes: small values to keep with it, as JSON.

        Raises:
            CheckpointError: where it can't be written, e.g. for lack of space; those before stay as they were.
        """
        self.workers.on_chief(lambda: self._write(step, notes or {}))

    def _write(self, step: int, notes: dict):
        final = self.folder / f"{step:08d}"
        partial = self.folder / f".{step:08d}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            tf.train.Checkpoint(**self.objects).write(str(partial / "values"))
            (partial / "notes.json").write_text(json.dumps(notes))
            sums = {path.name: file_checksum(path) for path in sorted(partial.iterdir())}
            (partial / _CHECKSUMS).write_text(json.dumps(sums))
            for path in partial.iterdir():
                flush(path)
            if final.exists():  # a run that fell back to an earlier one came here again
                _set_aside(final) if final in self._damaged else _remove(final)
            os.replace(partial, final)
            for path in self._damaged:
                if path != final and path.exists():
                    _set_aside(path)
            self._damaged = []
            flush(self.folder)
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(self._why_not_written(step, error)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for later in steps_in(self.folder):
            if later > step:  # of what was given up when the run fell back: the newest must be this one
                _remove(self.folder / f"{later:08d}")
        for old in steps_in(self.folder)[: -self.keep]:
            if not self.keep_every or old % self.keep_every:
                _remove(self.folder / f"{old:08d}")

    def restore(self) -> dict | None:
        """Loads the newest whole checkpoint into the objects.

        A damaged one is named in a warning, and the one before it is taken. Nothing is changed in the folder, where
        another process may be training: the next `save` sets it aside, as `<step>.damaged`.

        Returns:
            The notes it was saved with, or None where there is no checkpoint at all.

        Raises:
            CheckpointError: where there are checkpoints, but none is whole.
        """
        newest = self.workers.on_chief(self._newest_whole)
        if newest is None:
            return None
        with self.workers.copy_of(newest) as path:
            values = tf.train.Checkpoint(**self.objects).read(str(path / "values"))
            values.assert_existing_objects_matched()
            return json.loads((path / "notes.json").read_text())

    def _newest_whole(self) -> pathlib.Path | None:
        damages, gone = {}, set()
        while True:
            # Anew after each that is not whole: who trains may have removed it, and written others.
            left = [path for path in _paths_in(self.folder) if path not in damages and path not in gone]
            if not left:
                break
            path = left[-1]
            damage = _damage(path)
            if damage is None:
                self._damaged = list(damages)
                return path
            if path.exists():
                damages[path] = damage
                logging.warning("checkpoint %s is damaged (%s): the one before is used", path, damage)
            else:
                gone.add(path)
        if damages:
            raise CheckpointError(
                f"no checkpoint is whole: {', '.join(f'{path} ({damage})' for path, damage in damages.items())}. Put a "
                f"copy in place, or start anew in another --run_dir."
            )
        return None

    def _why_not_written(self, step: int, error: Exception) -> str:
        needed = sum(variable.dtype.size * variable.shape.num_elements() for variable in self._variables())
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        message = f"the checkpoint of step {step} could not be written to {self.folder} "
        message += f"({_reason(error)}). It needs {needed / 2**20:.2f} MiB and {free / 2**20:.2f} MiB are free. "
        newest = newest_whole(self.folder)
        return message + (f"Those before are whole, the newest is of step {int(newest.name)}." if newest else "")

    def _variables(self) -> list[tf.Variable]:
        found = []
        for tracked in self.objects.values():
            found.extend([tracked] if isinstance(tracked, tf.Variable) else tracked.variables)
        return found


def steps_in(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, in rising order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def newest_whole(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the newest checkpoint in a folder whose checksums are right, or None."""
    return next((path for path in reversed(_paths_in(folder)) if _damage(path) is None), None)


def _paths_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return [folder / f"{step:08d}" for step in steps_in(folder)]


def _reason(error: Exception) -> str:
    """The first line of an error, without TensorFlow's names of graph nodes."""
    return re.sub(r"\{\{.*?\}\} |\[Op:\w+\]", "", str(error).splitlines()[0]).strip()


def _damage(path: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = json.loads((path / _CHECKSUMS).read_text())
        for name, expected in sums.items():
            if file_checksum(path / name) != expected:
                return f"{name} has a wrong checksum"
    except FileNotFoundError as error:
        return f"{pathlib.Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"it can't be read: {error}"
    return None


def _set_aside(path: pathlib.Path):
    shutil.rmtree(f"{path}.damaged", ignore_errors=True)
    os.replace(path, f"{path}.damaged")


def _remove(path: pathlib.Path):
    """Removes a folder in such an order that it is never seen half-removed under its name."""
    gone = path.with_name(f".{path.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(path, gone)
    shutil.rmtree(gone, ignore_errors=True)
