"""Types and ranges of parameters: what is refused, and what the message says."""

import dataclasses
import math

import gin
import numpy as np
import pytest

from robgan_tf.values import check, checked, either, made, maker, number, one_of, optional, several, switch, whole

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "kind, allowed, refused",
    [
        (whole(1), [1, 10**9, np.int32(1)], [0, -1, 1.0, 1.5, True, "1", None, NAN]),
        (whole(0, 3), [0, 3], [-1, 4]),
        (number(), [0, -1.5, np.float32(2)], [NAN, INF, -INF, True, "1", None, 1j]),
        (number(least=0), [0, 1e-9], [-1e-9]),
        (number(above=0), [1e-9], [0, 0.0]),
        (number(least=0, below=1), [0, 0.999], [1, 1.0]),
        (number(above=0, most=1), [1, 0.5], [0, 1.001]),
        (switch(), [True, False], [0, 1, None, "True"]),
        (one_of("a", "b"), ["a", "b"], ["c", None, "ab", ["a"]]),
        (maker("@digits"), [print, int], ["digits", None, 3]),
        (made(int, "@one()"), [1, True], ["@one()", None, int]),
        (either(whole(1), switch()), [1, False], [0, "x"]),
        (optional(whole(1)), [None, 1], [0, "None"]),
        (several(whole(1)), [[1], (1, 2)], [[], 1, "12", [0], [1, True], None]),
        (several(whole(1), least=0), [[], ()], [None]),
    ],
)
def test_kinds(kind, allowed, refused):
    assert [value for value in allowed if not kind.allows(value)] == []
    assert [value for value in refused if kind.allows(value)] == []


@pytest.mark.parametrize(
    "value, kind, message",
    [
        (0, whole(1), "A.b must be a whole number >= 1, got 0."),
        (8.0, whole(1), "A.b must be a whole number >= 1, got 8.0; write 8."),
        (1.5, whole(1), "A.b must be a whole number >= 1, got 1.5."),
        (True, whole(1), "A.b must be a whole number >= 1, got True."),
        ("64", whole(1, 99), "A.b must be a whole number within 1 .. 99, got '64'; write 64."),
        ("0", whole(1), "A.b must be a whole number >= 1, got '0'."),
        ("abc", whole(1), "A.b must be a whole number >= 1, got 'abc'."),
        (INF, whole(1), "A.b must be a whole number >= 1, got inf."),
        ("0.1", number(least=0, below=1), "A.b must be a number >= 0 and < 1, got '0.1'; write 0.1."),
        (1, switch(), "A.b must be True or False, got 1."),
        ("True", switch(), "A.b must be True or False, got 'True'; write True."),
        ("None", optional(whole(1)), "A.b must be a whole number >= 1, or None, got 'None'; write None."),
        ("c", one_of("a", "b"), "A.b must be one of a, b, got 'c'."),
        ("r1", made(int, "@r1()"), "A.b must be a reference such as @r1(), with brackets, got 'r1'."),
        (3, several(whole(1)), "A.b must be a list in brackets, each entry a whole number >= 1, got 3."),
        ("digits", maker("@digits"), "A.b must be a reference such as @digits, without brackets, got 'digits'."),
    ],
)
def test_the_message_names_binding_allowed_given_and_what_to_write(value, kind, message):
    with pytest.raises(ValueError) as failed:
        check("A.b", value, kind)
    assert str(failed.value) == message


def test_a_hint_of_ones_own_gives_way_to_what_was_meant():
    with pytest.raises(ValueError, match="got 0; set it to None."):
        check("A.b", 0, whole(1), "set it to None")
    with pytest.raises(ValueError, match="got 2.0; write 2."):
        check("A.b", 2.0, whole(1), "set it to None")


@checked(size=whole(1))
class Part:
    def __init__(self, name, size: int = 3, *, other=0):
        self.size = size


class Special(Part):
    pass


@checked(share=number(above=0))
@dataclasses.dataclass(frozen=True)
class Frozen:
    share: float = 0.5


@checked(count=whole(0))
def function(count, other=None):
    return count


def test_classes_dataclasses_and_functions_are_checked_however_the_argument_is_given():
    assert Part("a").size == 3 and Part("a", 2).size == 2 and Frozen().share == 0.5 and function(0) == 0
    for make in (lambda: Part("a", 0), lambda: Part("a", size=0)):
        with pytest.raises(ValueError, match="^Part.size must be a whole number >= 1, got 0.$"):
            make()
    with pytest.raises(ValueError, match=r"^Frozen.share must be a number > 0, got -1.$"):
        Frozen(-1)
    with pytest.raises(ValueError, match="^function.count must be"):
        function(count=None)


def test_a_subclass_is_named_as_itself():
    with pytest.raises(ValueError, match="^Special.size must be"):
        Special("a", 0)


