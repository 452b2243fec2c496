"""The object inside an export: a network as plain functions over plain variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.serving.requests import MAX_PIXELS, check_batch, check_pixel_range, decode_images, parse_examples


class ServedClassifier(tf.Module):
    """A network with its preprocessing and its class names, ready to be saved.

    What can't be answered is refused when it runs, with an InvalidArgumentError that says why: by all functions but
    `logits`, which is for whoever wants gradients and checks nothing.

    Attributes:
      logits: float32 images [N, H, W, C] in [-1, 1] -> float32 logits [N, K]; gradients flow through it, also after
        loading. Calling the object does the same.
      from_pixels: uint8 images [N, H, W, C] in [0, 255] -> dict of `scores`, `logits`, `classes`.
      from_encoded: string [N] of JPEG or PNG bytes -> the same dict; see `requests.decode_images`.
      from_examples: string [N] of serialized tf.Example with `image/encoded` -> dict of `scores`, `classes`.
      from_floats: as `logits`, but checked, and a dict of `logits`.
      class_names: () -> string [K].
      image_shape: () -> int32 [3], (H, W, C).
      features: float32 images [N, H, W, C] in [-1, 1] -> dict of `features`, float32 [N, D], what the network's last
        layer is given, and `logits`; only where the network has such features.
    """

    def __init__(
        self,
        logits_fn: Callable[[tf.Tensor], tf.Tensor],
        variables: Iterable[tf.Variable],
        image_shape: Sequence[int],
        class_names: Sequence[str],
        xla: bool = False,
        max_pixels: int = MAX_PIXELS,
        features_fn: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    ):
        """Traces the functions; arguments as in `export_classifier` and, `xla` and `max_pixels`, `ExportOptions`.

        Raises:
          ValueError: `logits_fn` gives another shape than [N, len(class_names)].
        """
        super().__init__(name="served_classifier")
        # Only the variables are attributes. `logits_fn` stays inside closures: as an attribute, a Keras model would be
        # tracked and saved with all its layers, and loading would look for Keras.
        self.network_variables = list(variables)

        # The checks stay outside of what XLA compiles: it would leave them out.
        @tf.function(jit_compile=xla or None, autograph=False)
        def network(images):
            return tf.cast(logits_fn(images), tf.float32)

        def answer(images):
            image_logits = network(preprocessing.to_pixel_range(images))
            names = tf.tile(tf.constant(class_names)[tf.newaxis], [tf.shape(images)[0], 1])
            return {"scores": tf.nn.softmax(image_logits), "logits": image_logits, "classes": names}

        def answer_encoded(encoded):
            return answer(decode_images(encoded, image_shape, max_pixels))

        # Functions made here instead of decorated methods, because their input signatures depend on the image's shape.
        @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.float32, name="images")], autograph=False)
        def logits(images):
            return network(images)

        @tf.function(input_signature=logits.input_signature, autograph=False)
        def from_floats(images):
            images = check_batch(images, image_shape, "float32 images")
            return {"logits": network(check_pixel_range(images))}

        @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.uint8, name="images")], autograph=False)
        def from_pixels(images):
            return answer(check_batch(images, image_shape, "uint8 images"))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")], autograph=False)
        def from_encoded(encoded):
            return answer_encoded(check_batch(encoded, (), "JPEG or PNG files"))

        # TF Serving's Classify looks for an input of this very name.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")], autograph=False)
        def from_examples(inputs):
            inputs = check_batch(inputs, (), "serialized tf.Examples")
            answers = answer_encoded(parse_examples(inputs))
            return {"scores": answers["scores"], "classes": answers["classes"]}

        shape = logits.get_concrete_function().output_shapes
        if not shape.is_compatible_with([None, len(class_names)]):
            raise ValueError(
                f"logits_fn gives logits of shape {shape}, but there are {len(class_names)} class "
                f"names: expected [N, {len(class_names)}]."
            )

        self.logits = logits
        self.from_floats = from_floats
        self.from_pixels = from_pixels
        self.from_encoded = from_encoded
        self.from_examples = from_examples
        self.class_names = tf.function(lambda: tf.constant(class_names), input_signature=[], autograph=False)
        self.image_shape = tf.function(lambda: tf.constant(image_shape, tf.int32), input_signature=[], autograph=False)
        if features_fn is not None:

            @tf.function(input_signature=logits.input_signature, autograph=False)
            def features(images):
                pooled, image_logits = features_fn(images)
                return {"features": tf.cast(pooled, tf.float32), "logits": tf.cast(image_logits, tf.float32)}

            self.features = features
        # Saving looks at the instance and so finds a tf.function; Python's call syntax looks at the class, below.
        self.__call__ = logits

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Same as `logits`: float32 images [N, H, W, C] in [-1, 1] -> float32 [N, K]."""
        return self.logits(images)
