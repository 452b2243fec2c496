"""The configurations at the paper's scale: what REFERENCE numbers they set, on data of the right shape."""

import pathlib
import re

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.bindings import config_differences
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.experiment.build import build
from robgan_tf.keras2 import keras
from robgan_tf.losses import (
    SplitAsCode,
    ac_gan_discriminator_loss,
    projection_discriminator_loss,
    split_discriminator_loss,
)
from robgan_tf.players.attacker.threat_model import L2, LInf, epsilon_255
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
from robgan_tf.players.classifiers.vgg import VGG16
from robgan_tf.robustness.evaluation import RobustnessEvaluation
from robgan_tf.training.diff_augment import DiffAugment
from robgan_tf.training.generated import FromFile, FromGenerator
from robgan_tf.training.objectives import Adversarial, LipschitzRegularised, Mart, Trades
from robgan_tf.training.penalties import R1
from robgan_tf.training.top_k import TopK

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
        return build(data=lambda: data)

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
    assert experiment.configuration.cotraining_noise == 1 / 128

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
    assert (attack.steps, attack.relative_step_size) == (20, 0.2)
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


# ---- systems: any base configuration, and one or more of gin/baselines/ behind it

SYSTEMS = sorted(path.stem for path in GIN.glob("baselines/*.gin"))
# Data set, size and channels of each base; the paper's networks are made as narrow as can be.
BASES = {"digits": (16, 1), "cifar10_cpu": (32, 3), "cifar10": (32, 3), "imagenet64": (64, 3), "imagenet128": (128, 3)}
NARROW = [f"{name}.base_width = 1" for name in ("Generator", "Discriminator", "PreActResNet18", "VGG16")]
NO_GAN = {"adversarial_training", "standard_training", "sample_file", "lipschitz_regularised", "trades", "mart"}
NO_GAN |= {"adversarial_training_preact_resnet18", "adversarial_training_vgg16"}
GAN_ALONE = {"robgan_without_finetuning", "standard_gan", "standard_gan_ac_gan", "sn_gan"}


@pytest.fixture
def system_of(tmp_path):
    def make(base, *systems, params=()):
        size, channels = BASES[base]
        split = Examples(np.zeros([640, size, size, channels], np.uint8), np.arange(640, dtype=np.int32) % 10)
        data = ImageData("blank", tuple(map(str, range(10))), split, split.take(10), split.take(10))
        np.savez(tmp_path / "samples.npz", images=split.images[:10], labels=split.labels[:10])
        gin.clear_config()
        gin.add_config_file_search_path(str(GIN.parent))
        files = [str(GIN / f"{base}.gin"), *(str(GIN / "baselines" / f"{system}.gin") for system in systems)]
        samples = f"sample_file.path = '{tmp_path / 'samples.npz'}'"
        gin.parse_config_files_and_bindings(files, [*NARROW, samples, "configure.precision = 'float32'", *params])
        return build(data=lambda: data)

    return make


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_says_what_it_is_and_how_to_run_it(system):
    text = (GIN / "baselines" / f"{system}.gin").read_text()
    assert f"python -m robgan_tf.train --gin_file=gin/cifar10.gin --gin_file=gin/baselines/{system}.gin" in text
    head = " ".join(text.split("\n\n")[0].replace("#", "").split())
    assert any(word in head for word in ("Fig.", "Table", "section", "eq.", "ot in the paper")), head
    page = (GIN.parent / "docs" / "baselines.md").read_text()
    assert f"`{system}`" in page


@pytest.mark.parametrize(
    "base", ["digits", *(pytest.param(base, marks=pytest.mark.slow) for base in BASES if base != "digits")]
)
def test_every_system_can_be_built_on_every_base(system_of, base):
    for system in SYSTEMS:
        experiment = system_of(base, system)
        stages = (experiment.cotraining is not None, experiment.finetuning is not None)
        assert stages == (system not in NO_GAN, system not in GAN_ALONE), system


