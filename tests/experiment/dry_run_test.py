"""The dry run: its numbers against countings of another kind, its warnings, and all contradictions at once."""

import os
import pathlib
import re
import subprocess
import sys
import types

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import command_line
from robgan_tf.experiment import dry_run as plan
from robgan_tf.experiment.disk import checkpoint_bytes
from robgan_tf.experiment.footprint import footprint
from robgan_tf.experiment.machine_speed import free_memory, gpu_memory, host_memory, matrix_product_rate, reader_rate
from robgan_tf.experiment.needs import resident_bytes, step_needs
from robgan_tf.experiment.prediction import Prediction, StepTime, Timing

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build(folder, *params):
    gin.clear_config()
    return command_line.build_experiment([str(ROOT / "gin/digits.gin")], [f"digits.data_dir = '{folder}'", *params])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def report(experiment, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "host_memory", lambda: 2**20)  # a machine of 1 MiB
        return list(plan.report(experiment, str(tmp_path_factory.mktemp("runs") / "new")))


def line_of(report, start):
    (line,) = [line.strip() for line in report if line.strip().startswith(start)]
    return line


def test_the_data_are_counted(report, experiment):
    assert line_of(report, "data:") == "data: digits, 10 classes, 16x16 px, 1 channel(s)"
    counts = [np.count_nonzero(experiment.data.train.labels == label) for label in range(10)]
    assert line_of(report, "train:") == f"train: 1,287 images, {min(counts)} to {max(counts)} of a class"
    assert line_of(report, "test:").startswith("test: 360 images")


def test_the_players_are_counted(report, experiment):
    for name, player in [("generator", experiment.cotraining.generator), ("discriminator", experiment.discriminator)]:
        parameters = sum(np.prod(weight.shape) for weight in player.get_weights())
        assert line_of(report, f"{name}:").startswith(f"{name}: {parameters:,.0f} parameters")


def test_the_steps_are_counted(report):
    # 75 epochs of 1,287 images, 3 micro-batches of 32 a step; 80 epochs, 32 a step.
    line = line_of(report, "cotraining: 1,005 steps")
    assert "of 96 images (32 at once on each device), 75 epochs, 96,480 images" in line
    assert "80 epochs, 102,976 images" in line_of(report, "finetuning: 3,218 steps")
    assert any("attack: Attacker, 5 steps of 0.05 (6.38/255), from the image" in line for line in report)


def test_the_attack_takes_the_arithmetic_of_the_discriminator_there_and_back(experiment):
    stage, discriminator = experiment.cotraining, experiment.discriminator
    side, there, back = 16, 0, 0
    for block in discriminator.blocks:
        inside = side
        side = side // 2 if block.downsample else side
        for layer, pixels in ((block.conv_1, inside**2), (block.conv_2, inside**2), (block.conv_shortcut, side**2)):
            if layer is not None:
                products = pixels * np.prod(layer.kernel.shape)
                # With the average behind it: 4x4 products for each of a quarter of the pixels instead of 3x3.
                products *= 16 / 36 if block.downsample and layer is block.conv_2 else 1
                there += products
                # Back to the image: 4x4 for four pixels at once, of which 9 are no zeros, instead of 3x3 for each.
                back += products * 16 / 9 if block.first and layer is block.conv_1 else products
    for head in (discriminator.source_head, discriminator.class_head):
        there += np.prod(head.kernel.shape)
        back += np.prod(head.kernel.shape)
    # W u, for sigma, once in an attack whatever the batch.
    weights = sum(np.prod(layer.kernel.shape) for layer in discriminator.spectral_norm_layers)
    expected = 2 * (stage.attacker.steps * stage.batch_size * (there + back) + weights)
    images, labels, seed = tf.TensorSpec([32, 16, 16, 1]), tf.TensorSpec([32], tf.int32), tf.TensorSpec([2], tf.int32)
    traced = tf.function(stage.attack, autograph=False).get_concrete_function(images, labels, seed)
    assert footprint(traced).flops == expected


