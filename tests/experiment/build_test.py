"""A whole run in one process: stop and continue, order of stages, contradictions."""

import json
import pathlib
import re

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import command_line
from robgan_tf.bindings import bindings, operative_config
from robgan_tf.experiment.describe import summary
from robgan_tf.experiment.restoring import NotTrainedError, restore_classifier, restore_generator
from robgan_tf.experiment.run import export, run_stages
from robgan_tf.run.checkpoints import steps_in
from robgan_tf.run.directory import RunDirectory
from robgan_tf.serving.saved_model import export_classifier
from robgan_tf.training.loop import TrainingLoop
from robgan_tf.training.monitoring import NOT_REPEATABLE

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The demo, small: 6 steps of co-training and 12 of fine-tuning, which take parts of an epoch.
SMALL = [
    "Generator.base_width = 4",
    "Discriminator.base_width = 4",
    "CoTraining.batch_size = 16",
    "CoTraining.discriminator_steps = 2",
    "CoTraining.epochs = 0.15",
    "FineTuning.batch_size = 16",
    "FineTuning.epochs = 0.15",
    "FineTuning.average_decay = 0.9",
    "RobustnessEvaluation.epsilons = (0.0, 0.1)",
    "RobustnessEvaluation.test_examples = 40",
    "Upkeep.log_every = 2",
    "Upkeep.checkpoint_every = 4",
    "Experiment.sample_every = 5",
    "Experiment.validate_every = 5",
]


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def make_experiment(digits_dir):
    def make(*params, systems=()):
        gin.clear_config()
        data = f"digits.data_dir = '{digits_dir}'"
        files = [ROOT / "gin" / "digits.gin", *(ROOT / "gin" / "baselines" / f"{system}.gin" for system in systems)]
        return command_line.build_experiment(list(map(str, files)), [*SMALL, data, *params])

    return make


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.fixture
def kill_at(monkeypatch):
    """Lets training fail right after a step."""

    def arm(stage, step):
        original = TrainingLoop.after_step

        def maybe_fail(self, number, metrics):
            original(self, number, metrics)
            if self.stage.name_of_stage == stage and self.stage.steps_done == step:
                monkeypatch.setattr(TrainingLoop, "after_step", original)
                raise Killed

        monkeypatch.setattr(TrainingLoop, "after_step", maybe_fail)

    return arm


def checkpointed(run_directory, stage):
    """All values of the newest checkpoint of a stage."""
    folder = run_directory.checkpoints(stage)
    reader = tf.train.load_checkpoint(str(folder / f"{steps_in(folder)[-1]:08d}" / "values"))
    names = [name for name in reader.get_variable_to_shape_map() if "GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names}


def metrics(run_directory):
    lines = [json.loads(line) for line in run_directory.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in NOT_REPEATABLE} for line in lines]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("stage", "step", "replicas", "precision"),
    [
        ("cotraining", 5, 0, "float32"),
        slow("finetuning", 6, 0, "float32"),
        slow("cotraining", 5, 2, "float32"),
        slow("finetuning", 6, 0, "mixed_bfloat16"),
        slow("cotraining", 5, 2, "mixed_bfloat16"),
        slow("cotraining", 5, 0, "mixed_float16"),
    ],
)
def test_stop_and_continue_equals_uninterrupted(make_experiment, kill_at, tmp_path, stage, step, replicas, precision):
    undisturbed, stopped = RunDirectory(tmp_path / "undisturbed"), RunDirectory(tmp_path / "stopped")
    stages = ("cotrain", "finetune")
    devices = (f"configure.replicas = {replicas}", f"configure.precision = '{precision}'")
    run_stages(make_experiment(*devices), undisturbed, stages)
    kill_at(stage, step)
    with pytest.raises(Killed):
        run_stages(make_experiment(*devices), stopped, stages)
    run_stages(make_experiment(*devices), stopped, stages)
    for name in ("cotraining", "finetuning"):
        expected, actual = checkpointed(undisturbed, name), checkpointed(stopped, name)
        assert expected.keys() == actual.keys() and len(expected) > 50
        for key, value in expected.items():
            np.testing.assert_array_equal(value, actual[key], err_msg=f"{name} {key}")
    # Every line, means over intervals that the stop fell into as well.
    assert metrics(stopped) == metrics(undisturbed)