@pytest.mark.parametrize("base", BASES)
def test_a_classifier_by_itself_gets_as_many_updates_as_in_both_stages(system_of, base):
    whole = system_of(base)
    updates = whole.cotraining.total_steps * whole.cotraining.micro_batches + whole.finetuning.total_steps
    for system in ("adversarial_training", "generated_preact_resnet18"):
        stage = system_of(base, system).finetuning
        # Steps of co-training are whole, with five updates each.
        assert abs(stage.total_steps - updates) <= 5 and stage.batch_size == whole.finetuning.batch_size


def term_of(loss, term="source_loss"):
    """The name of a term that gin bound; gin wraps the function itself."""
    return loss.keywords[term].__name__


def test_what_sets_the_systems_apart(system_of):
    whole = system_of("digits")
    assert isinstance(whole.finetuning.generated, FromGenerator) and whole.finetuning.objective == Adversarial()
    standard = system_of("digits", "standard_training")
    assert standard.finetuning.attacker is None and standard.validation_attacker is None
    for system, equation, attacked in [
        ("standard_gan", split_discriminator_loss, False),
        ("standard_gan_ac_gan", ac_gan_discriminator_loss, False),
        ("ac_gan_attack", ac_gan_discriminator_loss, True),
        ("sn_gan", projection_discriminator_loss, False),
        ("robgan_without_finetuning", split_discriminator_loss, True),
    ]:
        stage = system_of("digits", system).cotraining
        assert stage.objectives.discriminator.func is equation and (stage.attacker is not None) == attacked, system
        hinged = system == "sn_gan"
        terms = [term_of(stage.objectives.discriminator), term_of(stage.objectives.generator)]
        assert terms == (["hinge", "hinge_generator"] if hinged else ["logistic", "non_saturating"])
        assert len(stage.discriminator.class_head.trainable_variables) == (1 if hinged else 2)
    for system, kind in [("preact_resnet18", PreActResNet18), ("vgg16", VGG16)]:
        for with_generator in (False, True):
            prefix = "generated" if with_generator else "adversarial_training"
            experiment = system_of("digits", f"{prefix}_{system}")
            assert type(experiment.classifier) is kind
            assert (experiment.finetuning.generated is not None) == with_generator
    trades = system_of("digits", "trades").finetuning
    assert trades.objective == Trades(6.0) and trades.attacker.random_start
    assert system_of("digits", "mart").finetuning.objective == Mart(beta=5.0)
    assert system_of("digits", "lipschitz_regularised").finetuning.objective == LipschitzRegularised(weight=1.5)


def test_attackers_are_players_of_both_stages(system_of):
    experiment = system_of("digits", "attack_fgsm")
    for stage in (experiment.cotraining, experiment.finetuning):
        attacker = stage.attacker
        assert (attacker.steps, attacker.step_size, attacker.random_start) == (1, attacker.threat_model.epsilon, False)
    experiment = system_of("digits", "attack_margin")
    assert term_of(experiment.cotraining.objectives.attack, "attack_class_loss") == "margin_loss"
    assert experiment.finetuning.objective.attack_loss.__name__ == "margin_loss"
    experiment = system_of("digits", "attack_l2")
    for stage in (experiment.cotraining, experiment.finetuning):
        assert stage.attacker.threat_model == L2(1.5)
    # What is measured stays.
    assert experiment.validation_attacker.threat_model == LInf(0.2)
    assert experiment.evaluation.attacks[0].threat_model == LInf(0.2)


def test_systems_can_be_combined(system_of):
    experiment = system_of("cifar10_cpu", "adversarial_training_preact_resnet18", "sample_file", "attack_margin")
    stage = experiment.finetuning
    assert type(experiment.classifier) is PreActResNet18 and experiment.discriminator is None
    assert isinstance(stage.generated, FromFile) and stage.fake_weight == 0.5
    assert stage.objective.attack_loss.__name__ == "margin_loss"
    stage = system_of("cifar10_cpu", "adversarial_training_vgg16", "trades").finetuning
    assert isinstance(stage.objective, Trades) and isinstance(stage.classifier, VGG16)
    robgan = ["FineTuning.objective = @trades()", "finetuning/Attacker.random_start = True"]
    stage = system_of("cifar10_cpu", params=robgan).finetuning
    assert isinstance(stage.objective, Trades) and isinstance(stage.generated, FromGenerator)


