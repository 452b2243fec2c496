"""The configurations at the paper's scale: what REFERENCE numbers they set, on data of the right shape."""

import pathlib

import gin
import numpy as np
import pytest
from tensorflow import keras

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.evaluation.robustness import RobustnessEvaluation
from robgan_tf.experiment import Experiment
from robgan_tf.losses import SplitAsCode
from robgan_tf.players.threat_model import epsilon_255

GIN = pathlib.Path(__file__).resolve().parents[1] / "gin"
FRAGMENTS = {"robgan", "paper", "imagenet"}  # included by others, no configurations by themselves
TRAIN = 6400


def blank(count, size):
    return Examples(np.zeros([count, size, size, 3], np.uint8), np.zeros([count], np.int32))


@pytest.fixture
def experiment_of():
    def make(name, size, classes):
        gin.add_config_file_search_path(str(GIN.parent))
        gin.parse_config_file(str(GIN / f"{name}.gin"))
        data = ImageData(
            "blank", tuple(map(str, range(classes))), blank(TRAIN, size), blank(classes, size), blank(classes, size)
        )
        return Experiment(data=lambda: data)

    return make


@pytest.mark.parametrize(
    "name, size, classes, epsilon, generator, discriminator",
    [
        ("cifar10", 32, 10, 0.0625, 12272515, 1055115),
        ("imagenet64", 64, 143, 0.03125, 13038595, 10288016),
        ("imagenet128", 128, 143, 0.03125, 10606339, 8575120),
        pytest.param("imagenet1000_128", 128, 1000, 0.03125, 41996931, 30042857, marks=pytest.mark.slow),
    ],
)
def test_the_papers_numbers(experiment_of, name, size, classes, epsilon, generator, discriminator):
    experiment = experiment_of(name, size, classes)
    stage = experiment.cotraining
    # The networks; the counts are derived in players/presets_test.py.
    assert sum(int(np.prod(weight.shape)) for weight in stage.generator.trainable_variables) == generator
    assert sum(int(np.prod(weight.shape)) for weight in stage.discriminator.trainable_variables) == discriminator

    # Co-training: 200 epochs, batch 64, one generator update to five of the discriminator.
    assert (stage.batch_size, stage.micro_batches, stage.accumulation) == (64, 5, 1)
    assert stage.total_steps == 200 * TRAIN // 320
    # Adam 2e-4 with beta (0, 0.9), halved every 50 epochs; the discriminator counts five updates a step.
    for optimizer, updates in (
        (stage.generator_optimizer, TRAIN // 320),
        (stage.discriminator_optimizer, TRAIN // 64),
    ):
        settings = optimizer.get_config()
        assert (settings["name"], settings["beta_1"], settings["beta_2"]) == ("Adam", 0.0, 0.9)
        rates = [rate_at(optimizer, epoch * updates) for epoch in (0, 49, 50, 100, 199)]
        np.testing.assert_allclose(rates, [2e-4, 2e-4, 1e-4, 5e-5, 2.5e-5], rtol=1e-6)
    assert stage.objectives.weights == SplitAsCode()
    # The attack: no random start, 5 steps that reach epsilon; 1/128 for ImageNet.
    attacker = stage.attacker
    assert (attacker.steps, attacker.random_start, attacker.threat_model.epsilon) == (5, False, epsilon)
    assert attacker.step_size == epsilon / 4
    assert experiment.cotraining_noise == 1 / 128

    # Fine-tuning: 20 + 20 + 10 + 10 epochs of batch 128, Adam 1e-3 divided by ten after each part.
    stage = experiment.finetuning
    assert (stage.batch_size, stage.accumulation) == (128, 1)
    assert stage.total_steps == 60 * TRAIN // 128
    assert 0.3 <= stage.fake_weight <= 0.8
    settings = stage.optimizer.get_config()
    assert (settings["beta_1"], settings["beta_2"]) == (0.9, 0.999)
    rates = [rate_at(stage.optimizer, epoch * TRAIN // 128 + 1) for epoch in (0, 19, 20, 40, 50, 59)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6], rtol=1e-6)
    assert (stage.attacker.steps, stage.attacker.relative_step_size) == (5, 0.2)
    assert stage.attacker.threat_model.epsilon == epsilon

    # Evaluation: PGD-20 with steps of epsilon / 5, at least at table 1's radii.
    (attack,) = experiment.evaluation.attacks
    assert (attack.attacker.steps, attack.attacker.relative_step_size) == (20, 0.2)
    table = (0, 0.02, 0.04, 0.08) if name == "cifar10" else (0, 0.01, 0.02, 0.03)
    assert set(table) <= set(experiment.evaluation.epsilons)


def rate_at(optimizer, updates):
    """The learning rate after so many updates."""
    return float(keras.optimizers.schedules.deserialize(optimizer.get_config()["learning_rate"])(updates))


def test_every_configuration_says_how_to_run_it_and_what_to_expect():
    for path in GIN.glob("*.gin"):
        head = path.read_text().split("include")[0]
        if path.stem in FRAGMENTS:
            assert "Not a configuration by itself" in " ".join(head.replace("#", "").split())
        else:
            assert f"python -m robgan_tf.train --gin_file=gin/{path.name}" in head
            for word in ("Hardware", "Deviations", "xpect"):
                assert word in head, (path.name, word)


@pytest.mark.parametrize("path", sorted(GIN.glob("baselines/*.gin")), ids=lambda path: path.stem)
def test_every_baseline_says_how_to_run_it(path):
    assert f"python -m robgan_tf.train --gin_file=gin/baselines/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", sorted(GIN.glob("evaluation/*.gin")), ids=lambda path: path.stem)
def test_every_preset_of_the_evaluation_says_how_to_run_it(path):
    assert f"--gin_file=gin/evaluation/{path.name}" in path.read_text()


def preset(name):
    """The evaluation of gin/cifar10.gin with a preset behind it."""
    gin.add_config_file_search_path(str(GIN.parent))
    gin.parse_config_files_and_bindings([str(GIN / "cifar10.gin"), str(GIN / "evaluation" / f"{name}.gin")], [])
    return RobustnessEvaluation()


def test_preset_of_the_paper():
    evaluation = preset("paper")
    # np.arange(0, .1, .01); 20 steps of epsilon / 5 from the image itself.
    np.testing.assert_allclose(evaluation.epsilons, np.arange(0, 0.1, 0.01), atol=1e-15)
    (attack,) = evaluation.attacks
    assert attack.describe()["objective"] == "class_loss" and not attack.attacker.random_start
    assert (attack.steps, attack.attacker.relative_step_size, attack.runs) == (20, 0.2, 1)


def test_standard_preset_is_autoattack_without_fab_but_with_pgd():
    evaluation = preset("standard")
    assert [attack.name for attack in evaluation.attacks] == ["pgd", "apgd-ce", "apgd-t", "square"]
    np.testing.assert_allclose([epsilon_255(epsilon) for epsilon in evaluation.epsilons], [0, 2, 4, 8])
    assert evaluation.reference_epsilon == evaluation.epsilons[-1]
    _, entropy, targeted, square = evaluation.attacks
    assert (entropy.steps, targeted.steps, targeted.runs, square.queries) == (100, 100, 9, 5000)
