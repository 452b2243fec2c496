"""Classifiers of others: whatever SavedModel has a function or signature from float images to logits."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.serving.loading import load_logits

IMAGES = np.random.default_rng(0).uniform(-1, 1, [5, 4, 4, 1]).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=[16, 3]).astype(np.float32)


def linear(images):
    return tf.reshape(tf.cast(images, tf.float32), [-1, 16]) @ WEIGHT


class Module(tf.Module):
    """A module with a variable, so that losing it would be seen."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(WEIGHT)

    def answer(self, images):
        return tf.reshape(tf.cast(images, tf.float32), [-1, 16]) @ self.weight


def save(directory, function=None, **signatures):
    """Saves a module with a function `logits` or signatures, each (output names -> function, type of images)."""
    module = Module()
    if function:
        module.logits = tf.function(module.answer, input_signature=[tf.TensorSpec([None, 4, 4, 1], tf.float32)])
    made = {}
    for name, (outputs, dtype) in signatures.items():

        def signature(images, outputs=outputs):
            return {output: call(module, images) for output, call in outputs.items()}

        spec = tf.TensorSpec([None, 4, 4, 1], dtype, name="pictures")
        made[name] = tf.function(lambda pictures, call=signature: call(pictures), input_signature=[spec])
    tf.saved_model.save(module, str(directory), signatures=made)
    return str(directory)


def answer(module, images):
    return module.answer(images)


def probabilities(module, images):
    return tf.nn.softmax(module.answer(images))


def assert_answers(loaded):
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = loaded(images)
    np.testing.assert_array_equal(logits, linear(IMAGES))
    # d sum(logits) / d x is the sum of each row of the weight.
    expected = np.tile(WEIGHT.sum(axis=1).reshape(1, 4, 4, 1), [5, 1, 1, 1])
    np.testing.assert_allclose(tape.gradient(logits, images), expected, rtol=1e-5)  # float32


def test_a_function_called_logits_is_taken(tmp_path):
    loaded = load_logits(save(tmp_path, function=True, serving_default=({"scores": probabilities}, tf.float32)))
    assert_answers(loaded)
    assert loaded.directory == str(tmp_path)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_a_signature_of_float_images_will_do(tmp_path, dtype):
    assert_answers(load_logits(save(tmp_path, serving_default=({"anything": answer}, dtype))))


def test_of_several_outputs_that_called_logits_is_taken(tmp_path):
    outputs = {"scores": probabilities, "logits": answer}
    assert_answers(load_logits(save(tmp_path, serving_default=(outputs, tf.float32))))


def test_a_signature_called_logits_goes_first(tmp_path):
    signatures = {"serving_default": ({"scores": probabilities}, tf.float32), "logits": ({"z": answer}, tf.float32)}
    assert_answers(load_logits(save(tmp_path, **signatures)))


def test_keras_models_are_saved_with_such_a_signature(tmp_path):
    network = keras.Sequential([keras.layers.Flatten(input_shape=(4, 4, 1)), keras.layers.Dense(3, use_bias=False)])
    network.layers[1].set_weights([WEIGHT])
    network.export(str(tmp_path))
    np.testing.assert_allclose(load_logits(str(tmp_path))(tf.constant(IMAGES)), linear(IMAGES), rtol=1e-5, atol=1e-5)


def test_a_model_without_float_images_or_logits_is_refused_with_its_signatures(tmp_path):
    signatures = {"bytes": ({"logits": answer}, tf.uint8), "two": ({"a": answer, "b": answer}, tf.float32)}
    with pytest.raises(ValueError, match="neither a `logits` function nor a signature .* its signatures: bytes, two"):
        load_logits(save(tmp_path, **signatures))


def test_a_folder_that_is_no_model_is_refused_and_its_version_named(tmp_path):
    with pytest.raises(ValueError, match="is not an exported model"):
        load_logits(str(tmp_path / "nowhere"))
    save(tmp_path / "3", function=True)
    with pytest.raises(ValueError, match=r"did you mean its version .*3\?"):
        load_logits(str(tmp_path))