def test_stages_out_of_order_say_what_is_missing(make_experiment, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NotTrainedError, match="finetune needs the end of co-training, which is at step 0 of 6"):
        run_stages(make_experiment(), run, ("finetune",))
    with pytest.raises(NotTrainedError, match="finetuning in .* is at step 0 of 12: finish the training"):
        run_stages(make_experiment(), run, ("evaluate",))
    with pytest.raises(NotTrainedError, match="no checkpoint of co-training"):
        restore_generator(make_experiment(), run)
    assert not run.path.exists()


@pytest.mark.slow
def test_a_run_on_two_replicas_goes_through_all_stages(make_experiment, tmp_path):
    run = RunDirectory(tmp_path / "run")
    experiment = make_experiment("configure.replicas = 2")
    run_stages(experiment, run, experiment.stages)
    report = json.loads(run.robustness.read_text())
    assert report["examples"] == report["train"]["examples"] == 40
    assert (run.exports / "1" / "saved_model.pb").exists()
    manifest = json.loads((run.exports / "1" / "assets.extra" / "manifest.json").read_text())
    assert manifest["dataset"] == "digits" and manifest["accuracy"]["clean"] == report["clean"]
    assert manifest["threat_model"]["norm"] == "linf" and manifest["versions"]["tensorflow"] == tf.__version__
    assert manifest["accuracy"]["attacks"][0]["steps"] == 20 and manifest["config"] is None  # it was not claimed


@pytest.mark.slow
def test_export_in_bfloat16_without_a_report(make_experiment, tmp_path):
    run = RunDirectory(tmp_path / "run")
    systems = ["standard_training"]
    run.claim("FineTuning.epochs = 0.15")
    run_stages(make_experiment(systems=systems), run, ("finetune",))
    export(make_experiment("ExportOptions.compute = 'bfloat16'", systems=systems), run)
    manifest = json.loads((run.exports / "1" / "assets.extra" / "manifest.json").read_text())
    assert manifest["compute"] == {"dtype": "bfloat16", "xla": False} and manifest["accuracy"] is None
    assert manifest["config"] == "FineTuning.epochs = 0.15"
    graph = tf.saved_model.load(str(run.exports / "1")).signatures["serving_default"].graph.as_graph_def()
    nodes = [node for function in graph.library.function for node in function.node_def]
    assert any(node.op == "Conv2D" and node.attr["T"].type == tf.bfloat16.as_datatype_enum for node in nodes)


@pytest.fixture
def scores(make_experiment, tmp_path):
    """Bindings of scores while the generator trains, by an untrained classifier: any network will do."""
    experiment = make_experiment()
    network = experiment.classifier
    directory = export_classifier(
        lambda images: network(images, training=False),
        network.weights,
        image_shape=experiment.data.image_shape,
        class_names=experiment.data.class_names,
        export_root=str(tmp_path / "export"),
        check_images=experiment.data.test.images[:4],
        features_fn=network.features_and_logits,
    )
    return (
        "Experiment.generation_scores = @TrainingScores",
        "TrainingScores.extractor = @classifier_extractor()",
        f"classifier_extractor.directory = '{directory}'",
        "TrainingScores.every = 3",
        "TrainingScores.samples = 30",
        "TrainingScores.reference_images = 50",
    )


@pytest.mark.slow
def test_scores_of_the_generator_leave_its_training_as_it_is(make_experiment, scores, tmp_path):
    plain, scored = RunDirectory(tmp_path / "plain"), RunDirectory(tmp_path / "scored")
    run_stages(make_experiment(), plain, ("cotrain",))
    run_stages(make_experiment(*scores), scored, ("cotrain",))
    expected, actual = checkpointed(plain, "cotraining"), checkpointed(scored, "cotraining")
    for key, value in expected.items():
        # The statistics of the averaged generator are taken anew before it is used, and by grids at other steps.
        if not ("average_generator" in key and "moving" in key):
            np.testing.assert_array_equal(value, actual[key], err_msg=key)
    steps = [line["step"] for line in metrics(scored) if "generator_frechet_classifier_distance" in line]
    assert steps == [3, 6]
    with pytest.raises(SystemExit):
        make_experiment(*scores, "TrainingScores.samples = 10")


