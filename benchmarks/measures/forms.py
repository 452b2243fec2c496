"""Each of the faster forms of `robgan_tf.layers` against the plain one, by itself, over the shapes of the networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf
from absl import flags

from measures.configured import build_stage, configure_by_flags, random_batch
from measures.timing import Series, alternate, timed
from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import EPSILON, ConditionalBatchNorm
from robgan_tf.layers.convolution import (
    convolve,
    convolve_and_downsample,
    convolve_image,
    convolve_to_image,
    downsample,
    upsample,
    upsample_and_convolve,
)
from robgan_tf.run import devices

FLAGS = flags.FLAGS
CLASSES = 10


class Form(NamedTuple):
    """Two ways to the same result, as functions of images and a 3x3 kernel."""

    fast: Callable
    plain: Callable
    shapes: tuple[tuple[int, int, int], ...]  # side, channels in and out


# Shapes of the discriminator and the generator at 32 px (ch 16 and 64), 64 px (ch 32) and 128 px (ch 16).
FORMS = {
    "convolve_and_downsample": Form(
        convolve_and_downsample,
        lambda images, kernel: downsample(convolve(images, kernel)),
        ((32, 32, 32), (32, 128, 128), (64, 32, 32), (16, 64, 128), (128, 16, 16)),
    ),
    "upsample_and_convolve": Form(
        upsample_and_convolve,
        lambda images, kernel: convolve(upsample(images), kernel),
        ((4, 64, 64), (16, 64, 64), (16, 256, 256), (32, 64, 32), (64, 32, 16)),
    ),
    "convolve_image": Form(convolve_image, convolve, ((32, 3, 32), (32, 3, 128), (64, 3, 32), (128, 3, 16))),
    "convolve_to_image": Form(convolve_to_image, convolve, ((32, 64, 3), (32, 256, 3), (64, 32, 3), (128, 16, 3))),
}


def measure_forms() -> Iterator[Series]:
    """Ratios plain / fast: of convolutions, of batch norm in training, and of attacks without and with held kernels."""
    for precision in FLAGS.precision:
        dtype = keras.mixed_precision.Policy(precision).compute_dtype
        for name, form in FORMS.items():
            for side, channels, filters in form.shapes:
                images = tf.cast(tf.random.normal([FLAGS.batch, side, side, channels]), dtype)
                kernel = tf.random.normal([3, 3, channels, filters]) / (3 * channels**0.5)
                pair = {"plain": form.plain, "fast": form.fast}
                yield from _compare(f"{name} {side} px {channels}->{filters} {dtype}", pair, [images, kernel])
        for side, channels in ((32, 64), (16, 256), (128, 16)):
            images = tf.cast(tf.random.normal([FLAGS.batch, side, side, channels]), dtype)
            with devices.precision(precision):
                yield from _compare(f"batch norm {side} px {channels} {dtype}", _batch_norms(channels), [images])
        yield from _held(precision)


def _compare(label: str, pair: dict[str, Callable], tensors: list[tf.Tensor]) -> Iterator[Series]:
    """The result alone, with the gradient in the images (an attack), and with all gradients (an update)."""
    upstream = tf.random.normal(pair["plain"](*tensors).shape)

    def gradients(function, of):
        def call():
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(of)
                output = function(*tensors)
            return output, tape.gradient(output, of, tf.cast(upstream, output.dtype))

        return call

    kinds = {"result": lambda function: lambda: function(*tensors), "attack": lambda f: gradients(f, tensors[:1])}
    if len(tensors) > 1:
        kinds["update"] = lambda function: gradients(function, tensors)
    for kind, make in kinds.items():
        functions = {name: timed(tf.function(make(function), autograph=False)) for name, function in pair.items()}
        series = alternate(functions)
        yield Series(f"{label}, {kind}: plain / fast", series["plain"].values / series["fast"].values, "")


def _batch_norms(channels: int) -> dict[str, Callable]:
    layer = ConditionalBatchNorm(CLASSES)
    layer.build(tf.TensorShape([None, None, None, channels]))
    labels = tf.range(FLAGS.batch) % CLASSES

    def plain(images):
        gamma, beta = (tf.gather(table, labels)[:, tf.newaxis, tf.newaxis, :] for table in (layer.gamma, layer.beta))
        values = tf.cast(images, tf.float32)
        centred = values - tf.reduce_mean(values, axis=[0, 1, 2])
        variance = tf.reduce_mean(tf.square(centred), axis=[0, 1, 2])
        return tf.cast(centred * (gamma * tf.math.rsqrt(variance + EPSILON)) + beta, images.dtype)

    return {"plain": plain, "fast": lambda images: layer.normalize(images, labels, training=True)[0]}


def _held(precision: str) -> Iterator[Series]:
    """The attack of co-training, with W / sigma computed in each step and once for all steps."""
    configure_by_flags()
    images, labels = random_batch(FLAGS.batch)
    stage = build_stage(precision, images.shape[1:])

    def objective(images):
        return stage.objectives.attack(stage.discriminator(images, training=False), labels)

    functions = {
        "plain": lambda: stage.attacker(images, objective),
        "fast": lambda: stage.attack(images, labels, tf.constant([0, 0])),
    }
    series = alternate({name: timed(tf.function(call, autograph=False)) for name, call in functions.items()})
    ratio = series["plain"].values / series["fast"].values
    yield Series(f"attack of ch {FLAGS.width} {precision}, kernels anew / held", ratio, "")
