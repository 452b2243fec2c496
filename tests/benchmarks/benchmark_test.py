"""The benchmark: what it counts and fits, and that the command goes through; peers are skipped where not installed."""

import json
import os
import pathlib
import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf
from measures.growth import exponents
from measures.machine import is_there
from measures.shapes import Arithmetic, Shapes
from measures.timing import Series

from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator
from robgan_tf.serving.saved_model import export_classifier

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_arithmetic_by_hand():
    """A block without and one with up-sampling, as many with pooling; all sums below are multiply-adds of an image."""
    shapes = Shapes(8, 3, 5, 6, 4, ((2, False), (3, True)), ((2, True), (2, False)))
    dense, first = 6 * 16 * 4, 16 * (4 * 2 + 9 * 4 * 2 + 9 * 2 * 2)
    second, last = 16 * 2 * 3 + 64 * (9 * 2 * 3 + 9 * 3 * 3), 64 * 9 * 3 * 3
    generate = 2 * (dense + first + second + last)
    on_image = 2 * (64 * 9 * 3 * 2 + 16 * 3 * 2)
    judge = on_image + 2 * (64 * 9 * 2 * 2 + 16 * 2 * 9 * 2 * 2 + 2 * 6)
    parts = Arithmetic(shapes, batch=10, attack_steps=3, discriminator_steps=2, evaluation_steps=4).parts()
    assert parts["attack"] == 10 * 3 * 2 * judge
    assert parts["discriminator update"] == 10 * (generate + 2 * (3 * judge - on_image))
    assert parts["generator update"] == 10 * (3 * generate - 2 * dense + 2 * judge)
    assert parts["iteration"] == parts["generator update"] + 2 * (parts["attack"] + parts["discriminator update"])
    assert parts["evaluation"] == 10 * 9 * judge


@pytest.mark.parametrize("network, side", [("32px_sngan", 32), ("32px_code", 32), ("64px", 64)])
def test_shapes_are_read_off_the_players(network, side):
    gin.parse_config_file(str(ROOT / f"gin/networks/{network}.gin"))
    players = Generator(5, (side, side, 3), 2), Discriminator(5, (side, side, 3), 2)
    shapes = Shapes.of(*players)
    assert (shapes.side, shapes.channels, shapes.num_classes, shapes.latent_dim) == (side, 3, 5, 128)
    assert len(shapes.generator) == len(players[0].blocks) and len(shapes.discriminator) == len(players[1].blocks)


def test_exponent_of_a_power_law():
    values = np.array([2, 4, 8, 16])
    costs = np.stack([3.0 * values**1.5, 7.0 * values**2.0], axis=1)
    np.testing.assert_allclose(exponents(values, costs), [1.5, 2.0])


def test_series_tells_rates_and_whether_the_requirement_is_met():
    series = Series("step", np.array([0.5, 0.5, 0.4]), images=10, flops=1e9, at_most=0.4)
    assert series.to_json()["images_per_second"] == 20 and series.to_json()["flops_per_second"] == 2e9
    assert "20.0 images/s" in str(series) and "2.0 GFLOP/s" in str(series) and "MISSED: at most 0.4" in str(series)
    assert "ok: at least 2" in str(Series("ratio", [2.0, 2.5], "", at_least=2))
    json.dumps(series.to_json())