def test_wrong_arguments_are_the_usual_errors():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        Part()
    with pytest.raises(TypeError, match="unexpected keyword argument 'siez'"):
        Part("a", siez=1)


def test_a_kind_for_a_parameter_that_is_not_there_is_a_mistake_at_once():
    with pytest.raises(AssertionError, match="no parameters {'b'}"):
        checked(b=whole(1))(lambda a: a)


def test_under_gin_its_own_name_and_required_values_stay():
    made = gin.external_configurable(checked("gin_name", size=whole(1))(lambda size=gin.REQUIRED: size), "gin_name")
    try:
        with pytest.raises(RuntimeError, match="Required bindings for `gin_name` not provided"):
            made()
        gin.parse_config("gin_name.size = 0")
        with pytest.raises(ValueError, match="gin_name.size must be a whole number >= 1, got 0"):
            made()
        with gin.unlock_config():
            gin.parse_config("gin_name.size = 2")
        assert made() == 2
    finally:
        gin.clear_config()


def _refused():
    """Makers of public parts, each with one argument that is not allowed, and its binding."""
    from robgan_tf.data import preprocessing
    from robgan_tf.generation.classifier_training import ClassifierTraining
    from robgan_tf.layers.batch_norm import BatchNorm
    from robgan_tf.layers.convolution import Conv2D
    from robgan_tf.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense
    from robgan_tf.losses import AcGanAsCode, Weights
    from robgan_tf.players.attacker.apgd import AutoPGD
    from robgan_tf.players.attacker.noise import Noise
    from robgan_tf.players.attacker.pgd import Attacker
    from robgan_tf.players.attacker.square import Square
    from robgan_tf.players.attacker.threat_model import L2, LInf
    from robgan_tf.players.classifiers.convnext import ConvNeXt
    from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
    from robgan_tf.players.classifiers.vgg import VGG16
    from robgan_tf.players.classifiers.wide_resnet import WideResNet
    from robgan_tf.players.discriminator import Discriminator
    from robgan_tf.players.generator import Generator
    from robgan_tf.run import devices
    from robgan_tf.serving.options import ExportOptions
    from robgan_tf.training import objectives, optimization, penalties
    from robgan_tf.training.diff_augment import DiffAugment
    from robgan_tf.training.generated import this_generator
    from robgan_tf.training.top_k import TopK
    from robgan_tf.training.upkeep import Upkeep

    shape, ball = (8, 8, 3), LInf(0.1)
    generator = dict(multipliers=(2, 1), upsample=(True,))
    discriminator = dict(multipliers=(1,), downsample=(True,))
    return {
        "Generator.base_width": [lambda v: Generator(3, shape, v, **generator), 0, 1.5, 8.0, "64", True],
        "Generator.multipliers": [lambda v: Generator(3, shape, 8, v, (True,)), 2, (2, 0), "21", (2, 1.5)],
        "Generator.upsample": [lambda v: Generator(3, shape, 8, (2, 1), v), True, (1,), ("True",)],
        "Generator.latent_dim": [lambda v: Generator(3, shape, 8, latent_dim=v, **generator), 0, 2.5],
        "Generator.recompute": [lambda v: Generator(3, shape, 8, recompute=v, **generator), 1, "no"],
        "Generator.num_classes": [lambda v: Generator(v, shape, 8, **generator), 0, 2.0],
        "Discriminator.base_width": [lambda v: Discriminator(3, shape, v, **discriminator), 0, 1.5, "64", True],
        "Discriminator.downsample": [lambda v: Discriminator(3, shape, 8, (1,), v), True, (1,)],
        "Discriminator.spectral_norm": [lambda v: Discriminator(3, shape, 8, spectral_norm=v, **discriminator), "on"],
        "Discriminator.class_bias": [lambda v: Discriminator(3, shape, 8, class_bias=v, **discriminator), 0],
        "PreActResNet18.base_width": [lambda v: PreActResNet18(3, shape, v), 0, 2.5],
        "PreActResNet18.activation": [lambda v: PreActResNet18(3, shape, 2, v), "gelu", None],
        "PreActResNet18.stem": [lambda v: PreActResNet18(3, shape, 2, stem=v), "7x7", 7],
        "PreActResNet18.recompute": [lambda v: PreActResNet18(3, shape, 2, recompute=v), 1],
        "WideResNet.depth": [lambda v: WideResNet(3, shape, v, 1), 4, 28.0],
        "WideResNet.width": [lambda v: WideResNet(3, shape, 10, v), 0, "10"],
        "WideResNet.activation": [lambda v: WideResNet(3, shape, 10, 1, v), "swish"],
        "ConvNeXt.depths": [lambda v: ConvNeXt(3, shape, v), 3, (0, 1)],
        "ConvNeXt.stem": [lambda v: ConvNeXt(3, shape, (1,), (2,), stem=v), "patchify", None],
        "VGG16.base_width": [lambda v: VGG16(3, shape, v), 0, "x"],
        "Conv2D.filters": [lambda v: Conv2D(v, 3), 0, 1.5],
        "SpectralNormConv2D.kernel_size": [lambda v: SpectralNormConv2D(4, v), 0],
        "SpectralNormDense.units": [lambda v: SpectralNormDense(v), 0],
        "BatchNorm.epsilon": [lambda v: BatchNorm(epsilon=v), 0, -1e-5],
        "LInf.epsilon": [LInf, -0.1, INF, NAN, "0.1", True],
        "L2.epsilon": [L2, -0.1, None],
        "Attacker.steps": [lambda v: Attacker(ball, v, 0.1), 0, 2.0, True, "5"],
        "Attacker.step_size": [lambda v: Attacker(ball, 5, v), 0, -1, "0.1", INF],
        "Attacker.relative_step_size": [lambda v: Attacker(ball, 5, relative_step_size=v), 0, "0.2"],
        "Attacker.random_start": [lambda v: Attacker(ball, 5, 0.1, random_start=v), 1, "yes"],
        "AutoPGD.steps": [lambda v: AutoPGD(ball, v), 0, True],
        "AutoPGD.rho": [lambda v: AutoPGD(ball, rho=v), 0, 1.5, "0.75"],
        "Noise.restarts": [lambda v: Noise(ball, v), 0, 1.5],
        "Square.queries": [lambda v: Square(ball, v), 0, 50.0],
        "Square.initial_share": [lambda v: Square(ball, initial_share=v), 0, 2, "0.8"],
        "as_paper.real": [lambda v: Weights(real=v), -1, "1", NAN],
        "ac_gan.as_code.attack": [lambda v: AcGanAsCode(attack=v), -1],
        "trades.beta": [objectives.Trades, 0, "6"],
        "lipschitz_regularised.weight": [lambda v: objectives.LipschitzRegularised(weight=v), 0, NAN],
        "r1.gamma": [penalties.R1, 0, "10"],
        "wgan_gp.weight": [penalties.WganGp, 0, True],
        "diff_augment.color": [lambda v: DiffAugment(color=v), 1, "yes"],
        "diff_augment.translation": [lambda v: DiffAugment(translation=v), -0.1, 1, "0.125"],
        "diff_augment.cutout": [lambda v: DiffAugment(cutout=v), -0.1, 1.0],
        "top_k.decay": [lambda v: TopK(decay=v), 0, 1.1, "0.99"],
        "top_k.least_share": [lambda v: TopK(least_share=v), 0, 1.1],
        "this_generator.truncation": [lambda v: this_generator(None, 3, truncation=v), 0, 4.5, "0.5"],
        "this_generator.balanced_labels": [lambda v: this_generator(None, 3, balanced_labels=v), 1, "yes"],
        "linear.initial": [lambda v: optimization.linear(1, 1, v), 0, "1e-3"],
        "Upkeep.keep_checkpoints": [lambda v: Upkeep(keep_checkpoints=v), 0, 2.0],
        "Upkeep.max_rollbacks": [lambda v: Upkeep(max_rollbacks=v), -1, 1.5, True],
        "ClassifierTraining.learning_rate": [lambda v: ClassifierTraining(learning_rate=v), 0, "1e-3"],
        "ClassifierTraining.updates": [lambda v: ClassifierTraining(updates=v), 0, 10.0],
        "pad_and_crop.padding": [lambda v: preprocessing.pad_and_crop(None, None, v), -1, 1.5],
        "random_resized_crop.min_area": [lambda v: preprocessing.random_resized_crop(None, None, v), 0, 1.5, "0.8"],
        "ExportOptions.compute": [lambda v: ExportOptions(compute=v), "half", 32],
        "ExportOptions.xla": [lambda v: ExportOptions(xla=v), 1],
        "ExportOptions.max_pixels": [lambda v: ExportOptions(max_pixels=v), 0, 2**28, 1e6],
        "ExportOptions.warm_up_batch_sizes": [lambda v: ExportOptions(warm_up_batch_sizes=v), 1, (), (0,)],
        "configure.precision": [lambda v: devices.configure(precision=v), "half", 16],
        "configure.replicas": [lambda v: devices.configure(replicas=v), -1, 1.5],
    }


def test_public_parts_refuse_what_is_out_of_range_and_of_another_type_in_the_name_of_the_binding():
    for binding, (make, *values) in _refused().items():
        for value in values:
            with pytest.raises(ValueError) as failed:
                make(value)
            message, *by_gin = str(failed.value).splitlines()
            assert message.startswith(f"{binding} must be ") and f", got {value!r}" in message, message
            assert not by_gin or by_gin[0].lstrip().startswith("In call to configurable")
