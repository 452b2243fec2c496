"""Tests of robgan_tf.serving.saved_model."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from robgan_tf.data.sources import pillow_images
from robgan_tf.keras2 import keras
from robgan_tf.serving import saved_model
from robgan_tf.serving.export_checks import ExportError

CLASS_NAMES = ("null", "one", "two", "drei", "vier")
COLOUR = (16, 16, 3)
GRAY = (16, 16, 1)


def make_network(image_shape):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, padding="same", activation="relu", input_shape=image_shape),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(len(CLASS_NAMES), kernel_initializer=keras.initializers.RandomNormal(stddev=2.0)),
        ]
    )
    return network


def make_images(image_shape, count=4):
    return np.random.default_rng(0).integers(0, 256, [count, *image_shape], np.uint8)


def arguments(image_shape, root):
    return dict(
        image_shape=image_shape, class_names=CLASS_NAMES, export_root=str(root), check_images=make_images(image_shape)
    )


def export(network, image_shape, root):
    def logits_fn(images):
        return network(images, training=False)

    return saved_model.export_classifier(logits_fn, network.variables, **arguments(image_shape, root))


def expected_logits(network, pixels):
    """pixels [N, H, W, C] in [0, 255]."""
    return network(np.asarray(pixels, np.float32) / 127.5 - 1.0, training=False).numpy()


def example(**features):
    values = {
        name.replace("__", "/"): tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


def assert_answers(answers, logits):
    """The outputs belong to these logits, [N, K]."""
    np.testing.assert_allclose(answers["scores"], tf.nn.softmax(logits), atol=1e-5)
    if "logits" in answers:
        np.testing.assert_allclose(answers["logits"], logits, atol=1e-5)
    if "classes" in answers:
        assert answers["classes"].numpy().tolist() == [[name.encode() for name in CLASS_NAMES]] * len(logits)


@pytest.fixture(scope="module", params=[COLOUR, GRAY], ids=["colour", "gray"])
def exported(request, tmp_path_factory):
    """(network, image shape, folder of the export, loaded export)."""
    network = make_network(request.param)
    directory = export(network, request.param, tmp_path_factory.mktemp("run") / "export")
    return network, request.param, directory, saved_model.load_classifier(directory)


@pytest.mark.parametrize("batch", [1, 7])
def test_all_signatures_agree_with_the_network_for_any_batch_size(exported, batch):
    network, image_shape, _, loaded = exported
    pixels = make_images(image_shape, 7)[:batch]
    logits = expected_logits(network, pixels)
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    examples = [example(image__encoded=image) for image in encoded]

    answers = loaded.signatures["serving_default"](images=tf.constant(pixels))
    assert set(answers) == {"scores", "logits", "classes"}
    assert_answers(answers, logits)

    answers = loaded.signatures["encoded"](encoded=tf.constant(encoded))
    assert set(answers) == {"scores", "logits", "classes"}
    assert_answers(answers, logits)

    answers = loaded.signatures["classify"](inputs=tf.constant(examples))
    assert set(answers) == {"scores", "classes"}
    assert_answers(answers, logits)

    scaled = tf.constant(pixels / 127.5 - 1.0, tf.float32)
    for answer in (loaded.signatures["logits"](images=scaled)["logits"], loaded.logits(scaled), loaded(scaled)):
        np.testing.assert_allclose(answer, logits, atol=1e-5)


def trained_on(encoded, image_shape):
    """The pixels that a network is trained on, of a file of its size."""
    return np.asarray(pillow_images.decode(encoded, image_shape[2])).reshape(image_shape)


def test_jpeg_is_decoded(exported):
    network, image_shape, _, loaded = exported
    encoded = [tf.io.encode_jpeg(image).numpy() for image in make_images(image_shape)]
    decoded = np.stack([trained_on(image, image_shape) for image in encoded])
    answers = loaded.signatures["encoded"](encoded=tf.constant(encoded))
    assert_answers(answers, expected_logits(network, decoded))


def test_other_kind_of_colour_is_converted(exported):
    network, image_shape, _, loaded = exported
    other = make_images(GRAY if image_shape == COLOUR else COLOUR, 1)[0]
    encoded = tf.io.encode_png(other).numpy()
    answers = loaded.signatures["encoded"](encoded=tf.constant([encoded]))
    assert_answers(answers, expected_logits(network, trained_on(encoded, image_shape)[np.newaxis]))


def test_images_of_other_sizes_are_cropped_and_resized_within_one_batch(exported):
    network, image_shape, _, loaded = exported
    channels = image_shape[2]
    wide, tall, small = (make_images((*size, channels), 1)[0] for size in [(40, 61), (33, 20), (5, 9)])
    same = make_images(image_shape, 1)[0]
    squares = [wide[:, 10:50], tall[6:26], small[:, 2:7]]
    resized = [np.round(tf.image.resize(square, image_shape[:2], antialias=True)) for square in squares] + [same]
    encoded = [tf.io.encode_png(image).numpy() for image in (wide, tall, small, same)]
    answers = loaded.signatures["encoded"](encoded=tf.constant(encoded))
    assert_answers(answers, expected_logits(network, np.stack(resized)))


def test_gradients_flow_through_the_loaded_model(exported):
    network, image_shape, _, loaded = exported
    images = tf.constant(make_images(image_shape) / 127.5 - 1.0, tf.float32)
    gradients = []
    for function in (lambda x: network(x, training=False), loaded.logits, loaded):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.nn.log_softmax(function(images))[:, 0])
        gradients.append(tape.gradient(loss, images).numpy())
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5)
    np.testing.assert_allclose(gradients[2], gradients[0], atol=1e-5)


def test_names_and_shape_are_in_the_graph(exported):
    _, image_shape, _, loaded = exported
    assert tuple(name.decode() for name in loaded.class_names().numpy()) == CLASS_NAMES
    assert tuple(loaded.image_shape().numpy()) == image_shape


def test_export_holds_no_keras_and_the_classify_method_name(exported):
    network, _, directory, _ = exported
    assert sorted(os.listdir(directory)) == [
        "MODEL_CARD.md",
        "assets",
        "assets.extra",
        "fingerprint.pb",
        "saved_model.pb",
        "variables",
    ]
    with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
        proto = saved_model_pb2.SavedModel.FromString(file.read())
    methods = {key: value.method_name for key, value in proto.meta_graphs[0].signature_def.items()}
    methods.pop("__saved_model_init_op")
    predict = "tensorflow/serving/predict"
    classify = "tensorflow/serving/classify"
    assert methods == {"serving_default": predict, "encoded": predict, "logits": predict, "classify": classify}
    nodes = proto.meta_graphs[0].object_graph_def.nodes
    assert not [node for node in nodes if "keras" in node.user_object.identifier]
    assert sum(node.WhichOneof("kind") == "variable" for node in nodes) == len(network.variables)


IN_ANOTHER_PROCESS = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in ("robgan_tf", "keras") else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
answers = loaded.signatures["serving_default"](images=tf.constant(np.load(sys.argv[2])))
np.save(sys.argv[3], answers["logits"].numpy())
for name in ("robgan_tf", "keras"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " could be imported")
"""