@pytest.mark.slow
def test_scores_on_two_replicas_are_the_same_after_a_stop(make_experiment, scores, kill_at, tmp_path):
    undisturbed, stopped = RunDirectory(tmp_path / "undisturbed"), RunDirectory(tmp_path / "stopped")
    params = (*scores, "configure.replicas = 2")
    run_stages(make_experiment(*params), undisturbed, ("cotrain",))
    kill_at("cotraining", 5)
    with pytest.raises(Killed):
        run_stages(make_experiment(*params), stopped, ("cotrain",))
    run_stages(make_experiment(*params), stopped, ("cotrain",))
    assert metrics(stopped) == metrics(undisturbed)
    steps = [line["step"] for line in metrics(stopped) if "generator_frechet_classifier_distance" in line]
    assert steps == [3, 6]


ALL = ("cotrain", "finetune", "evaluate", "export")


@pytest.mark.parametrize(
    ("system", "stages"),
    [
        ("adversarial_training", ALL[1:]),
        ("standard_gan", (ALL[0], *ALL[2:])),
        slow("standard_training", ALL[1:]),
        slow("ac_gan_attack", ALL),
        slow("sn_gan", (ALL[0], *ALL[2:])),
    ],
)
def test_baselines_run_from_gin_alone(make_experiment, tmp_path, system, stages):
    experiment = make_experiment(systems=[system])
    assert experiment.stages == stages
    run = RunDirectory(tmp_path / "run")
    run_stages(experiment, run, stages[:1])
    assert run.last_checkpoint()


def test_every_configuration_of_cifar_can_be_built_on_its_data(data_dir):
    for path in sorted((ROOT / "gin").glob("cifar*.gin")):
        gin.clear_config()
        folder = f"tfds_images.data_dir = '{data_dir}/tfds'"
        small = ["Generator.base_width = 4", "Discriminator.base_width = 4", "tfds_images.train_split = 'train[:10%]'"]
        experiment = command_line.build_experiment([str(path)], [folder, *small])
        assert len(experiment.data.test) == 10_000, path


# ------------------------------------------------------------------------------------------- any classifier (eq. 6)

SMALL_CLASSIFIERS = ("PreActResNet18.base_width = 2", "VGG16.base_width = 2", "RobustnessEvaluation.checks = None")


