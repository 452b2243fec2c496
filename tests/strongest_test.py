"""The configurations of gin/strongest: what they say of themselves, what they choose, and that it can be built."""

import pathlib

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.experiment.build import build
from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.players.classifiers.convnext import ConvNeXt
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
from robgan_tf.players.classifiers.wide_resnet import WideResNet
from robgan_tf.robustness.evaluation import RobustnessEvaluation
from robgan_tf.training.diff_augment import DiffAugment
from robgan_tf.training.generated import Augmented, FromFile, FromGenerator
from robgan_tf.training.objectives import Trades
from robgan_tf.training.top_k import TopK

GIN = pathlib.Path(__file__).resolve().parents[1] / "gin"
FRAGMENTS = {"recipe", "cifar10", "l2", "better_gan"}  # included by others, or put behind them
FILES = sorted((GIN / "strongest").glob("*.gin"))
WHOLE = [path.stem for path in FILES if path.stem not in FRAGMENTS]
# Side, channels, classes and number of training images.
DATA = {"digits": (16, 1, 10, 1280), "imagenet_convnext_t": (224, 3, 1000, 1280)}
NARROW = [
    *("Generator.base_width = 1", "Discriminator.base_width = 1", "PreActResNet18.base_width = 1"),
    *("WideResNet.depth = 10", "WideResNet.width = 1"),
    *("ConvNeXt.depths = (1, 1, 1, 1)", "ConvNeXt.widths = (2, 2, 2, 2)"),
    "configure.precision = 'float32'",
]


@pytest.fixture
def built(tmp_path):
    def make(name, *params):
        side, channels, classes, count = DATA.get(name, (32, 3, 10, 51200))
        # Of one pixel's memory each, whatever their size.
        images = np.broadcast_to(np.zeros([1, 1, 1, 1], np.uint8), [count, side, side, channels])
        split = Examples(images, np.arange(count, dtype=np.int32) % classes)
        few = split.select(np.arange(10))
        data = ImageData("blank", tuple(map(str, range(classes))), split, few, few)
        np.savez(tmp_path / "samples.npz", image=few.images, label=few.labels)
        gin.add_config_file_search_path(str(GIN.parent))
        samples = f"sample_file.path = '{tmp_path / 'samples.npz'}'"
        gin.parse_config_files_and_bindings([str(GIN / "strongest" / f"{name}.gin")], [*NARROW, samples, *params])
        return build(data=lambda: data)

    return make


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_says_how_to_run_it_what_was_published_and_what_deviates(path):
    head = path.read_text().split("\n\n")[0] if path.stem in FRAGMENTS else path.read_text().split("include")[0]
    words = " ".join(head.replace("#", "").split())
    if path.stem in FRAGMENTS:
        assert "Not a configuration by itself" in words
    else:
        assert f"python -m robgan_tf.train --gin_file=gin/strongest/{path.name}" in words
        assert all(word in words for word in ("Published", "Hardware", "Deviations"))
        assert f"`gin/strongest/{path.name}`" in (GIN.parent / "docs" / "strongest.md").read_text()


def test_those_that_have_the_name_of_another_configuration_say_a_folder_of_their_own():
    names = {path.stem for path in GIN.glob("*.gin")} & set(WHOLE)
    assert names == {"digits", "cifar10_cpu"}
    for name in names:
        text = (GIN / "strongest" / f"{name}.gin").read_text()
        assert f"--gin_file=gin/strongest/{name}.gin --run_dir=runs/strongest_{name}" in text


