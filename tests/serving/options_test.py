"""Exports in other types, compiled by XLA, with a manifest; and what a failure leaves."""

import json
import os

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.serving import manifest, saved_model
from robgan_tf.serving.options import ExportOptions

IMAGE_SHAPE = (12, 12, 3)


def pixels(count):
    return tf.constant(np.random.default_rng(1).integers(0, 256, [count, *IMAGE_SHAPE], np.uint8))


def test_xla_answers_the_same_with_gradients_and_refuses_the_same(make_export, tmp_path):
    plain = tf.saved_model.load(make_export(tmp_path / "plain"))
    options = ExportOptions(xla=True, warm_up_batch_sizes=(1, 3))
    directory = make_export(tmp_path / "xla", options=options)
    compiled = tf.saved_model.load(directory)
    assert manifest.read(directory)["compute"] == {"dtype": "float32", "xla": True}
    for batch in (1, 3):
        expected = plain.signatures["serving_default"](images=pixels(batch))
        answers = compiled.signatures["serving_default"](images=pixels(batch))
        np.testing.assert_allclose(answers["scores"], expected["scores"], atol=1e-5)
    images = tf.cast(pixels(2), tf.float32) / 127.5 - 1
    gradients = []
    for loaded in (plain, compiled):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = loaded.logits(images)
        gradients.append(tape.gradient(logits, images))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected finite floats"):
        compiled.signatures["logits"](images=images * np.nan)


def test_the_bare_function_takes_what_attackers_need(make_export, tmp_path):
    loaded = tf.saved_model.load(make_export(tmp_path / "export"))
    images = tf.constant(np.random.default_rng(0).uniform(-1.5, 1.5, [2, *IMAGE_SHAPE]), tf.float32)
    jitted = tf.function(loaded.logits, jit_compile=True)
    np.testing.assert_allclose(jitted(images), loaded.logits(images), atol=1e-4)
    assert loaded.logits(images * np.nan).shape == (2, 3)  # nothing is refused: it is for the attack to judge


def test_the_limit_of_pixels_is_that_of_the_options(make_export, tmp_path):
    directory = make_export(tmp_path / "export", options=ExportOptions(max_pixels=30 * 30))
    assert manifest.read(directory)["input"]["max_pixels"] == 900
    encoded = [tf.io.encode_png(np.zeros([30, side, 3], np.uint8)) for side in (30, 31)]
    signature = tf.saved_model.load(directory).signatures["encoded"]
    assert signature(encoded=encoded[0][tf.newaxis])["scores"].shape == (1, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="31 x 30 pixels, allowed are 1 to 900"):
        signature(encoded=encoded[1][tf.newaxis])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": "float16"}, "must be one of float32, bfloat16, got 'float16'"),
        ({"max_pixels": 0}, "max_pixels must be a whole number within 1"),
        ({"max_pixels": 2**30}, "max_pixels must be a whole number within 1"),
        ({"warm_up_batch_sizes": ()}, "warm_up_batch_sizes must be"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportOptions(**options)


def test_gin_sets_the_options():
    gin.parse_config("ExportOptions.compute = 'bfloat16'\nExportOptions.xla = True")
    options = ExportOptions()
    assert (options.compute, options.precision, options.xla) == ("bfloat16", "mixed_bfloat16", True)


# ---------------------------------------------------------------------------------------------------------- manifest


def test_the_manifest_tells_classes_input_and_what_it_is_given(make_export, tmp_path):
    directory = make_export(tmp_path / "export", about={"dataset": "cats", "git_commit": "abc"})
    content = manifest.read(directory)
    assert content["classes"] == ["cat", "dog", "Wölfe"] and content["dataset"] == "cats"
    assert content["git_commit"] == "abc" and content["input"]["image_shape"] == [12, 12, 3]
    signatures = tf.saved_model.load(directory).signatures
    assert set(content["input"]["signatures"]) == set(signatures)
    for name, described in content["input"]["signatures"].items():
        ((argument, spec),) = signatures[name].structured_input_signature[1].items()
        assert (described["name"], described["dtype"]) == (argument, spec.dtype.name)
        assert described["shape"] == spec.shape.as_list()
    with pytest.raises(ValueError, match="manifest.json is no manifest of an export"):
        manifest.read(str(tmp_path))


def test_accuracy_comes_with_the_settings_of_the_attacks_and_the_checks_that_failed():
    report = {
        "split": "test",
        "examples": 10,
        "clean": 0.9,
        "curve": [{"epsilon": 0.1, "accuracy": 0.5}],
        "worst_case": {"epsilon": 0.1, "accuracy": 0.5},
        "attacks": [{"name": "PGD", "steps": 20}],
        "seed": 0,
        "checks": [{"name": "noise", "status": "fail"}, {"name": "steps", "status": "pass"}],
        "git_commit": "abc",
        "images": "not wanted",
    }
    described = manifest.describe_accuracy(report)
    assert described["clean"] == 0.9 and described["attacks"] == [{"name": "PGD", "steps": 20}]
    assert described["failed_checks"] == ["noise"] and "images" not in described
    assert described["measured_with"] == {"dtype": "float32", "git_commit": "abc"}
    assert manifest.describe_accuracy(None) is None


# ---------------------------------------------------------------------------------------------------------- failures


def failing(*arguments, **options):
    raise RuntimeError("the disk is full")


@pytest.mark.parametrize(
    ("module", "function"),
    [(saved_model.warm_up, "write"), (saved_model.manifest, "write"), (saved_model, "check")],
)
def test_a_failure_at_any_step_leaves_the_earlier_versions_alone(make_export, tmp_path, monkeypatch, module, function):
    (tmp_path / "export" / "1").mkdir(parents=True)
    monkeypatch.setattr(module, function, failing)
    with pytest.raises(RuntimeError, match="the disk is full"):
        make_export(tmp_path / "export")
    assert os.listdir(tmp_path / "export") == ["1"]


def test_a_warm_up_that_the_graph_refuses_is_no_version(make_export, tmp_path, monkeypatch):
    monkeypatch.setattr(
        saved_model.warm_up, "requests", lambda *_: [("encoded", {"encoded": tf.constant([b"no image"])})]
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="neither JPEG nor PNG"):
        make_export(tmp_path / "export")
    assert os.listdir(tmp_path / "export") == []


def test_a_manifest_that_is_no_json_is_no_version(make_export, tmp_path):
    with pytest.raises(TypeError):
        make_export(tmp_path / "export", about={"weights": np.zeros(3)})
    assert os.listdir(tmp_path / "export") == []
    make_export(tmp_path / "export", about={"weights": [0.0]})
    assert json.loads((tmp_path / "export/1/assets.extra/manifest.json").read_text())["weights"] == [0.0]