def rows_of_bindings(section):
    """The bindings of each row of the table in a section of docs/strongest.md."""
    page = (GIN.parent / "docs" / "strongest.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [re.findall("`([^`]+)`", line.split(" | ")[1]) for line in page.splitlines() if line.startswith("| ")]
    return [bindings for bindings in rows if bindings]


def test_every_part_of_a_better_generator_can_be_bound_as_the_docs_say(system_of):
    rows = rows_of_bindings("A better generator")
    assert len(rows) == 10
    # Those that come after another choice of the same.
    others = [row for row in rows if "@wasserstein" in row[0] or "@projection()" in row[0]]
    assert len(others) == 2
    for row in others:
        gin.parse_config(row)
    stage = system_of("digits", params=sum((row for row in rows if row not in others), [])).cotraining
    assert (stage.augmentation, stage.top_k, stage.penalty) == (DiffAugment(), TopK(), R1())
    assert stage.balanced_labels and (stage.batch_size, stage.accumulation) == (256, 4)
    betas = [
        optimizer.get_config()["beta_1"] for optimizer in (stage.generator_optimizer, stage.discriminator_optimizer)
    ]
    assert betas == [0.5, 0.0]
    rates = [rate_at(optimizer, 0) for optimizer in (stage.generator_optimizer, stage.discriminator_optimizer)]
    np.testing.assert_allclose(rates, [1e-4, 4e-4], rtol=1e-6)


def test_every_part_of_the_strongest_recipe_can_be_bound_as_the_docs_say(system_of):
    rows = rows_of_bindings("Recipe")
    assert len(rows) == 16
    # Free training goes with no attack of several steps and with no other weights.
    (free,) = (row for row in rows if "@free()" in row[0])
    rows.remove(free)
    stage = system_of("digits", "adversarial_training", params=free).finetuning
    assert stage.updates_per_step == 4 and stage.attacker.step_size == stage.attacker.threat_model.epsilon
    # Those that come after another choice of the same in the table, by themselves.
    others = [row for row in rows if row[0] in ("FineTuning.objective = @mart()", "FineTuning.schedule = @cosine")]
    others += [row for row in rows if "@cutout" in row[0]]
    assert len(others) == 3
    for chosen in ([row for row in rows if row not in others], others):
        params = sum(chosen, [])
        stage = system_of("digits", "adversarial_training_preact_resnet18", "sample_file", params=params).finetuning
        assert isinstance(stage.objective, Mart if chosen is others else Trades)
        share = chosen is not others
        assert (stage.images_per_step, stage.attacked_at_once) == ((10, 32) if share else (32, 64))


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
    # ... and gin/cifar10.gin's own.
    np.testing.assert_allclose(evaluation.epsilons, sorted([*np.arange(0, 0.1, 0.01), 0.0625]), atol=1e-15)
    (attack,) = evaluation.attacks
    assert attack.loss.__name__ == "class_loss" and attack.last_point and not attack.random_start
    assert (attack.steps, attack.relative_step_size, attack.runs) == (20, 0.2, 1)


def test_standard_preset_is_that_of_autoattack_and_a_surrogate():
    # Croce & Hein 2020: 100 steps, 9 target classes, 5,000 queries, one restart of each.
    evaluation = preset("standard")
    assert [attack.name for attack in evaluation.attacks] == ["apgd-ce", "apgd-t", "fab-t", "square", "transfer"]
    np.testing.assert_allclose([epsilon_255(epsilon) for epsilon in evaluation.epsilons], [0, 2, 4, 127.5 * 0.0625])
    assert evaluation.reference_epsilon == 0.0625
    entropy, targeted, fab, square, _ = evaluation.attacks
    assert (entropy.steps, targeted.steps, fab.steps, square.queries) == (100, 100, 100, 5000)
    assert (entropy.runs, targeted.runs, fab.runs, square.runs) == (1, 9, 9, 1)


@pytest.mark.parametrize("norm, radius, runs", [("l2", 1.0, [1, 9, 9, 1]), ("l1", 24.0, [5, 5, 9, 1])])
def test_standard_preset_in_other_norms_is_that_of_autoattack(norm, radius, runs):
    # RobustBench's radii, 0.5 and 12 on the scale [0, 1]; in l1 5 restarts of APGD-CE and 5 targets of APGD-T.
    parse([GIN / "cifar10.gin", GIN / "evaluation" / "standard.gin", GIN / "evaluation" / "norms" / f"{norm}.gin"])
    evaluation = RobustnessEvaluation()
    assert [attack.name for attack in evaluation.attacks] == ["apgd-ce", "apgd-t", "fab-t", "square", "transfer"]
    assert [attack.runs for attack in evaluation.attacks[:4]] == runs
    assert {attack.threat_model.norm for attack in evaluation.attacks} == {norm}
    assert evaluation.epsilons == [0.0, radius] and evaluation.reference_epsilon == radius


def test_transfer_preset_takes_the_images_of_another_classifier(tmp_path):
    other = tf.Module()
    other.logits = tf.function(lambda images: images[:, 0, :10, 0], [tf.TensorSpec([None, 32, 32, 3])])
    tf.saved_model.save(other, str(tmp_path))
    gin.bind_parameter("load_logits.directory", str(tmp_path))
    *standard, transfer = preset("transfer").attacks
    gin.clear_config()
    assert [attack.name for attack in standard] == [attack.name for attack in preset("standard").attacks]
    assert transfer.settings()["source"] == str(tmp_path) and transfer.runs == 9


def test_rand_preset_is_that_of_autoattack():
    # Croce & Hein 2020: APGD-CE and APGD-DLR, 100 steps, gradients of 20 passes.
    entropy, dlr = preset("rand").attacks
    assert (entropy.name, dlr.name) == ("apgd-ce", "apgd-dlr")
    assert all((attack.steps, attack.samples, attack.runs) == (100, 20, 1) for attack in (entropy, dlr))


# ---- evaluation has a threat model of its own

PRESETS = sorted(path for path in (GIN / "evaluation").glob("*.gin") if path.stem != "transfer")  # needs a SavedModel
# Those that can be trained by themselves; the others are parts of them.
WHOLE = sorted(path for path in GIN.glob("*.gin") if f"--gin_file=gin/{path.name}" in path.read_text())


def parse(files, *params):
    """Reads configurations and nothing else."""
    gin.clear_config()
    gin.add_config_file_search_path(str(GIN.parent))
    gin.parse_config_files_and_bindings([str(file) for file in files], params, finalize_config=False)


@pytest.mark.parametrize("config", WHOLE, ids=lambda path: path.stem)
@pytest.mark.parametrize("preset", [None, *PRESETS], ids=lambda path: path.stem if path else "own")
def test_every_configurations_own_epsilon_is_evaluated_and_the_headline(config, preset):
    parse([config, *filter(None, [preset])])
    own = gin.query_parameter("LInf.epsilon")
    evaluation = RobustnessEvaluation()
    assert evaluation.reference_epsilon == own and own in evaluation.epsilons
    with gin.unlock_config():
        gin.bind_parameter("evaluation/LInf.epsilon", 0.5)
    evaluation = RobustnessEvaluation()
    assert evaluation.reference_epsilon == 0.5 and gin.query_parameter("LInf.epsilon") == own


@pytest.mark.parametrize("config", WHOLE, ids=lambda path: path.stem)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_no_preset_of_the_evaluation_touches_training(config, preset):
    parse([config])
    before = gin.config_str()
    parse([config, preset])
    assert config_differences(before, gin.config_str()) == []


@pytest.mark.parametrize("baseline", sorted((GIN / "baselines").glob("*.gin")), ids=lambda path: path.stem)
def test_headline_of_every_baseline_behind_digits_stays_that_of_digits(baseline):
    parse([GIN / "digits.gin", baseline])
    assert RobustnessEvaluation().reference_epsilon == 0.2