@pytest.mark.slow
def test_the_parts_make_up_the_step(experiment):
    stage = experiment.cotraining
    needs = step_needs(stage, experiment.data.image_shape, experiment.strategy)
    step = tf.function(lambda *batch: stage.train_step(batch), autograph=False)
    whole = step.get_concrete_function(tf.TensorSpec([96, 16, 16, 1]), tf.TensorSpec([96], tf.int32))
    assert footprint(whole).flops == needs.flops
    assert needs.batch == 96 * 16 * 16 * 4


@pytest.mark.parametrize("name", ["cotraining", "finetuning"])
def test_a_checkpoint_has_the_size_that_is_said(experiment, tmp_path, name):
    stage = getattr(experiment, name)
    tf.train.Checkpoint(**stage.checkpoint_objects()).write(str(tmp_path / "values"))
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert checkpoint_bytes(stage) == pytest.approx(written, rel=0.06)  # names and checksums of the variables


def test_what_stays_in_memory_is_counted(experiment):
    weights, moments = resident_bytes(experiment)
    stage = experiment.cotraining
    networks = [stage.generator, stage.average_generator, experiment.discriminator, experiment.finetuning.result]
    arrays = [array for network in networks for array in network.get_weights()]
    assert weights == sum(array.nbytes for array in arrays) + 8 + 8 + 4  # two counters of steps, the best accuracy
    trained = [stage.generator, experiment.discriminator, experiment.discriminator]
    expected = 2 * sum(variable.numpy().nbytes for network in trained for variable in network.trainable_variables)
    head = 2 * sum(variable.numpy().nbytes for variable in experiment.discriminator.source_head.trainable_variables)
    assert moments == pytest.approx(expected - head, abs=100)  # and the optimizers' own counters and rates


def test_every_phase_is_in_the_report(report):
    names = [
        "generator update",
        "attack",
        "discriminator update",
        "statistics of the averaged generator (128 images)",
        "attack for the image grids (8 images)",
        "whole step",
        "validation (150 images)",
        "attack and classification of 250 images",
    ]
    for name in names:
        assert any(re.search(rf"[;,] {re.escape(name)} [0-9.]+ MiB\b", line) for line in report), name
    assert not any("not counted" in line for line in report)
    for text in ("images/s; the reader gives", "checkpoints of cotraining", "export"):
        assert any(text in line for line in report), text


def test_too_little_memory_is_a_warning(report):
    assert any(
        re.match(r"warning: memory of this machine: the run needs [0-9.]+ GiB, 1.0 MiB are there: set", line)
        for line in report
    )
    assert re.match(r"fits: no: memory of this machine [0-9.]+ GiB of 1.0 MiB, disk [0-9.]+ MiB of ", report[0])


def test_the_first_lines_say_whether_it_fits_how_long_it_takes_and_what_is_missing(report):
    assert [line.partition(":")[0] for line in report[:4]] == ["fits", "takes", "missing", ""]
    assert re.match(r"takes: at least (\d+ (h|min|s) ?)+ of training on this CPU", report[1])
    assert report[2] == "missing: nothing"


def test_where_it_does_not_fit_no_step_is_timed(report, experiment):
    assert line_of(report, "time:") == "time: no step was timed: the run does not fit in the memory"
    assert report[1].endswith("of training on this CPU, by the arithmetic alone; the evaluation comes on top")
    assert experiment.cotraining.steps_done == experiment.finetuning.steps_done == 0


def test_steps_are_timed_where_the_run_fits_beside_other_programs_and_the_devices_are_here(two_replicas, monkeypatch):
    monkeypatch.setattr(plan, "free_memory", lambda: 3 * 2**30)
    one, two = (types.SimpleNamespace(strategy=made) for made in (tf.distribute.get_strategy(), two_replicas))
    assert plan.why_untimed(one, short=False, needed=2 * 2**30) == ""
    assert plan.why_untimed(two, short=False, needed=2**30) == "the 2 replicas are not devices of this machine"
    assert plan.why_untimed(one, short=True, needed=2**30) == "the run does not fit in the memory"
    words = plan.why_untimed(one, short=False, needed=2 * 2**30 + 2**20)
    assert words == "3.00 GiB of memory are free, and a run may take up to 3.00 GiB"
    monkeypatch.setattr(plan, "free_memory", lambda: None)  # a system that does not tell
    assert plan.why_untimed(one, short=False, needed=2**50) == ""
    # Another program may have taken most of a GPU.
    monkeypatch.setattr(plan, "gpu_memory", lambda kind: {"free": [30 * 2**30, 3 * 2**30]}[kind])
    assert plan.why_untimed(one, short=False, needed=0, needed_of_gpu=2 * 2**30) == ""
    words = plan.why_untimed(one, short=False, needed=0, needed_of_gpu=2 * 2**30 + 2**20)
    assert words == "3.00 GiB of memory of GPU 1 are free, and a run may take up to 3.00 GiB"


