"""The networks of gin/networks: their number of parameters, counted from REFERENCE's channel tables, and shapes."""

import dataclasses
import pathlib

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator

NETWORKS = pathlib.Path(__file__).resolve().parents[2] / "gin" / "networks"


@dataclasses.dataclass
class Preset:
    """A row of the table: `^` doubles the sides, `v` halves them."""

    name: str
    side: int
    generator: str
    discriminator: str


PRESETS = {
    preset.name: preset
    for preset in [
        Preset("16px", 16, "256, 128^ 64^", "64v 128v 256"),
        Preset("32px_sngan", 32, "256, 256^ 256^ 256^", "128v 128v 128 128"),
        Preset("32px_code", 32, "1024, 512^ 256^ 128^ 64", "128v 128v 128 128"),
        Preset("64px", 64, "1024, 512^ 256^ 128^ 64^", "64v 128v 256v 512v 1024v"),
        Preset("128px_143", 128, "512, 512^ 256^ 256^ 128^ 64^", "64v 128v 256v 256v 512v 512"),
        Preset("128px_1000", 128, "1024, 1024^ 512^ 256^ 128^ 64^", "64v 128v 256v 512v 1024v 1024"),
    ]
}
every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)


def blocks(table):
    """'128v 64' -> [(128, True), (64, False)]."""
    return [(int(entry.rstrip("^v")), entry[-1] in "^v") for entry in table.split()]


def convolution(size, inputs, outputs):
    """A kernel of size x size, and a bias."""
    return size * size * inputs * outputs + outputs


def generator_parameters(table, classes, channels=3):
    """Trainable parameters, and entries of the running averages.

    dense   128 z to 4 x 4 x c, with bias
    block   cBN (a gamma and a beta for each class and input channel), conv3x3, cBN (likewise, output channels),
            conv3x3, and a 1x1 convolution in the shortcut where sides or channels change
    tail    batch norm (gamma, beta), conv3x3 to the image's channels
    Each batch norm has a running mean and a running variance for each channel.
    """
    bottom, rest = table.split(",")
    width = int(bottom)
    count, averages = 128 * 16 * width + 16 * width, 0
    for output, resampled in blocks(rest):
        count += 2 * classes * width + 2 * classes * output
        count += convolution(3, width, output) + convolution(3, output, output)
        count += convolution(1, width, output) if resampled or output != width else 0
        averages += 2 * width + 2 * output
        width = output
    return count + 2 * width + convolution(3, width, channels), averages + 2 * width


def discriminator_parameters(table, classes, channels=3):
    """Trainable parameters, and entries of all u (one for each output of each layer).

    block   two conv3x3, whose hidden width is the input's (the first block's: its output's), and a 1x1 convolution in
            the shortcut where sides or channels change
    heads   linear(1) and linear(classes), each with bias
    """
    width, count, u = channels, 0, 0
    for index, (output, resampled) in enumerate(blocks(table)):
        hidden = width if index else output
        count += convolution(3, width, hidden) + convolution(3, hidden, output)
        u += hidden + output
        if resampled or output != width:
            count += convolution(1, width, output)
            u += output
        width = output
    return count + (width + 1) + (width * classes + classes), u + 1 + classes


def size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


# Both counts are pinned as numbers too, so that this file's own count can't go along with a change.
@pytest.mark.parametrize(
    "name, classes, generator_count, discriminator_count",
    [
        ("16px", 10, 1136259, 636683),
        ("32px_sngan", 10, 4304387, 1055115),
        ("32px_code", 10, 12272515, 1055115),
        ("64px", 143, 13038595, 10288016),
        ("128px_143", 143, 10606339, 8575120),
        ("128px_1000", 1000, 41996931, 30042857),
    ],
)
def test_parameters_of_the_papers_networks(name, classes, generator_count, discriminator_count):
    preset = PRESETS[name]
    gin.parse_config_file(str(NETWORKS / f"{name}.gin"))
    generator = Generator(classes, (preset.side, preset.side, 3))
    found = size(generator.trainable_variables), size(generator.non_trainable_variables)
    assert found == generator_parameters(preset.generator, classes)
    assert found[0] == generator_count
    discriminator = Discriminator(classes, (preset.side, preset.side, 3))
    found = size(discriminator.trainable_variables), size(discriminator.non_trainable_variables)
    assert found == discriminator_parameters(preset.discriminator, classes)
    assert found[0] == discriminator_count


