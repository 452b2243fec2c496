"""A profile of some training steps, for TensorBoard's tab Profile."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from robgan_tf.keras2 import keras


class Profiler(keras.callbacks.Callback):
    """Profiles the steps `first` to `last` of a stage; a context that also ends a profile where training breaks off.

    Args:
        stage: the stage that is trained.
        folder: where the profile goes: the stage's TensorBoard folder.
        first: the first step to profile, counted from 1. Not the first of a process, which traces and compiles.
        last: the last one.
    """

    def __init__(self, stage, folder: pathlib.Path, first: int, last: int):
        super().__init__()
        self.stage = stage
        self.folder = folder
        self.first = first
        self.last = last
        self._running = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *error):
        self._stop()

    def on_train_begin(self, logs=None):
        """Starts to count at the stage's step."""
        self._begin = self.stage.steps_done

    def on_train_batch_begin(self, batch, logs=None):
        """Starts the profile before its first step; where the run goes on in the middle, there."""
        step = self._begin + batch + 1
        if not self._running and self.first <= step <= self.last:
            tf.profiler.experimental.start(str(self.folder))
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        """Ends the profile after its last step."""
        if self._begin + batch + 1 >= self.last:
            self._stop()

    def _stop(self):
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
            print(f"profile of {self.stage.name_of_stage}: {self.folder}/plugins/profile", flush=True)
