"""Exports a trained classifier as a SavedModel that needs TensorFlow alone, and loads it again.

The preprocessing (decoding, crop, resize, scaling) and the class names are inside the graph, so whoever serves the
model can't do them differently from us. Signatures of an export, with K classes and images of H x W x C:

    serving_default  images uint8 [N, H, W, C] in [0, 255]       -> scores, logits, classes
    encoded          encoded string [N], JPEG or PNG bytes       -> scores, logits, classes
    classify         inputs string [N], serialized tf.Example    -> scores, classes   (TF Serving's Classify call)
    logits           images float32 [N, H, W, C] in [-1, 1]      -> logits

`scores` are softmax probabilities, float32 [N, K]; `logits` are float32 [N, K]; `classes` are names, string [N, K],
`classes[n, k]` being the name that `scores[n, k]` belongs to (the pairing that TF Serving's Classify demands, kept in
all signatures). The order is that of the classes, not of the scores: the answer is `classes[n, argmax(scores[n])]`.
N may be any number from 1 on. What can't be answered is refused, see `requests`. Beside the SavedModel, in
`assets.extra`, lie requests to warm up a server (see `warm_up`) and a manifest (see `manifest`).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.files import flush
from robgan_tf.serving import manifest, model_card, warm_up
from robgan_tf.serving.classifier import ServedClassifier
from robgan_tf.serving.loading import load_saved_model
from robgan_tf.serving.options import ExportOptions

CLASSIFY_METHOD_NAME = "tensorflow/serving/classify"

# Largest accepted |exported - expected|, as a share of the largest |logit| (of 1 if that is smaller). The loaded graph
# is the same arithmetic as the network it came from, but TensorFlow may fuse or order it differently, and turns the
# division of the pixels into a multiplication: that moves the last few of float32's 24 bits (1e-7 to 1e-6 after some
# twenty layers). A lost weight, another scaling of the pixels or a dropout left on moves it by far more than 1e-5.
TOLERANCE = 1e-5

# The same for a network with float16 or bfloat16 inside, where a single rounding is up to 4e-3. Also for the logits of
# an image alone against those within a batch: another batch size may run another kernel, on a GPU with TF32's rounding.
ROUGH_TOLERANCE = 5e-2

# Largest accepted |gradient - expected gradient| / |expected gradient| (L2 norms). Wide because a ReLU whose input
# rounds to the other side of zero changes the gradient by a jump: 0.09 was seen in bfloat16 after twenty layers,
# between two graphs of the same network. A wrong gradient is off by the order of 1.
GRADIENT_TOLERANCE = 0.25

# Hidden and not a number, so that a model server watching the folder doesn't take it for a version.
_UNFINISHED = ".unfinished_export"


class ExportError(RuntimeError):
    """The model that was written doesn't answer like the network that it was written from."""


