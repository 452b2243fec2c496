"""The command on SavedModels of others: exit status, one line for each fault, and the written report."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sklearn.linear_model
import tensorflow as tf

from robgan_tf.data.sources import tfds_images

ROOT = pathlib.Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def weights(folder):
    """A linear classifier of the digits on [-1, 1]."""
    train = tfds_images.digits(data_dir=str(folder / "tfds")).train
    pixels = train.images.reshape(len(train), -1) / 127.5 - 1
    fitted = sklearn.linear_model.LogisticRegression(C=0.01, max_iter=200).fit(pixels, train.labels)
    return fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)


def save(directory, weights, function):
    """Saves `function` of the linear classifier's logits as the only signature, without a function `logits`."""
    module = tf.Module()
    module.weight, module.bias = map(tf.Variable, weights)

    def logits(images):
        return tf.reshape(images, [-1, 256]) @ module.weight + module.bias

    signature = tf.function(
        lambda images: {"answers": function(logits, images)},
        input_signature=[tf.TensorSpec([None, 16, 16, 1], tf.float32)],
    )
    tf.saved_model.save(module, str(directory), signatures=signature)
    return directory


def evaluate(folder, model, *arguments):
    params = [
        f"digits.data_dir='{folder / 'tfds'}'",
        "RobustnessEvaluation.epsilons=(0.0, 0.05, 0.1)",
        "RobustnessEvaluation.test_examples=100",
        "SanityChecks.queries=200",
        "SanityChecks.examples=50",
        "LInf.epsilon=0.1",
    ]
    command = [sys.executable, "-m", "robgan_tf.evaluate", "--gin_file=gin/digits.gin", f"--saved_model={model}"]
    command += [f"--gin_param={param}" for param in params] + list(arguments)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_any_saved_model_is_evaluated_and_the_report_written(folder, weights):
    model = save(folder / "honest", weights, lambda logits, images: logits(images))
    # Two replicas: like GPUs, they can't be set up any more once a model is loaded.
    arguments = [f"--out={folder / 'report.json'}", "--strict", "--gin_param=configure.replicas = 2"]
    finished = evaluate(folder, model, *arguments)
    assert finished.returncode == 0, finished.stderr
    report = json.loads((folder / "report.json").read_text())
    assert report["saved_model"] == str(model) and report["dataset"] == "digits" and report["examples"] == 100
    assert report["clean"] > 0.8 and len(report["checks"]) == 23
    assert (folder / "report.html").stat().st_size > 1000


def test_a_failed_check_is_told_and_strict_makes_the_status_3(folder, weights):
    model = save(folder / "softmax", weights, lambda logits, images: tf.nn.softmax(logits(images)))
    finished = evaluate(folder, model, f"--out={folder / 'softmax.json'}", "--strict")
    assert finished.returncode == 3, finished.stderr
    assert "check failed: Answers are logits, not probabilities: all answers are in [0, 1]" in finished.stderr
    assert json.loads((folder / "softmax.json").read_text())["robustbench"]["unreliable"]


def test_a_model_for_another_scale_of_pixels_ends_with_one_line(folder, weights):
    model = save(folder / "bytes", weights, lambda logits, images: logits(tf.clip_by_value(images / 127.5 - 1, -1, 1)))
    failed = evaluate(folder, model, f"--out={folder / 'bytes.json'}")
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert "on [0, 255]: it was made for that one" in line and not (folder / "bytes.json").exists()


def test_a_report_must_not_have_the_name_of_its_page(folder):
    failed = evaluate(folder, folder / "any", "--out=report.html")
    assert failed.returncode == 2 and "--out=report.html must end in .json" in failed.stderr


def test_the_old_flag_for_generated_images_is_answered_with_the_new_command():
    command = [sys.executable, "-m", "robgan_tf.evaluate", "--generator", "--run_dir=runs/x", "--extractor=runs/y"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    failed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert "python -m robgan_tf.evaluate_generator" in line


def generator(folder, *arguments):
    command = [sys.executable, "-m", "robgan_tf.evaluate_generator", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_file_of_images_is_measured_in_place_of_a_run(folder):
    test = tfds_images.digits(data_dir=str(folder / "tfds")).test
    np.savez(folder / "images.npz", images=test.images, labels=test.labels)
    params = [
        f"digits.data_dir='{folder / 'tfds'}'",
        "GenerationEvaluation.samples=300",
        "GenerationEvaluation.inception=None",
        "ClassifierTraining.updates=300",
    ]
    arguments = [f"--samples={folder / 'images.npz'}", "--gin_file=gin/digits.gin", f"--out={folder / 'images.json'}"]
    finished = generator(folder, *arguments, *(f"--gin_param={param}" for param in params))
    assert finished.returncode == 0, finished.stderr
    report = json.loads((folder / "images.json").read_text())
    (block,) = report["extractors"]
    assert block["generated"]["recall"] > 0.5 and report["generated"]["source"] == "file"
    assert {"generated", "real"} <= report["classification_accuracy"].keys() and report["similarity"]["scales"] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give --run_dir=R, or --samples=FILE.npz with --gin_file=F and --out=FILE.json"),
        (["--run_dir=runs/x", "--samples=x.npz"], "give --out"),
        (["--run_dir=runs/x", "--out=report"], "--out=report must end in .json"),
        (["--saved_model=x"], "there is no flag --saved_model"),
        (
            ["--samples=x.npz", "--gin_file=gin/digits.gin", "--out=x.json", "--extractor=nowhere"],
            "nowhere is not an exported model",
        ),
    ],
)
def test_wrong_flags_of_the_generator_end_with_one_line(folder, arguments, message):
    failed = generator(folder, *arguments)
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert message in line