def test_loads_and_answers_where_neither_this_package_nor_keras_can_be_imported(tmp_path):
    network = make_network(COLOUR)
    directory = export(network, COLOUR, tmp_path / "export")
    pixels = make_images(COLOUR)
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-I", "-c", IN_ANOTHER_PROCESS, directory, "pixels.npy", "logits.npy"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected_logits(network, pixels), atol=1e-5)


def test_versions_count_up_from_the_highest_and_leftovers_are_removed(tmp_path):
    network = make_network(GRAY)
    assert export(network, GRAY, tmp_path / "export") == str(tmp_path / "export" / "1")
    (tmp_path / "export" / "9").mkdir()
    (tmp_path / "export" / "notes").mkdir()
    leftover = tmp_path / "export" / saved_model._UNFINISHED
    leftover.mkdir()
    (leftover / "half").write_text("written")
    assert export(network, GRAY, tmp_path / "export") == str(tmp_path / "export" / "10")
    assert sorted(os.listdir(tmp_path / "export")) == ["1", "10", "9", "notes"]
    assert not os.path.exists(tmp_path / "export" / "10" / "half")


def noisy(network, images):
    logits = network(images, training=False)
    return logits + tf.random.normal(tf.shape(logits), stddev=0.01)


def with_dropout(network, images):
    return network(images, training=True)


def normalised_by_its_batch(network, images):
    return network(images - tf.reduce_mean(images, axis=0), training=False)


def not_finite(network, images):
    return network(images, training=False) / 0.0


def without_gradient(network, images):
    return network(tf.stop_gradient(images), training=False)


TRACES = itertools.count()