def export_classifier(
    logits_fn: Callable[[tf.Tensor], tf.Tensor],
    variables: Iterable[tf.Variable] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    class_names: Sequence[str],
    export_root: str,
    check_images: np.ndarray,
    options: ExportOptions | None = None,
    about: Mapping | None = None,
    features_fn: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
) -> str:
    """Writes the next version of a SavedModel, having checked that it answers like the network.

    The model is written to a hidden folder, loaded again and compared with `logits_fn` on `check_images` through every
    signature; only then it is renamed to `export_root/<version>`. So a version that exists is complete and right, and a
    failure leaves the earlier versions as they were. What a killed export left behind is removed by the next one, so
    run one export at a time in a folder. The file system must be local.

    Args:
      logits_fn: the network in inference mode: float32 images [N, H, W, C] in [-1, 1] -> logits [N, K], for any N >= 1.
      variables: all variables that `logits_fn` reads; None for its own, where it is a Keras model or a `tf.Module`.
      image_shape: (H, W, C), with C 1 (gray) or 3 (RGB); None for that of `check_images`.
      class_names: K names, in the order of the logits.
      export_root: folder of the versions, `<run_dir>/export`; made if missing.
      check_images: uint8 [n, H, W, C] in [0, 255], n >= 1; some real images, on which the answers are compared.
      options: XLA, warm-up and limits; the defaults if None. The type of the activations is that of `logits_fn`, which
        is made before, so `options.compute` is only written to the manifest.
      about: what else the manifest should tell, as JSON: data set, threat model, accuracy, versions.
      features_fn: images as above -> what the network's last layer is given [N, D], and logits [N, K]; becomes the
        function `features`, by which generators can be measured (see `evaluation.extractors`). None for none.

    Returns:
      The folder of the new version, `export_root/<1 + highest existing version>`.

    Raises:
      ValueError: the arguments don't fit together; no version has been written.
      ExportError: the written model answers differently from `logits_fn` or lets no gradient through, or `logits_fn` is
        not in inference mode; no version has been written.
    """
    class_names = tuple(class_names)
    check_images = np.asarray(check_images)
    image_shape = tuple(int(size) for size in (check_images.shape[1:] if image_shape is None else image_shape))
    if variables is None:
        if not isinstance(logits_fn, tf.Module):
            raise ValueError(
                f"export_classifier: variables is missing, and {logits_fn!r} is neither a Keras model nor a tf.Module: "
                f"give all tf.Variables that it reads."
            )
        variables = logits_fn.variables
    _validate(image_shape, class_names, check_images)
    options = options or ExportOptions()
    options.check(image_shape)
    module = ServedClassifier(
        logits_fn, variables, image_shape, class_names, options.xla, options.max_pixels, features_fn
    )
    requests = warm_up.requests(image_shape, options.warm_up_batch_sizes, options.max_pixels)

    os.makedirs(export_root, exist_ok=True)
    unfinished = os.path.join(export_root, _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _write(module, unfinished)
        loaded = tf.saved_model.load(unfinished)
        _check(loaded, logits_fn, class_names, check_images)
        if features_fn is not None:
            _check_features(loaded, check_images)
        for signature, inputs in requests:  # a server would not load the version if one of them failed
            loaded.signatures[signature](**inputs)
        warm_up.write(unfinished, requests)
        described = _describe(image_shape, class_names, options, about or {})
        manifest.write(unfinished, described)
        model_card.write(unfinished, described)
        versions = [int(name) for name in os.listdir(export_root) if name.isdecimal()]
        directory = os.path.join(export_root, str(1 + max(versions, default=0)))
        for folder, _, names in os.walk(unfinished):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                flush(path)
        os.rename(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def load_classifier(directory: str):
    """Loads a version that `export_classifier` wrote; `tf.saved_model.load` does the same, with less helpful errors.

    Args:
      directory: folder of one version, such as `<run_dir>/export/1`.

    Returns:
      The loaded object, with the functions of `ServedClassifier` and `signatures`.

    Raises:
      ValueError: the folder holds no SavedModel, or one that has no `logits` function.
    """
    loaded = load_saved_model(directory)
    if not callable(getattr(loaded, "logits", None)):
        names = ", ".join(sorted(getattr(loaded, "signatures", {}))) or "none"
        raise ValueError(
            f"The SavedModel in {directory} has no `logits` function, so it was not written by export_classifier; "
            f"its signatures: {names}."
        )
    return loaded


def _validate(image_shape: tuple[int, ...], class_names: tuple[str, ...], check_images: np.ndarray) -> None:
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] not in (1, 3):
        raise ValueError(f"image_shape must be (height, width, channels) with 1 or 3 channels, got {image_shape}.")
    if not class_names or len(set(class_names)) != len(class_names):
        raise ValueError(f"class_names must be non-empty and all different, got {class_names}.")
    if check_images.dtype != np.uint8 or check_images.shape[1:] != image_shape or not len(check_images):
        raise ValueError(
            f"check_images must be uint8 of shape [n, {', '.join(map(str, image_shape))}] with n >= 1, "
            f"got {check_images.dtype} of shape {list(check_images.shape)}."
        )


def _describe(image_shape: Sequence[int], class_names: Sequence[str], options: ExportOptions, about: Mapping) -> dict:
    return {
        "classes": list(class_names),
        "input": manifest.describe_input(image_shape, options.max_pixels),
        "compute": {"dtype": options.compute, "xla": options.xla},
        **about,
    }


def _write(module: ServedClassifier, directory: str) -> None:
    signatures = {
        "serving_default": module.from_pixels,
        "encoded": module.from_encoded,
        "classify": module.from_examples,
        "logits": module.from_floats,
    }
    try:
        tf.saved_model.save(module, directory, signatures=signatures)
    except AssertionError as error:
        if "untracked" not in str(error):
            raise
        raise ValueError(
            "logits_fn reads a variable that is not in `variables`, so it would not be saved: pass all variables of "
            f"the network (there are {len(module.network_variables)} now)."
        ) from error
    # tf.saved_model.save marks every signature as "predict"; TF Serving's Classify refuses those.
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(directory)
    updater.replace_method_name("classify", CLASSIFY_METHOD_NAME, tags=tf.saved_model.SERVING)
    updater.save()


def _check(
    loaded, logits_fn: Callable[[tf.Tensor], tf.Tensor], class_names: tuple[str, ...], check_images: np.ndarray
) -> None:
    """Raises ExportError unless `loaded` answers like `logits_fn` on uint8 images [n, H, W, C], in every way it can."""
    images = preprocessing.to_pixel_range(tf.constant(check_images))
    network = tf.function(logits_fn, input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.float32)])
    expected = tf.cast(network(images), tf.float32).numpy()
    scores = tf.nn.softmax(expected).numpy()
    names = np.tile(np.array([name.encode() for name in class_names]), [len(check_images), 1])
    scale = max(1.0, float(np.max(np.abs(expected))))
    allowed = scale * (ROUGH_TOLERANCE if _has_half_precision(network.get_concrete_function()) else TOLERANCE)
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


def _check_features(loaded, check_images: np.ndarray) -> None:
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


def _gradient(function, images: tf.Tensor) -> np.ndarray | None:
    """Gradient of the sum of all logits in the images, both [n, H, W, C]; None if no path leads there."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = function(images)
    gradient = tape.gradient(logits, images)
    return None if gradient is None else gradient.numpy()