@pytest.mark.slow
def test_another_classifier_goes_through_all_stages_and_resumes(make_experiment, kill_at, tmp_path):
    """Co-training makes the images; the classifier that is validated, evaluated and exported is the other one."""

    def make():
        return make_experiment(*SMALL_CLASSIFIERS, "FineTuning.epochs = 0.15", systems=["generated_preact_resnet18"])

    run, stopped = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "stopped")
    experiment = make()
    assert set(experiment.networks) == {"generator", "discriminator", "classifier"} and experiment.stages == ALL
    run_stages(experiment, run, ALL)
    report = json.loads(run.robustness.read_text())
    assert report["examples"] == 40
    images = experiment.data.test.images[:8]
    exported = tf.saved_model.load(str(run.exports / "1"))
    classifier = restore_classifier(make(), run)
    assert classifier.name == "preact_resnet18"
    expected = classifier(tf.cast(images, tf.float32) / 127.5 - 1)
    np.testing.assert_allclose(exported.logits(tf.cast(images, tf.float32) / 127.5 - 1), expected, atol=1e-4)
    manifest = json.loads((run.exports / "1" / "assets.extra" / "manifest.json").read_text())
    assert manifest["network"] == "preact_resnet18" and manifest["accuracy"]["clean"] == report["clean"]
    # Stopped in fine-tuning, with batch norm's averages in the checkpoint.
    kill_at("finetuning", 6)
    with pytest.raises(Killed):
        run_stages(make(), stopped, ALL[:2])
    run_stages(make(), stopped, ALL[:2])
    expected, actual = checkpointed(run, "finetuning"), checkpointed(stopped, "finetuning")
    assert expected.keys() == actual.keys() and any("moving_variance" in name for name in expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(value, actual[key], err_msg=key)


def test_without_co_training_another_classifier_needs_no_discriminator(make_experiment):
    experiment = make_experiment(*SMALL_CLASSIFIERS, systems=["adversarial_training_vgg16"])
    assert experiment.discriminator is None and set(experiment.networks) == {"classifier"}
    assert experiment.finetuning.generated is None and experiment.stages == ALL[1:]
    assert "classifier: " in summary(experiment) and "discriminator" not in summary(experiment)


@pytest.mark.slow
def test_a_sample_set_on_disk_stands_for_the_generator(make_experiment, tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(
        path, images=np.random.default_rng(0).integers(0, 256, [20, 16, 16, 1], np.uint8), labels=np.arange(20) % 10
    )
    for systems in (["sample_file"], ["adversarial_training_preact_resnet18", "sample_file"]):
        experiment = make_experiment(
            *SMALL_CLASSIFIERS, "FineTuning.epochs = 0.15", f"sample_file.path = '{path}'", systems=systems
        )
        assert experiment.cotraining is None and experiment.stages == ALL[1:]
        assert f"generated images: sample_file.path = {path}" in summary(experiment)
        run = RunDirectory(tmp_path / systems[0])
        run_stages(experiment, run, ALL[1:3])
        assert "fake_class_accuracy" in metrics(run)[0]


def test_fine_tuning_after_co_training_may_do_without_generated_images(make_experiment):
    experiment = make_experiment("Experiment.generated = None", "FineTuning.fake_weight = 0.0")
    assert experiment.finetuning.generated is None and experiment.stages == ALL


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("NoSuchThing.size = 3", "NoSuchThing"),
        ("CoTraining.epochz = 3", "CoTraining has no argument epochz; did you mean epochs"),
        ("CoTraining.epochs = @no_such_reference", "no_such_reference"),
        ("CoTraining.epochs = (3", "a bracket is not closed"),
        (
            "cotraining/Attacker.relative_step_size = 0.01",
            "can't reach epsilon = 0.2 .* 5 steps of 0.002 go 0.01 at most",
        ),
        ("LInf.epsilon = -1", "LInf.epsilon must be a number >= 0, got -1"),
        ("digits.image_size = 20", "blocks make 16x16 images, the data has 20x20"),
        (
            "Discriminator.downsample = (True,)",
            "Discriminator.multipliers has 3 entries and Discriminator.downsample 1",
        ),
        ("FineTuning.fake_weight = 0.0", "FineTuning.fake_weight .* must be > 0 with and 0 without them"),
        ("Experiment.generated = @sample_file", "sample_file.path must be set: bind what is missing"),
        ("FineTuning.objective = @trades()", "@trades\\(\\) needs an attacker with a random start"),
        ("Experiment.generator = None", "Experiment.cotraining needs Experiment.generator"),
        ("CoTraining.batch_size = 0", "CoTraining.batch_size must be a whole number >= 1, got 0"),
        ("CoTraining.epochs = 0", "CoTraining.epochs must be a number > 0, got 0"),
        ("ExportOptions.compute = 'half'", "ExportOptions.compute must be one of float32, bfloat16, got 'half'"),
        ("configure.precision = 'half'", "must be one of float32, mixed_bfloat16, mixed_float16, got 'half'"),
        ("digits.validation_examples = 0", "validation part of the training split, which is empty"),
        (
            "Experiment.data = @image_folder",
            "image_folder.data_dir, image_folder.image_size must be set: bind",
        ),
        ("Experiment.validate_every = 0", "Experiment.validate_every must be a whole number >= 1, got 0"),
        ("Experiment.cotraining_noise = -1.0", "Experiment.cotraining_noise must be a number >= 0, got -1.0"),
        ("pad_and_crop.padding = -1", "pad_and_crop.padding must be a whole number >= 0, got -1"),
        ("ExportOptions.max_pixels = 255", "max_pixels = 255 refuses images of the network's own size, 16 x 16"),
        ("configure.seed = 1", "'configure' has denylisted kwarg 'seed'"),
    ],
)
def test_wrong_configuration_ends_with_one_line_and_status_2(make_experiment, capsys, param, message):
    with pytest.raises(SystemExit) as error:
        make_experiment(param)
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]