@pytest.mark.parametrize(
    "name, network, ball",
    [
        ("cifar10_linf_wrn28_10", WideResNet, LInf(16 / 255)),
        ("cifar10_linf_preact_resnet18", PreActResNet18, LInf(16 / 255)),
        ("cifar10_l2_wrn28_10", WideResNet, L2(1.0)),
        ("cifar10_l2_preact_resnet18", PreActResNet18, L2(1.0)),
    ],
)
def test_the_recipe_of_wang_et_al(built, name, network, ball):
    """Their README: TRADES 5, batch 512, 400 epochs of 50,000 images, rate 0.2, share 0.7, label smoothing 0.1."""
    experiment = built(name)
    stage = experiment.finetuning
    assert type(experiment.classifier) is network and experiment.classifier.blocks[0].activation is tf.nn.silu
    assert experiment.cotraining is None and isinstance(stage.generated, Augmented)
    assert isinstance(stage.generated.source, FromFile) and len(stage.generated.augment) == 2
    assert stage.composition.generated == 360 and stage.composition.real == 152  # divisible by 8 replicas
    assert stage.total_steps == 400 * 51200 // 512
    assert stage.objective == Trades(5.0) and stage.label_smoothing == 0.1 and stage.average_decay == 0.995
    settings = stage.optimizer.get_config()
    assert (settings["name"], settings["momentum"], settings["nesterov"]) == ("SGD", 0.9, True)
    # PyTorch's decay of 5e-4 goes through the momentum: 1 + 0.9 + 0.9^2 ... = 10 times as much of a weight in the end.
    assert settings["weight_decay"] * (1 - 0.9) == pytest.approx(5e-4)
    # OneCycleLR with pct_start 0.025.
    rate = keras.optimizers.schedules.deserialize(settings["learning_rate"])
    warm_up = stage.total_steps // 40
    assert float(rate(warm_up - 1)) == pytest.approx(0.2) and float(rate(0)) == pytest.approx(0.2 / 25)
    assert float(rate(stage.total_steps - 1)) == pytest.approx(0.2 / 25e4, rel=1e-3)
    attacker = stage.attacker
    assert (attacker.threat_model, attacker.steps, attacker.random_start) == (ball, 10, True)
    # On [-1, 1]; in l2, as their code has it, twice epsilon shared by the steps, where their README says 15/255.
    step = 4 / 255 if isinstance(ball, LInf) else 2 * ball.epsilon / 10
    assert attacker.step_size == pytest.approx(step)
    assert experiment.validation_attacker.threat_model == ball
    (attack,) = experiment.evaluation.attacks
    assert attack.threat_model == ball and experiment.evaluation.reference_epsilon == ball.epsilon


@pytest.mark.parametrize("name, network", [("digits", WideResNet), ("cifar10_cpu", PreActResNet18)])
def test_the_small_ones_train_their_generator_first(built, name, network):
    experiment = built(name)
    stage = experiment.finetuning
    assert experiment.cotraining is not None and isinstance(stage.generated, FromGenerator)
    assert type(experiment.classifier) is network
    assert stage.composition.generated == stage.composition.real == stage.batch_size // 2


def test_a_better_gan_is_put_behind_another_configuration(built):
    stage = built("digits", f"include '{GIN / 'strongest' / 'better_gan.gin'}'").cotraining
    assert stage.augmentation == DiffAugment(color=False, translation=1 / 8, cutout=1 / 2)
    assert stage.top_k == TopK(decay=0.99, least_share=0.5) and stage.balanced_labels


@pytest.mark.slow  # images of 224 px
def test_imagenet_is_that_of_singh_et_al(built):
    experiment = built("imagenet_convnext_t")
    stage = experiment.finetuning
    assert type(experiment.classifier) is ConvNeXt and len(experiment.classifier.stem) == 2
    assert stage.generated is None and stage.attacker.threat_model == LInf(8 / 255) and stage.attacker.steps == 2
    settings = stage.optimizer.get_config()
    assert (settings["name"], settings["weight_decay"]) == ("Adam", 0.05)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("preset", ["standard", "paper"])
def test_evaluation_has_the_ball_of_the_training(name, preset):
    gin.add_config_file_search_path(str(GIN.parent))
    norm = [str(GIN / "evaluation" / "norms" / "l2.gin")] if "l2" in name and preset == "standard" else []
    files = [str(GIN / "strongest" / f"{name}.gin"), str(GIN / "evaluation" / f"{preset}.gin"), *norm]
    gin.parse_config_files_and_bindings(files, [])
    evaluation = RobustnessEvaluation()
    expected = 1.0 if "l2" in name else gin.query_parameter("LInf.epsilon")
    assert evaluation.reference_epsilon == expected and expected in evaluation.epsilons
    assert {attack.threat_model.norm for attack in evaluation.attacks} == {"l2" if "l2" in name else "linf"}
