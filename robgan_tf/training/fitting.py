"""Trains a stage from Python, on arrays or a `tf.data.Dataset`: no gin, no run directory, no checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data import pipelines
from robgan_tf.data.arrays import examples_from_arrays
from robgan_tf.data.batches import check_augmentations, training_batches
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.keras2 import keras
from robgan_tf.run.progress import Progress
from robgan_tf.training.diagnosis import diagnosis
from robgan_tf.training.monitoring import NonFiniteLossError, finite_values


class Fitting:
    """How a stage is trained without a run: the base of `Stage`, which says how many steps there are."""

    def start(self):
        """Is called before the first step, once the networks have the weights that the stage starts with."""

    def finish(self):
        """Is called after the last step of `fit`."""

    def fit(self, images, labels=None, augment: Sequence[Callable] = ()) -> list[dict[str, float]]:
        """Trains the stage from where it is to its last step, and shows its progress.

        Interrupted, it goes on when it is called again. Arrays are drawn in an order that is a function of the seed and
        the step alone; a data set is read from its beginning, again and again, in the order that it has.

        Args:
            images: uint8 [N, H, W, C] in 0..255, N being the `num_examples` of the stage. Or a `tf.data.Dataset` of
                batches, of any size, of (images, labels): float32 in [-1, 1], or uint8 in 0..255, and labels int [B].
            labels: classes from 0, int [N]; None with a data set.
            augment: augmentations of arrays, see `training_batches`.

        Returns:
            Means of all metrics, a dictionary for each epoch, with "step", the number of steps done.

        Raises:
            ValueError: for data that do not fit the stage, or a stage that is done.
            NonFiniteLossError: where a metric is not finite; with the step and a diagnosis.
        """
        if self.steps_done >= self.total_steps:
            raise ValueError(
                f"{self.name_of_stage} has done its {self.total_steps} steps: make a new stage to train on."
            )
        if isinstance(images, tf.data.Dataset):
            if labels is not None or augment:
                raise ValueError(
                    "fit: a tf.data.Dataset holds the labels, and is augmented by its own map: give it alone."
                )
            batches = _batches_of_dataset(self, images)
        else:
            batches = _batches_of_arrays(self, images, labels, augment)
        steps_per_epoch = max(round(self.steps_per_epoch), 1)
        history, entry = [], []
        with self.strategy.scope(), contextlib.closing(Progress(self)) as progress:
            if not self.steps_done:
                self.start()
            iterator = iter(self.strategy.experimental_distribute_dataset(batches))
            take_step = self.step_function()
            for step in range(self.steps_done + 1, self.total_steps + 1):
                try:
                    entry.append(finite_values(self, step, take_step(iterator)))
                except NonFiniteLossError as error:
                    raise NonFiniteLossError(f"{error} {diagnosis(self)} Lower the learning rate.", step) from error
                progress.advance(step)
                if step % steps_per_epoch == 0 or step == self.total_steps:
                    means = {name: float(np.mean([metrics[name] for metrics in entry])) for name in entry[0]}
                    history.append({"step": step, **means})
                    progress.show(means)
                    entry = []
            self.finish()
        return history


def _network(stage) -> keras.Model:
    """Returns a network that knows the number of classes and the shape of the images."""
    return next(iter(stage.players.values()))


def _batches_of_arrays(stage, images, labels, augment) -> tf.data.Dataset:
    network = _network(stage)
    examples = examples_from_arrays(images, labels, network.num_classes)
    _check_shape(stage, examples.image_shape)
    if len(examples) != stage.num_examples:
        raise ValueError(
            f"fit: {len(examples)} images, and the stage was made for num_examples = {stage.num_examples}, by which it "
            f"counts its epochs: make them equal."
        )
    check_augmentations(augment, examples.image_shape)
    options = {"first_step": stage.steps_done, "steps": stage.total_steps, "seed": stage.seed, "augment": augment}
    return training_batches(examples, stage.images_per_step, **options)


def _batches_of_dataset(stage, dataset: tf.data.Dataset) -> tf.data.Dataset:
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2 and [len(one.shape) for one in spec] == [4, 1]):
        raise ValueError(
            f"fit: a data set must give batches of images [B, H, W, C] and labels [B], got {spec}; of single examples "
            f"dataset.batch({stage.images_per_step}) makes batches."
        )
    pixels = spec[0].dtype
    if pixels not in (tf.uint8, tf.float32) or not spec[1].dtype.is_integer:
        raise ValueError(
            f"fit: images must be float32 in [-1, 1] or uint8 in 0..255, and labels integers; got {pixels.name} and "
            f"{spec[1].dtype.name}."
        )
    _check_shape(stage, tuple(spec[0].shape[1:]))
    first = next(iter(dataset.take(1).as_numpy_iterator()), None)
    if first is None:
        raise ValueError("fit: the data set is empty.")
    if pixels == tf.float32 and np.max(np.abs(first[0])) > 1:
        raise ValueError(
            f"fit: float32 images must be in [-1, 1], and go from {np.min(first[0]):g} to {np.max(first[0]):g}: give "
            f"images / 127.5 - 1 of 0..255, or uint8."
        )

    @tf.autograph.experimental.do_not_convert
    def prepare(images, labels):
        return images if pixels == tf.float32 else to_pixel_range(images), tf.cast(labels, tf.int32)

    # Without an end: the stage knows how many steps there are.
    batches = dataset.map(prepare).repeat().rebatch(stage.images_per_step, drop_remainder=True).prefetch(2)
    return batches.with_options(pipelines.untuned())


def _check_shape(stage, image_shape: tuple):
    expected = tuple(_network(stage).image_shape)
    if image_shape != expected:
        raise ValueError(f"fit: the images are {image_shape}, and the networks of the stage for {expected}.")
