"""Requests that a model server sends itself while it loads a version, so that the first caller doesn't wait.

TF Serving replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`. A request that fails
there fails the version, so the export tries them before. The images are noise: nobody's data leave with a model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

# The server's own limit on the records of the file.
_MOST_RECORDS = 1000


def requests(
    image_shape: Sequence[int], batch_sizes: Sequence[int], max_pixels: int
) -> list[tuple[str, dict[str, tf.Tensor]]]:
    """A request for each signature and batch size: (name of the signature, its inputs by name).

    Files are JPEG and PNG by turns, of twice the size of the network's images where so large ones are accepted, so that
    all of decoding is warm too.

    Args:
        image_shape: (H, W, C).
        batch_sizes: how many images a request has.
        max_pixels: largest height x width of a file; H x W at least.
    """
    height, width, channels = image_shape
    times = 2 if 4 * height * width <= max_pixels else 1
    made = []
    for size in batch_sizes:
        noise = np.random.default_rng(0).integers(0, 256, [size, times * height, times * width, channels], np.uint8)
        pixels = noise[:, ::times, ::times]
        files = [(tf.io.encode_png if row % 2 else tf.io.encode_jpeg)(image).numpy() for row, image in enumerate(noise)]
        made += [
            ("serving_default", {"images": tf.constant(pixels)}),
            ("encoded", {"encoded": tf.constant(files)}),
            ("classify", {"inputs": tf.constant([example(file) for file in files])}),
            ("logits", {"images": tf.constant(pixels / 127.5 - 1.0, tf.float32)}),
        ]
    return made


def check_batch_sizes(batch_sizes: Sequence[int]) -> None:
    """Raises ValueError unless there is a warm-up that a model server accepts."""
    most = _MOST_RECORDS // 4
    if not batch_sizes or min(batch_sizes) < 1 or len(batch_sizes) > most:
        raise ValueError(
            f"ExportOptions.warm_up_batch_sizes must be 1 to {most} numbers of images >= 1, got {tuple(batch_sizes)}."
        )


def example(encoded: bytes) -> bytes:
    """Serialized tf.Example of one JPEG or PNG file, as the signature `classify` takes it."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()


def write(directory: str, made: Sequence[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """Writes `requests` into the folder of a SavedModel.

    The few messages around the tensors are put together by hand, from TF Serving's prediction_log.proto, predict.proto
    and classification.proto: their Python classes come with tensorflow-serving-api, and an export should not need it.
    """
    path = os.path.join(directory, FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in made:
            log = _classify_log if signature == "classify" else _predict_log
            writer.write(log(signature, inputs))


def _predict_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """PredictionLog { predict_log { request { model_spec { signature_name } inputs { key value } } } }."""
    request = _field(1, _field(3, signature.encode()))
    for name, tensor in inputs.items():
        request += _field(2, _field(1, name.encode()) + _field(2, tf.make_tensor_proto(tensor).SerializeToString()))
    return _field(6, _field(1, request))


def _classify_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """PredictionLog { classify_log { request { model_spec { signature_name } input { example_list { examples }}}}}."""
    (examples,) = inputs.values()
    listed = b"".join(_field(1, one) for one in examples.numpy())
    return _field(2, _field(1, _field(1, _field(3, signature.encode())) + _field(2, _field(1, listed))))


def _field(number: int, content: bytes) -> bytes:
    """A string, bytes or message as field `number` (below 16) of a message: tag, length as varint, content."""
    length, left = b"", len(content)
    while left > 127:
        length += bytes([left & 127 | 128])
        left >>= 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + content
