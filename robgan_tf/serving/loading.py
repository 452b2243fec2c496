"""Takes a classifier of any make out of a SavedModel, so that it can be attacked."""

from __future__ import annotations

import os
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.paths import export_versions, user_path


class LoadedLogits:
    """A loaded classifier: images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K], float32, with gradients.

    Args:
        loaded: what `tf.saved_model.load` returned; it is kept alive with its variables.
        function: its images -> logits.
        dtype: the type of images that `function` takes.
        directory: where it came from.
    """

    def __init__(self, loaded, function: Callable, dtype: tf.DType, directory: str):
        self.loaded = loaded
        self.function = function
        self.dtype = dtype
        self.directory = directory

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.function(tf.cast(images, self.dtype)), tf.float32)


@gin.configurable
def load_logits(directory: str = gin.REQUIRED) -> LoadedLogits:
    """Loads the classifier of a SavedModel: its function `logits`, else a signature from float images to class logits.

    A signature will do that takes one input, a batch of float images, and has an output called `logits` or only one, of
    rank 2. If there are several, that named `logits` is taken, then `serving_default`.

    Args:
        directory: folder of the SavedModel, such as `<run_dir>/export/1`.

    Raises:
        ValueError: the folder holds no SavedModel, or one without such a function or signature.
    """
    directory = user_path(directory, "load_logits.directory")
    loaded = load_saved_model(directory)
    if callable(getattr(loaded, "logits", None)):
        return LoadedLogits(loaded, loaded.logits, tf.float32, directory)
    signatures = dict(getattr(loaded, "signatures", {}))
    for name in sorted(signatures, key=lambda name: (name != "logits", name != "serving_default", name)):
        function = _as_logits(signatures[name])
        if function is not None:
            return LoadedLogits(loaded, *function, directory)
    raise ValueError(
        f"The SavedModel in {directory} has neither a `logits` function nor a signature that takes float images "
        f"[N, H, W, C] and gives class logits [N, K]; its signatures: {', '.join(sorted(signatures)) or 'none'}. "
        f"Export it with a tf.function from float images in [-1, 1] to logits as a signature."
    )


def load_saved_model(directory: str):
    """Returns what `tf.saved_model.load` does.

    Raises:
        ValueError: the folder holds no SavedModel.
    """
    if not os.path.isfile(os.path.join(directory, "saved_model.pb")):
        versions = export_versions(directory)
        hint = f"; did you mean its version {versions[-1]}?" if versions else "."
        raise ValueError(f"{directory} is not an exported model: it has no saved_model.pb{hint}")
    return tf.saved_model.load(directory)


def _as_logits(signature) -> tuple[Callable, tf.DType] | None:
    """Images -> logits by a signature, and the type of images; None where it is no such thing."""
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1:
        return None
    ((input_name, spec),) = inputs.items()
    output_name = "logits" if "logits" in outputs else next(iter(outputs)) if len(outputs) == 1 else None
    if output_name is None or not spec.dtype.is_floating or spec.shape.rank not in (None, 4):
        return None
    if not outputs[output_name].dtype.is_floating or outputs[output_name].shape.rank not in (None, 2):
        return None
    return lambda images: signature(**{input_name: images})[output_name], spec.dtype