def other_when_traced_again(network, images):
    return network(images, training=False) + 0.01 * next(TRACES)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (noisy, r"called twice on the same images, its logits differ by 0\.0\d+ \(allowed: "),
        (with_dropout, "called twice on the same images"),
        (normalised_by_its_batch, "without the rest of its batch"),
        (not_finite, "20 logits that are not finite"),
        (without_gradient, "no gradient"),
        (other_when_traced_again, r"`serving_default` differs from the network by 0\.0\d+ in `logits` \(allowed: "),
    ],
)
def test_wrong_model_is_an_error_and_leaves_earlier_versions_alone(tmp_path, wrong, message):
    network = make_network(GRAY)
    earlier = tmp_path / "export" / "3"
    earlier.mkdir(parents=True)
    with pytest.raises(ExportError, match=message):
        saved_model.export_classifier(
            functools.partial(wrong, network), network.variables, **arguments(GRAY, tmp_path / "export")
        )
    assert os.listdir(tmp_path / "export") == ["3"]


def test_what_tf32_rounds_passes_on_a_gpu_and_fails_where_it_is_switched_off(tmp_path, monkeypatch):
    """There is no GPU here: TensorFlow is made to list one."""
    network, traces = make_network(GRAY), itertools.count()

    def other_kernels(images):
        return network(images, training=False) + 1e-3 * next(traces)

    def write():
        return saved_model.export_classifier(other_kernels, network.variables, **arguments(GRAY, tmp_path / "export"))

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["/device:GPU:0"])
    assert write().endswith("1")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with pytest.raises(ExportError, match="differs from the network"):
            write()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def test_half_precision_network_passes_although_it_rounds_visibly_and_gives_float32(tmp_path):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = make_network(COLOUR)
        directory = export(network, COLOUR, tmp_path / "export")
    finally:
        keras.mixed_precision.set_global_policy(before)
    pixels = make_images(COLOUR)
    answers = saved_model.load_classifier(directory).signatures["serving_default"](images=tf.constant(pixels))
    assert answers["logits"].dtype == answers["scores"].dtype == tf.float32
    wanted = tf.cast(network(pixels / np.float32(127.5) - 1.0, training=False), tf.float32)
    np.testing.assert_allclose(answers["logits"], wanted, rtol=0.05, atol=0.05 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "overrides, message",
    [
        (dict(image_shape=(16, 16, 4)), "1 or 3 channels"),
        (dict(image_shape=(16, 16)), "height, width, channels"),
        (dict(class_names=("a", "b", "c")), "3 class names"),
        (dict(class_names=("a", "b", "c", "d", "a")), "all different"),
        (dict(check_images=make_images(GRAY)), "check_images must be uint8"),
        (dict(check_images=make_images(COLOUR)[:0]), "n >= 1"),
        (dict(check_images=make_images(COLOUR) / 255.0), "float64"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        network = make_network(COLOUR)
        merged = {**arguments(COLOUR, tmp_path / "export"), **overrides}
        saved_model.export_classifier(network, network.variables, **merged)
    assert not os.listdir(tmp_path)


def test_variables_left_out_are_refused(tmp_path):
    network = make_network(GRAY)
    with pytest.raises(ValueError, match="not in `variables`.* 8 now"):
        saved_model.export_classifier(network, network.variables[:-2], **arguments(GRAY, tmp_path / "export"))
    assert not os.listdir(tmp_path / "export")


def test_load_refuses_what_is_not_an_export(tmp_path, exported):
    with pytest.raises(ValueError, match="nowhere is not an exported model: it has no saved_model.pb"):
        saved_model.load_classifier(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="did you mean its version .*1"):
        saved_model.load_classifier(os.path.dirname(exported[2]))
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"double": module.double})
    with pytest.raises(ValueError, match="no `logits` function.*signatures: double"):
        saved_model.load_classifier(str(tmp_path / "other"))


def test_variables_and_shape_of_a_model_need_not_be_given(tmp_path):
    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.random.stateless_normal([16 * 16, len(CLASS_NAMES)], [0, 0]))

        def __call__(self, images):
            return tf.reshape(images, [-1, 16 * 16]) @ self.kernel

    network, images = Network(), make_images(GRAY)
    folder = saved_model.export_classifier(
        network, class_names=CLASS_NAMES, export_root=str(tmp_path), check_images=images
    )
    loaded = saved_model.load_classifier(folder)
    floats = images.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(loaded.logits(floats), network(floats), atol=1e-4)


def test_variables_of_a_plain_function_must_be_given(tmp_path):
    with pytest.raises(
        ValueError, match="variables is missing, and <function .* is neither a Keras model nor a tf.Mod"
    ):
        saved_model.export_classifier(lambda images: images, **arguments(GRAY, tmp_path))