def test_free_memory_is_a_part_of_all():
    assert 2**20 < free_memory() <= host_memory()


def test_the_prediction_is_said_beside_the_arithmetic():
    step = StepTime(Timing(first=8.0, seconds=0.5, cpu=0.9), images=96)
    made = Prediction({"cotraining": step, "finetuning": step}, {"cotraining": 8400.0, "finetuning": 2400.0}, 600.0)
    assert plan._takes(made, 3600.0, "this CPU") == (
        "about 3 h of training on this machine (cotraining 2 h 20 min, finetuning 40 min), then an evaluation with at "
        "most 10 min of attacks, and its checks; at least 1 h of training by the arithmetic alone"
    )
    # The rate of a matrix product that other programs disturbed is no bound.
    assert plan._takes(made, 10801.0, "this CPU").endswith("10 min of attacks, and its checks")
    lines = list(plan._time(made, ""))
    assert lines[1] == "  cotraining: 0.5 s a step; 8 s the first, which is traced"
    assert lines[-1] == "  evaluation: 10 min of attacks, if all images withstand them all"


def test_too_little_disk_is_a_warning(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment.cotraining, "total_steps", 10**12)
    verdicts = plan._Verdicts()
    list(plan._disk(experiment, tmp_path / "not" / "there", verdicts))
    (warning,) = verdicts.warnings
    assert verdicts.short and re.match(r"disk: the run needs [0-9,.]+ GiB, .* are there: give another", warning)


def test_the_reader_and_the_matrix_product_have_a_rate(experiment):
    assert reader_rate(experiment, experiment.cotraining, seconds=0.1) > 100
    for dtype in ("float32", "bfloat16"):
        assert matrix_product_rate(dtype, seconds=0.1) > 1e8


def test_the_memory_of_gpus_is_asked_of_their_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() == []
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\ncase $1 in *=memory.free) echo 512;; *=memory.total) echo 24564; echo 8192;; esac\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_memory() == [24564 * 2**20, 8192 * 2**20] and gpu_memory("free") == [2**29]


@pytest.mark.slow
def test_a_device_of_two_needs_what_one_with_half_the_batch_does(tmp_path):
    halves = build(tmp_path, "CoTraining.batch_size = 16", "FineTuning.batch_size = 16")
    two = build(tmp_path, "configure.replicas = 2")
    assert two.strategy.num_replicas_in_sync == 2
    for name in ("cotraining", "finetuning"):
        one_half, one_of_two = (
            step_needs(getattr(made, name), made.data.image_shape, made.strategy) for made in (halves, two)
        )
        # The averaged generator's statistics are of 128 images over all devices, whatever the batch.
        of_the_average = [phase for phase in one_half.phases if phase.startswith("statistics")]
        alone, shared = ([need.phases.pop(phase).flops for phase in of_the_average] for need in (one_half, one_of_two))
        assert alone == [2 * flops for flops in shared]
        assert (one_of_two.flops, one_of_two.batch) == (one_half.flops, one_half.batch)
        assert list(one_of_two.phases) == list(one_half.phases)
        for phase, expected in one_half.phases.items():
            assert one_of_two.phases[phase].flops == expected.flops
            # Batch norm and the sums of gradients are other operations on several replicas, of some buffers more.
            assert one_of_two.phases[phase].peak == pytest.approx(expected.peak, rel=0.02)


