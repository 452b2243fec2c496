"""The comparison with other libraries; what needs one of them is skipped where it is not installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import attack_libraries
import crosscheck
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.serving.saved_model import export_classifier

ROOT = pathlib.Path(__file__).resolve().parents[2]
EPSILON = 0.3
WEIGHTS = np.random.default_rng(0).normal(size=[4 * 4 * 3, 4]).astype(np.float32)


@tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3])], autograph=False)
def linear(images):
    return tf.reshape(images, [-1, len(WEIGHTS)]) @ WEIGHTS


def setting(**options):
    settings = {"steps": 10, "relative_step_size": 0.2, "random_start": False, "batch_size": 16, "seed": 0}
    return attack_libraries.Setting(linear, num_classes=4, epsilon=EPSILON, **{**settings, **options})


def some_examples(count=40):
    """Random images far from the ends of the range, labelled as the classifier sees them but for each fifth."""
    images = np.random.default_rng(1).integers(60, 196, [count, 4, 4, 3]).astype(np.uint8)
    labels = linear(images / np.float32(127.5) - 1).numpy().argmax(axis=-1)
    return Examples(images, np.where(np.arange(count) % 5, labels, (labels + 1) % 4).astype(np.int32))


def shifted(change):
    return lambda examples: attack_libraries.pixels(examples) + np.float32(change)


# ---- judging and comparing


def test_clean_images_are_judged_by_the_classifier_alone():
    row = crosscheck.judge(setting(), some_examples(), "none", "numpy", shifted(0))
    assert row["accuracy"] == 0.8 and row["outside"] == 0 and row["largest_distance"] == 0
    np.testing.assert_array_equal(row["stands"], np.arange(40) % 5 > 0)
    assert row["version"] == np.__version__ and row["images_per_second"] > 0


@pytest.mark.parametrize("change, outside", [(EPSILON, 0), (EPSILON + 1e-4, 40), (np.nan, 40)])
def test_images_outside_of_the_ball_are_no_success(change, outside):
    row = crosscheck.judge(setting(), some_examples(), "shift", "numpy", shifted(change))
    assert row["outside"] == outside
    assert (row["accuracy"] == 0.8) == bool(outside)


def test_images_outside_of_the_range_are_no_success():
    white = Examples(np.full([3, 4, 4, 3], 255, np.uint8), np.zeros(3, np.int32))
    assert crosscheck.judge(setting(), white, "shift", "numpy", shifted(0.1))["outside"] == 3


def test_disagreement_is_told_by_example_and_in_points():
    stood = ([1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0])
    rows = [{"stands": stands, "cpu_seconds": seconds} for stands, seconds in zip(stood, (2.0, 5.0, 1.0))]
    crosscheck.compare(rows, most_points=1.0)
    assert "verdict" not in rows[0]
    assert rows[1]["ours_minus_theirs_points"] == 0 and rows[1]["verdict"] == "ok"
    assert rows[1]["fell_to_ours_alone"] == [2] and rows[1]["fell_to_theirs_alone"] == [1]
    assert rows[1]["times_as_long_as_ours"] == 2.5 and rows[2]["times_as_long_as_ours"] == 0.5
    assert rows[2]["ours_minus_theirs_points"] == 25 and rows[2]["verdict"] == "MISSED"


def test_table_has_a_line_for_each_attack():
    rows = [crosscheck.judge(setting(), some_examples(), name, "numpy", shifted(0)) for name in ("first", "second")]
    crosscheck.compare(rows, 0.5)
    head, rule, first, second = crosscheck.markdown(rows).splitlines()
    assert len({line.count("|") for line in (head, rule, first, second)}) == 1
    assert "| first (numpy" in first and "80.00%" in first and "+0.00 ok" in second


# ---- the attacks, against the worst case in closed form


def falls_at_best(examples):
    """Whether some point of the ball has another answer: no pixel leaves the range, so the best is epsilon sign(w)."""
    clean = attack_libraries.pixels(examples).reshape(len(examples), -1)
    assert np.abs(clean).max() + EPSILON < 1
    own = WEIGHTS[:, examples.labels].T
    margins = np.einsum("nd,ndk->nk", clean, WEIGHTS[None] - own[:, :, None])
    gains = EPSILON * np.abs(WEIGHTS[None] - own[:, :, None]).sum(axis=1)
    wrong = np.arange(4) != examples.labels[:, None]
    return ((margins + gains > 0) & wrong).any(axis=1)


def check_pgd(make):
    """With cross-entropy the attack does not need to find the best point, but never more than there is, and much."""
    examples = some_examples()
    row = crosscheck.judge(setting(), examples, "PGD", "numpy", make(setting()))
    broken = 1 - np.array(row["stands"])
    assert row["outside"] == 0 and not np.any(broken > falls_at_best(examples))
    assert broken.sum() >= 0.9 * falls_at_best(examples).sum()
    return row["stands"]


def test_our_attacks_fell_what_can_fall():
    check_pgd(attack_libraries.our_pgd)
    attack = Attacker(LInf(EPSILON), 10, relative_step_size=0.2)
    check_pgd(lambda setting: attack_libraries.our_worst_case(setting, [attack]))


@pytest.mark.parametrize("library, make", [("foolbox", "foolbox_pgd"), ("art", "art_pgd")])
def test_pgd_of_a_library_agrees_with_ours_image_by_image(library, make):
    pytest.importorskip(library)
    assert check_pgd(getattr(attack_libraries, make)) == check_pgd(attack_libraries.our_pgd)


@pytest.mark.slow
@pytest.mark.parametrize("only", [None, "apgd-ce"])
def test_autoattack_finds_the_closed_form(only):
    pytest.importorskip("pyautoattack")
    examples, attack = some_examples(10), attack_libraries.autoattack(setting(), only)
    row = crosscheck.judge(setting(), examples, "AutoAttack", "pyautoattack", attack)
    assert row["outside"] == 0
    np.testing.assert_array_equal(np.array(row["stands"]), ~falls_at_best(examples))


# ---- the command


def run_command(*arguments):
    command = [sys.executable, "benchmarks/crosscheck.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_command_says_what_is_missing():
    installed = any(importlib.util.find_spec(name) for name in ("foolbox", "art"))
    answer = run_command("--saved_model=nowhere", "--gin_file=gin/digits.gin", *["--nopgd"] * installed)
    assert answer.returncode == 2
    assert [line for line in answer.stderr.splitlines() if not line.startswith(("WARNING: All log", "I0000"))] == [
        "error: there is no library to compare with"
    ]  # TensorFlow 2.21 logs what it was compiled for as it is imported
    if not installed:
        assert "foolbox is not installed" in answer.stdout and "[crosscheck]" in answer.stdout


@pytest.mark.slow
def test_command_writes_the_table(tmp_path):
    pytest.importorskip("foolbox")
    weights = tf.Variable(tf.random.stateless_normal([16 * 16, 10], [0, 0]))

    def logits(images):
        return tf.reshape(images, [-1, 256]) @ weights

    names = [str(digit) for digit in range(10)]
    shape = (16, 16, 1)
    folder = export_classifier(
        logits,
        [weights],
        image_shape=shape,
        class_names=names,
        export_root=str(tmp_path),
        check_images=np.zeros([2, *shape], np.uint8),
    )
    out = tmp_path / "cross.json"
    given = (f"--saved_model={folder}", "--gin_file=gin/digits.gin", "--epsilon=0.05", "--examples=50")
    answer = run_command(*given, f"--out={out}")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(out.read_text())
    assert report["examples"] == 50 and report["settings"]["epsilon_255"] == pytest.approx(6.375)
    assert [row["library"] for row in report["rows"]][:2] == ["robgan_tf", "foolbox"]
    assert all(row.get("verdict", "ok") == "ok" for row in report["rows"])
    assert out.with_suffix(".md").read_text() in answer.stdout