def run_command(*arguments):
    command = [sys.executable, "benchmarks/benchmark.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("package, peers", [("torch", ["well_written", "naive"]), ("jax", ["jax"])])
def test_command_compares_with_the_peers(tmp_path, package, peers):
    pytest.importorskip(package)
    out = tmp_path / "peer.json"
    small = [f"--gin_param={player}.base_width=2" for player in ("Generator", "Discriminator")]
    small += ["--batch=2", "--discriminator_steps=1", "--attack_steps=1", "--repetitions=1", "--starts=1"]
    # One thread: on a machine with other work, PyTorch's would wait for each other longer than they compute.
    what = ["--measure=peer", "--sizes=32px_16", "--precision=float32", "--parts=attack,iteration", "--threads=1"]
    answer = run_command(*what, *small, f"--peers={','.join(peers)}", f"--out={out}")
    assert answer.returncode == 0, answer.stderr
    measured = {one["name"]: one for one in json.loads(out.read_text())["measures"]["peer"]}
    required = {"well_written": 1.3, "naive": 2.0, "jax": 1.3}
    for peer in peers:
        assert measured[f"32px_16 float32 iteration: {peer} / ours"]["at_least"] == required[peer]
        assert measured[f"32px_16 float32: {peer}, peak memory above imports"]["median"] > 1
    assert measured["32px_16 float32 attack: ours"]["flops_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("package, peer", [("torch", "well_written"), ("jax", "jax")])
def test_a_peer_that_is_not_installed_is_told_in_one_line(package, peer):
    if is_there(package):
        pytest.skip(f"{package} is installed")
    answer = run_command("--measure=peer", f"--peers={peer}")
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].endswith(
        f"{package} is not installed: pip install -c constraints-2.15.txt -e '.[bench]'"
    )


@pytest.mark.slow
def test_command_compares_evaluations(tmp_path):
    pytest.importorskip("foolbox")
    weights = tf.Variable(tf.random.stateless_normal([16 * 16, 10], [0, 0]))
    folder = export_classifier(
        lambda images: tf.reshape(images, [-1, 256]) @ weights,
        [weights],
        image_shape=(16, 16, 1),
        class_names=[str(digit) for digit in range(10)],
        export_root=str(tmp_path),
        check_images=np.zeros([2, 16, 16, 1], np.uint8),
    )
    out = tmp_path / "evaluation.json"
    given = ["--measure=evaluation", f"--saved_model={folder}", "--gin_file=gin/digits.gin"]
    answer = run_command(*given, "--batch=20", "--repetitions=2", f"--out={out}")
    assert answer.returncode == 0, answer.stderr
    measured = {one["name"]: one for one in json.loads(out.read_text())["measures"]["evaluation"]}
    assert len(measured["throughput, ours / foolbox"]["values"]) == 2
    assert measured["accuracy, |ours - foolbox|, points"]["median"] <= 0.5


@pytest.mark.slow
def test_command_compares_tensorflows_by_turns(tmp_path):
    other = os.environ.get("ROBGAN_OTHER_PYTHON")
    out = tmp_path / "tensorflows.json"
    small = [f"--gin_param={player}.base_width=2" for player in ("Generator", "Discriminator")]
    small += ["--width=2", "--batch=2", "--discriminator_steps=1", "--attack_steps=1", "--precision=float32"]
    given = ["--measure=tensorflows", "--repetitions=2", "--turn=0.1", *small, f"--out={out}"]
    answer = run_command(*given, f"--other_python={other or sys.executable}")
    if not other:  # the same on both sides says nothing, and is refused
        assert answer.returncode == 2 and f"--other_python has TensorFlow {tf.__version__}, as this" in answer.stderr
        return
    assert answer.returncode == 0, answer.stderr
    measured = {one["name"]: one for one in json.loads(out.read_text())["measures"]["tensorflows"]}
    for label in ("digits, cotraining", "digits, finetuning", "32px_sngan, ch 2, float32"):
        rates = [one for name, one in measured.items() if name.startswith(label) and name.endswith("steps a second")]
        ratio = next(one for name, one in measured.items() if name.startswith(f"{label}: speed"))  # by the clock
        this = next(one for one in rates if one["about"]["tensorflow"] == tf.__version__)
        (that,) = [one for one in rates if one is not this]
        assert ratio["values"] == pytest.approx(np.divide(that["values"], this["values"]))
        memory = next(one for name, one in measured.items() if name == f"{this['name'].rsplit(',', 1)[0]}, peak memory")
        assert 200 < memory["median"] < 10_000