# ---- the command


def dry_run(folder, *params):
    command = [sys.executable, "-m", "robgan_tf.train", f"--gin_file={ROOT}/gin/digits.gin", "--dry_run"]
    command += [f"--gin_param={param}" for param in (f"digits.data_dir = '{folder}/data'", *params)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_all_contradictions_are_reported_once_each_and_nothing_is_written(tmp_path):
    result = dry_run(
        tmp_path,
        "RobustnessEvaluation.epsilons = (0.1, 0.2)",
        "cotraining/Attacker.relative_step_size = 0.01",
        "FineTuning.batch_size = 0",
        "validation/Attacker.steps = 0",
        "digits.validation_examples = 0",
    )
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    expected = [
        "epsilons must rise from 0",
        "can't reach epsilon = 0.2",
        "FineTuning.batch_size must be a whole number >= 1, got 0",
        "Attacker.steps must be a whole number >= 1, got 0",
        "validation part of the training split, which is empty",
    ]
    assert len(lines) == len(expected) and all(line.startswith("error: ") for line in lines), lines
    for text in expected:
        assert sum(text in line for line in lines) == 1, (text, lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "size", "classes", "train"),
    [("cifar10", 32, 10, "49,000"), ("imagenet64", 64, 143, "180,000"), ("imagenet128", 128, 143, "180,000")],
)
def test_a_configuration_says_what_its_data_are_expected_to_be(tmp_path, monkeypatch, config, size, classes, train):
    monkeypatch.chdir(tmp_path)
    gin.clear_config()
    params = [f"tfds_images.data_dir = '{tmp_path / 'tfds'}'", "Generator.base_width = 1"]
    made = command_line.build_experiment([str(ROOT / f"gin/{config}.gin")], params, dry_run=True)
    assert made.missing.startswith(("tfds_images: 'cifar10' is not in", "tfrecord_images: there is no folder"))
    assert made.data.image_shape == (size, size, 3) and made.data.num_classes == classes
    assert f"{len(made.data.train):,}" == train
    assert not list(tmp_path.iterdir())


def test_missing_data_of_which_nothing_is_expected_are_named_with_what_to_bind(tmp_path, capsys):
    gin.clear_config()
    params = [f"tfrecord_images.data_dir = '{tmp_path / 'none'}'", "Experiment.expected_data = None"]
    with pytest.raises(SystemExit):
        command_line.build_experiment([str(ROOT / "gin/imagenet64.gin")], params, dry_run=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no folder" in line and "say what they will be: Experiment.expected_data = @expected_data" in line


@pytest.mark.slow
def test_a_dry_run_without_data_writes_nothing_and_is_a_screen(tmp_path):
    command = [sys.executable, "-m", "robgan_tf.train", f"--gin_file={ROOT}/gin/cifar10.gin", "--dry_run"]
    home = tmp_path / "home"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    environment |= {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    params = ["Generator.base_width = 2", "Discriminator.base_width = 2", "tfds_images.data_dir = 'data'"]
    command += [f"--gin_param={param}" for param in params]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("fits: yes") and lines[1].startswith("takes: about") and len(lines) <= 50
    assert "missing: the data; counted is what the configuration expects of them (tfds_images: 'cifar10' is not" in (
        " ".join(result.stdout.split())
    )
    assert "test: 10,000 images, 1,000 to 1,000 of a class" in result.stdout and "In call to" not in result.stdout
    assert max(map(len, lines)) <= 110
    # Keras leaves its settings in every home.
    assert {path.name for path in tmp_path.rglob("*")} <= {"home", ".keras", "keras.json"}


def test_what_all_parts_share_is_named_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        build(tmp_path, "LInf.epsilon = -1")
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: LInf.epsilon must be a number >= 0")


def test_what_depends_on_a_failed_part_is_not_an_error_of_its_own(tmp_path, capsys):
    with pytest.raises(SystemExit):
        build(tmp_path, "digits.image_size = 20", "Experiment.finetuning = None", "Discriminator.multipliers = (1,)")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "Discriminator.multipliers" in lines[0] and "20x20" in lines[1], lines
