"""Whether an export answers like the network that it was written from, before it becomes a version."""

from __future__ import annotations

import itertools
from typing import Callable

import numpy as np
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.serving import warm_up

# Largest accepted |exported - expected|, as a share of the largest |logit| (of 1 if that is smaller). The loaded graph
# is the same arithmetic as the network it came from, but TensorFlow may fuse or order it differently, and turns the
# division of the pixels into a multiplication: that moves the last few of float32's 24 bits (1e-7 to 1e-6 after some
# twenty layers). A lost weight, another scaling of the pixels or a dropout left on moves it by far more than 1e-5.
TOLERANCE = 1e-5

# The same for a network with float16 or bfloat16 inside, where a single rounding is up to 4e-3, and on GPUs that may
# round to TF32, by up to 5e-4: XLA and TensorFlow choose their kernels apart, and some do, some do not. Also for the
# logits of an image alone against those within a batch: another batch size may run another kernel there.
ROUGH_TOLERANCE = 5e-2

# Largest accepted |gradient - expected gradient| / |expected gradient| (L2 norms). Wide because a ReLU whose input
# rounds to the other side of zero changes the gradient by a jump: 0.09 was seen in bfloat16 after twenty layers,
# between two graphs of the same network. A wrong gradient is off by the order of 1.
GRADIENT_TOLERANCE = 0.25


class ExportError(RuntimeError):
    """The model that was written doesn't answer like the network that it was written from."""


def check(
    loaded, logits_fn: Callable[[tf.Tensor], tf.Tensor], class_names: tuple[str, ...], check_images: np.ndarray
) -> None:
    """Raises ExportError unless `loaded` answers like `logits_fn` on uint8 images [n, H, W, C], in every way it can."""
    images = preprocessing.to_pixel_range(tf.constant(check_images))
    network = tf.function(
        logits_fn, input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.float32)], autograph=False
    )
    expected = tf.cast(network(images), tf.float32).numpy()
    scores = tf.nn.softmax(expected).numpy()
    names = np.tile(np.array([name.encode() for name in class_names]), [len(check_images), 1])
    scale = max(1.0, float(np.max(np.abs(expected))))
    rough = _has_half_precision(network.get_concrete_function()) or _may_round_to_tf32()
    allowed = scale * (ROUGH_TOLERANCE if rough else TOLERANCE)
    _check_inference_mode(network, images, expected, scale)

    # PNG is lossless, so that the encoded ways must give the same answers.
    encoded = [tf.io.encode_png(image).numpy() for image in check_images]
    signatures = loaded.signatures
    answers = {
        "serving_default": signatures["serving_default"](images=tf.constant(check_images)),
        "encoded": signatures["encoded"](encoded=tf.constant(encoded)),
        "classify": signatures["classify"](inputs=tf.constant([warm_up.example(image) for image in encoded])),
        "logits": signatures["logits"](images=images),
    }
    for signature, outputs in answers.items():
        for output, wanted in (("logits", expected), ("scores", scores)):
            if output not in outputs:
                continue
            difference = float(np.max(np.abs(outputs[output].numpy() - wanted)))
            # Written so that NaN, which compares false with everything, fails.
            if not difference <= allowed:
                raise ExportError(
                    f"The exported signature `{signature}` differs from the network by {difference:.3g} in `{output}` "
                    f"(allowed: {allowed:.3g})."
                )
        if "classes" in outputs and not np.array_equal(outputs["classes"].numpy(), names):
            raise ExportError(f"The exported signature `{signature}` gives other class names than {class_names}.")

    expected_gradient, gradient = _gradient(network, images), _gradient(loaded.logits, images)
    if gradient is None or expected_gradient is None:
        culprit = "network itself" if expected_gradient is None else "exported `logits`"
        raise ExportError(f"The {culprit} lets no gradient through to the images, so it could not be attacked.")
    difference = float(np.linalg.norm(gradient - expected_gradient))
    allowed = GRADIENT_TOLERANCE * float(np.linalg.norm(expected_gradient))
    if not difference <= allowed:
        raise ExportError(
            f"The gradient through the exported `logits` differs from the network's by {difference:.3g} "
            f"(allowed: {allowed:.3g})."
        )


def check_features(loaded, check_images: np.ndarray) -> None:
    """Raises ExportError unless the logits beside the features are those of `logits`, and the features finite."""
    images = preprocessing.to_pixel_range(tf.constant(check_images))
    expected, answers = loaded.logits(images).numpy(), loaded.features(images)
    difference = float(np.max(np.abs(answers["logits"].numpy() - expected)))
    allowed = ROUGH_TOLERANCE * max(1.0, float(np.max(np.abs(expected))))
    if not (difference <= allowed and np.all(np.isfinite(answers["features"].numpy()))):
        raise ExportError(
            f"The exported function `features` gives features that are not finite, or logits that differ from those "
            f"of `logits` by {difference:.3g} (allowed: {allowed:.3g})."
        )


def _check_inference_mode(network, images: tf.Tensor, expected: np.ndarray, scale: float) -> None:
    """Raises ExportError if logits of images [n, H, W, C] are not finite, or vary with the call or with the batch."""
    if not np.all(np.isfinite(expected)):
        raise ExportError(f"The network gives {np.sum(~np.isfinite(expected))} logits that are not finite.")
    # Comparing with the export doesn't find noise: after tf.random.set_seed all graphs start with the same numbers. A
    # second call of the same graph goes on in the sequence.
    difference = float(np.max(np.abs(tf.cast(network(images), tf.float32) - expected)))
    if not difference <= TOLERANCE * scale:
        raise ExportError(
            f"The network is not in inference mode: called twice on the same images, its logits differ by "
            f"{difference:.3g} (allowed: {TOLERANCE * scale:.3g}). Pass training=False."
        )
    difference = float(np.max(np.abs(tf.cast(network(images[:1]), tf.float32) - expected[:1])))
    if not difference <= ROUGH_TOLERANCE * scale:
        raise ExportError(
            f"The network is not in inference mode: the logits of an image differ by {difference:.3g} (allowed: "
            f"{ROUGH_TOLERANCE * scale:.3g}) without the rest of its batch. Pass training=False."
        )


def _has_half_precision(function) -> bool:
    """Whether any operation of a concrete function, or of one that it calls, takes or gives float16 or bfloat16."""
    graph = function.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(called.node_def for called in graph.library.function))
    half = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)
    return any(attribute.type in half for node in nodes for attribute in node.attr.values())


def _may_round_to_tf32() -> bool:
    """Whether products of float32 numbers may be those of numbers rounded to 11 bits."""
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return on_gpu and tf.config.experimental.tensor_float_32_execution_enabled()


def _gradient(function, images: tf.Tensor) -> np.ndarray | None:
    """Gradient of the sum of all logits in the images, both [n, H, W, C]; None if no path leads there."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = function(images)
    gradient = tape.gradient(logits, images)
    return None if gradient is None else gradient.numpy()
