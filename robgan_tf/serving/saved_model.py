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

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.files import flush
from robgan_tf.paths import export_versions
from robgan_tf.serving import manifest, model_card, warm_up
from robgan_tf.serving.classifier import ServedClassifier
from robgan_tf.serving.export_checks import check, check_features
from robgan_tf.serving.loading import load_saved_model
from robgan_tf.serving.options import ExportOptions

CLASSIFY_METHOD_NAME = "tensorflow/serving/classify"

# Hidden and not a number, so that a model server watching the folder doesn't take it for a version.
_UNFINISHED = ".unfinished_export"


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
        check(loaded, logits_fn, class_names, check_images)
        if features_fn is not None:
            check_features(loaded, check_images)
        for signature, inputs in requests:  # a server would not load the version if one of them failed
            loaded.signatures[signature](**inputs)
        warm_up.write(unfinished, requests)
        described = _describe(image_shape, class_names, options, about or {})
        manifest.write(unfinished, described)
        model_card.write(unfinished, described)
        newest = max((int(path.name) for path in export_versions(export_root)), default=0)
        directory = os.path.join(export_root, str(newest + 1))
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