def test_the_count_of_sn_gans_32_px_networks_is_that_of_their_paper():
    # Counted with nothing but a pencil, for 10 classes:
    # dense 128 * 4096 + 4096 = 528,384; three blocks of 2 * 5,120 (cBN, 2 * 10 * 256 each) + 2 * (9 * 65,536 + 256)
    # + 65,536 + 256 = 1,256,192; tail 512 + 9 * 256 * 3 + 3 = 7,427.
    assert 528384 + 3 * 1256192 + 7427 == 4304387
    # First block 9 * 384 + 128 + 147,584 + 512 = 151,680; second 2 * 147,584 + 16,512 = 311,680; two of 295,168; heads
    # 129 + 1,290.
    assert 151680 + 311680 + 2 * 295168 + 1419 == 1055115
    assert generator_parameters(PRESETS["32px_sngan"].generator, 10)[0] == 4304387
    assert discriminator_parameters(PRESETS["32px_sngan"].discriminator, 10)[0] == 1055115


def test_every_network_file_is_tested_here():
    assert {path.stem for path in NETWORKS.glob("*.gin")} == set(PRESETS)


def narrow(table):
    """The table at ch = 4 instead of 64."""
    return " ".join(f"{int(entry.rstrip('^v,')) // 16}{entry[len(entry.rstrip('^v,')) :]}" for entry in table.split())


@every_preset
@pytest.mark.parametrize("channels, classes", [(3, 1000), (1, 10)])
def test_shapes_and_parameters_at_other_widths_classes_and_channels(preset, channels, classes):
    # Widths, classes and channels other than the paper's: the count above at ch = 4, and what comes out.
    gin.parse_config_file(str(NETWORKS / f"{preset.name}.gin"))
    shape = (preset.side, preset.side, channels)
    generator = Generator(classes, shape, base_width=4)
    images = generator((tf.random.normal([2, 128]), tf.constant([0, classes - 1])))
    assert images.shape == (2, *shape) and images.dtype == tf.float32
    assert size(generator.trainable_variables) == generator_parameters(narrow(preset.generator), classes, channels)[0]
    discriminator = Discriminator(classes, shape, base_width=4)
    verdict = discriminator(images)
    assert (verdict.source.shape, verdict.classes.shape) == ((2,), (2, classes))
    assert (
        size(discriminator.trainable_variables),
        size(discriminator.non_trainable_variables),
    ) == discriminator_parameters(narrow(preset.discriminator), classes, channels)


@every_preset
def test_without_spectral_norm_the_discriminator_has_the_same_weights_and_no_u(preset):
    gin.parse_config_file(str(NETWORKS / f"{preset.name}.gin"))
    shape = (preset.side, preset.side, 3)
    normalized, plain = (Discriminator(10, shape, base_width=4, spectral_norm=switch) for switch in (True, False))
    assert [variable.shape for variable in plain.trainable_variables] == [
        variable.shape for variable in normalized.trainable_variables
    ]
    assert plain.non_trainable_variables == [] and plain.spectral_norm_layers == []


@every_preset
def test_images_of_another_size_are_refused_with_the_size_that_would_do(preset):
    gin.parse_config_file(str(NETWORKS / f"{preset.name}.gin"))
    wrong = preset.side // 2
    with pytest.raises(
        ValueError, match=rf"make {preset.side}x{preset.side} images, the data has {wrong}x{wrong}"
    ) as error:
        Generator(10, (wrong, wrong, 3), base_width=4)
    assert f"set the data's image_size to {preset.side}" in str(error.value)
