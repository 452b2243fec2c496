"""What the tests of this folder share: stages of small networks, and `steps.py`, which they import."""

import pathlib
import sys

import pytest

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, split
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from steps import BATCH, RANDOM_START, schedule  # noqa: E402

# As small as a discriminator can be that has a block of either kind: most of a test's time is tracing.
TWO_BLOCKS = {"multipliers": (1, 2), "downsample": (True, False)}


@pytest.fixture
def cotraining(make_generator, make_discriminator):
    def make(recompute=False, losses=None, attacker=RANDOM_START, **options):
        keras.utils.set_random_seed(1)
        return CoTraining(
            make_generator(recompute=recompute),
            make_generator(),
            make_discriminator(recompute=recompute, **TWO_BLOCKS),
            num_examples=80,
            seed=7,
            attacker=attacker,
            losses=losses or split(SplitAsCode()),
            epochs=1,
            batch_size=BATCH,
            discriminator_steps=2,
            optimizer=keras.optimizers.SGD,  # a step is the gradient, whatever its size
            generator_schedule=schedule,
            discriminator_schedule=schedule,
            **options,
        )

    return make


@pytest.fixture
def finetuning(make_generator, make_discriminator):
    def make(recompute=False, with_generator=True, attacker=RANDOM_START, **options):
        keras.utils.set_random_seed(1)
        return FineTuning(
            ClassBranch(make_discriminator(recompute=recompute, **TWO_BLOCKS)),
            FromGenerator(make_generator()) if with_generator else None,
            num_examples=80,
            seed=7,
            attacker=attacker,
            fake_weight=0.5 if with_generator else 0.0,
            epochs=1,
            batch_size=2 * BATCH,
            optimizer=keras.optimizers.SGD,
            schedule=schedule,
            **options,
        )

    return make
