"""The networks and the stage that the flags describe."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import gin
import tensorflow as tf
from absl import flags

from measures.peers import EPSILON, LEARNING_RATE
from robgan_tf import command_line
from robgan_tf.experiment import build as _experiment  # noqa: F401  (makes everything known to gin)
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import BOTTOM, Generator
from robgan_tf.run import devices
from robgan_tf.training.cotraining import CoTraining

FLAGS = flags.FLAGS
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def network_file(name: str) -> str:
    """Path of the gin file of the networks `name`."""
    return str(REPOSITORY / f"gin/networks/{name}.gin")


def configure(
    network: str, width: int, batch: int, attack_steps: int, discriminator_steps: int, params: Sequence[str] = ()
):
    """Parses a configuration of co-training.

    Args:
        network: gin file of the networks.
        width: their base width.
        batch: images in a micro-batch.
        attack_steps: gradient steps of the attack.
        discriminator_steps: discriminator updates in a training step.
        params: more bindings.
    """
    bindings = [
        f"Generator.base_width = {width}",
        f"Discriminator.base_width = {width}",
        f"CoTraining.batch_size = {batch}",
        f"CoTraining.discriminator_steps = {discriminator_steps}",
        "CoTraining.epochs = 1000000",
        "CoTraining.generator_schedule = @optimization.fixed",
        "CoTraining.discriminator_schedule = @optimization.fixed",
        f"optimization.fixed.initial = {LEARNING_RATE}",
        f"LInf.epsilon = {EPSILON}",
        f"cotraining/Attacker.steps = {attack_steps}",
        f"cotraining/Attacker.relative_step_size = {1 / attack_steps}",
    ]
    files = [str(REPOSITORY / "gin/robgan.gin"), network]
    gin.clear_config()
    gin.add_config_file_search_path(str(REPOSITORY))
    command_line.or_fail(lambda: gin.parse_config_files_and_bindings(files, [*bindings, *params]))


def configure_by_flags(default_network: str = "32px_sngan"):
    """Parses the configuration that the flags describe, with the networks of `--network` or the default ones."""
    network = FLAGS.network or network_file(default_network)
    configure(network, FLAGS.width, FLAGS.batch, FLAGS.attack_steps, FLAGS.discriminator_steps, FLAGS.gin_param)


def image_side() -> int:
    """Side of the images that the configured networks have."""
    return BOTTOM * 2 ** sum(gin.query_parameter("Generator.upsample"))


def build_stage(precision: str, image_shape: Sequence[int], num_classes: int = 10) -> CoTraining:
    """Builds the players and co-training, as configured, in `precision`."""

    def build():
        generators = [Generator(num_classes, image_shape, name=name) for name in ("generator", "average_generator")]
        return CoTraining(*generators, Discriminator(num_classes, image_shape), num_examples=50000, seed=0)

    with devices.precision(precision):
        return command_line.or_fail(build)


def random_batch(count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns random images [count, S, S, 3], of the side S that the configured networks have, and labels [count]."""
    side = image_side()
    return tf.random.uniform([count, side, side, 3], -1, 1), tf.random.uniform([count], 0, 10, tf.int32)