def test_what_does_not_fit_the_classifier_ends_with_one_line_and_status_2(make_experiment, capsys, tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros([4, 32, 32, 3], np.uint8), labels=np.arange(4))
    np.savez(tmp_path / "more.npz", images=np.zeros([4, 16, 16, 1], np.uint8), labels=np.arange(4) + 7)
    for systems, params, message in [
        (
            ["sample_file"],
            [f"sample_file.path = '{tmp_path}/other.npz'"],
            r"other.npz: it has image shape \(32, 32, 3\)",
        ),
        (["sample_file"], [f"sample_file.path = '{tmp_path}/more.npz'"], "labels are from 7 to 10, the data has"),
        (["sample_file"], [f"sample_file.path = '{tmp_path}/no.npz'"], "can't be read .No such file"),
        (["generated_vgg16"], ["Experiment.finetuning = None"], "Experiment.classifier would stay untrained"),
        (
            ["robgan_without_finetuning"],
            ["Experiment.training_curves = @TrainingCurves"],
            "training_curves are taken in fine-tuning",
        ),
        (
            ["adversarial_training"],
            ["Experiment.generation_scores = @TrainingScores"],
            "generation_scores are taken in co-training",
        ),
    ]:
        with pytest.raises(SystemExit) as error:
            make_experiment(*params, systems=systems)
        assert error.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and re.search(message, lines[0]), lines


def test_a_wrong_number_does_not_hide_what_is_wrong_with_a_stage(make_experiment, capsys):
    with pytest.raises(SystemExit):
        make_experiment("Experiment.cotraining_noise = -1.0", "CoTraining.epochs = 0")
    noise, epochs = capsys.readouterr().err.splitlines()
    assert "cotraining_noise" in noise and "CoTraining.epochs" in epochs


def test_what_is_called_later_is_part_of_what_a_run_was_made_with(make_experiment, tmp_path):
    """Augmentations are called by the data pipeline, the Inception network when the generator is measured."""
    params = ["pad_and_crop.padding = 3", "inception.directory = 'somewhere'"]
    make_experiment(*params)
    (tmp_path / "config.gin").write_text(operative_config())
    found = bindings((tmp_path / "config.gin").read_text())
    assert (found["pad_and_crop.padding"], found["inception.directory"]) == ("3", "'somewhere'")
    gin.clear_config()
    command_line.build_experiment([str(tmp_path / "config.gin")], [])
    assert bindings(operative_config()) == found


def test_a_configuration_of_ones_own_may_include_the_repositorys_from_anywhere(tmp_path, monkeypatch, digits_dir):
    (tmp_path / "mine.gin").write_text('include "gin/digits.gin"\n' + "\n".join(SMALL))
    monkeypatch.chdir(tmp_path)
    gin.clear_config()
    experiment = command_line.build_experiment(["mine.gin"], [f"digits.data_dir = '{digits_dir}'"])
    assert experiment.cotraining.total_steps == 6


def test_wrong_data_ends_with_one_line_and_status_2(make_experiment, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    for params, message in [
        (["Experiment.data = @tfds_images", "tfds_images.name = 'cifar11'"], "did you mean"),
        (["Experiment.data = @image_folder", f"image_folder.data_dir = '{tmp_path}/no'"], "there is no folder"),
        (["Experiment.data = @image_folder", f"image_folder.data_dir = '{tmp_path}/empty'"], "empty/train"),
    ]:
        with pytest.raises(SystemExit) as error:
            make_experiment(*params, "image_folder.image_size = 16")
        assert error.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and message in lines[0], lines
