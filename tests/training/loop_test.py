"""The training of one stage in a run: broken steps, checkpoints, stop requests."""

import contextlib
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, TrainingSplit
from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.signals import StopRequests
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.loop import Periodic, StageTraining, Stopped
from robgan_tf.training.monitoring import NonFiniteLossError
from robgan_tf.training.optimization import fixed
from robgan_tf.training.upkeep import Upkeep

BATCH, STEPS = 4, 10
POISON = 255


class InOrder(TrainingSplit):
    """A stream in which step s has the s-th batch of random images; those of the `poisoned` steps are white."""

    image_shape = (8, 8, 3)

    def __init__(self, poisoned=(), without=()):
        steps = [step for step in range(40) if step not in without]
        self.batches = [np.random.default_rng(step).integers(0, 255, [BATCH, 8, 8, 3], np.uint8) for step in steps]
        for step in poisoned:
            self.batches[step][:] = POISON

    def __len__(self):
        return BATCH * STEPS

    def take(self, count, seed=0):
        return Examples(self.batches[0][:count], np.zeros([count], np.int32))

    def raw_batches(self, batch_size, *, first_step, steps, seed, rows):
        labels = np.arange(BATCH, dtype=np.int32) % 3
        pairs = (np.stack(self.batches[first_step:steps]), np.stack([labels] * (steps - first_step)))
        return tf.data.Dataset.from_tensor_slices(pairs)


def poison(images, seed):
    """White images become NaN."""
    images = tf.cast(images, tf.float32)
    return tf.where(tf.reduce_all(images == POISON), np.nan, images)


@pytest.fixture
def train(make_discriminator, tmp_path):
    """Trains a classifier for ten steps; returns its weights."""

    def train(split, run="run", upkeep=None, stops=None, periodics=(), optimizer=keras.optimizers.Adam, profile=None):
        keras.utils.set_random_seed(0)
        stage = FineTuning(
            ClassBranch(make_discriminator(multipliers=(1,), downsample=(True,))),
            None,
            num_examples=len(split),
            seed=1,
            attacker=None,
            fake_weight=0.0,
            epochs=1,
            batch_size=BATCH,
            optimizer=optimizer,
            schedule=lambda updates_per_epoch, updates: fixed(updates_per_epoch, updates, initial=0.01),
        )
        upkeep = upkeep or Upkeep(log_every=2, checkpoint_every=3)
        training = StageTraining(stage, RunDirectory(tmp_path / run), upkeep, stops or StopRequests(), profile)
        training.restore()
        training.run(split, 0, [poison], 0.0, periodics)
        assert stage.steps_done == stage.total_steps == STEPS
        return [weight.numpy() for weight in stage.classifier.weights]

    return train


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one, other))


def test_a_broken_batch_is_skipped_and_leaves_no_trace(train, tmp_path, caplog):
    weights = train(InOrder(poisoned=[4]))
    # Step 5 broke, on batch 4: back to the checkpoint of step 3, and on with batch 5. So batches 3 and 4 were left out.
    assert "became nan" in caplog.text and "Back to step 3, with other images (1 of at most 3 times)" in caplog.text
    assert_equal(weights, train(InOrder(without=[3, 4]), run="clean"))
    assert [line["step"] for line in lines(tmp_path / "run")] == [2, 4, 6, 8, 10]
    assert [line["loss"] for line in lines(tmp_path / "run")] == [line["loss"] for line in lines(tmp_path / "clean")]


def test_a_run_that_is_stopped_after_a_rollback_goes_on_behind_the_broken_batch(train):
    class After(StopRequests):
        """Asks to stop at the eighth time it is asked."""

        count = 0

        def requested(self):
            self.count += 1
            return self.count == 8

    whole = train(InOrder(poisoned=[1, 5]), run="whole")
    with pytest.raises(Stopped, match="after step"):
        train(InOrder(poisoned=[1, 5]), run="stopped", stops=After())
    assert_equal(train(InOrder(poisoned=[1, 5]), run="stopped"), whole)


def test_a_request_to_stop_that_comes_behind_the_last_step_is_heeded_too(train, tmp_path):
    class Late(StopRequests):
        """Asks to stop once training is over."""

        over = False

        @contextlib.contextmanager
        def active(self):
            yield
            self.over = True

        def requested(self):
            return 143 if self.over else 0

    with pytest.raises(Stopped, match="after the last step of finetuning") as error:
        train(InOrder(), run="stopped", stops=Late())
    assert error.value.exit_status == 143
    assert_equal(train(InOrder(), run="stopped"), train(InOrder(), run="whole"))


def test_a_run_that_breaks_again_and_again_gives_up_with_a_diagnosis(train, tmp_path):
    with pytest.raises(NonFiniteLossError) as error:
        train(InOrder(poisoned=range(4, 40)), upkeep=Upkeep(log_every=2, checkpoint_every=3, max_rollbacks=2))
    message = str(error.value)
    # (On a CPU, ReLU makes 0 of NaN: the loss is finite, the gradient is not.)
    assert "classifier_weight_norm became nan" in message and "at step 4 of finetuning" in message
    assert "went back to the last checkpoint 2 times already" in message
    assert (
        re.search("Weights that are not finite: classifier: [^,]*block_0_conv_1", message)
        and "Lower the learning rate" in message
    )
    # What is left is the last good checkpoint.
    assert RunDirectory(tmp_path / "run").last_checkpoint().name == "00000003"


def test_a_rate_that_diverges_is_named(train):
    def too_fast(learning_rate):
        del learning_rate
        return keras.optimizers.SGD(1e30)

    with pytest.raises(NonFiniteLossError, match=r"Learning rate of the last update: 1e\+30 \(classifier, SGD\)"):
        train(InOrder(), optimizer=too_fast, upkeep=Upkeep(max_rollbacks=0))


def test_a_gradient_that_is_not_finite_is_found_at_its_step_though_the_loss_is_finite(train, caplog):
    class Explosive(keras.optimizers.SGD):
        """Applies an infinite gradient at its fifth step."""

        def apply_gradients(self, pairs, **options):
            factor = tf.where(tf.equal(self.iterations, 4), np.inf, 1.0)
            return super().apply_gradients([(factor * gradient, weight) for gradient, weight in pairs], **options)

    with pytest.raises(NonFiniteLossError, match="classifier_weight_norm became (nan|inf)[^,]* at step 5 of"):
        train(InOrder(), optimizer=Explosive, upkeep=Upkeep(max_rollbacks=0))
    assert "loss became" not in caplog.text


def test_periodic_work_is_done_again_only_behind_the_checkpoint(train):
    steps = []
    train(InOrder(poisoned=[7]), periodics=[Periodic(2, steps.append)])
    # Step 8 broke before its turn; back to step 6.
    assert steps == [2, 4, 6, 8, 10]


@pytest.mark.slow
def test_a_profile_of_some_steps_is_written_for_tensorboard(train, tmp_path, capsys):
    train(InOrder(), profile=(3, 4))
    (profile,) = (tmp_path / "run" / "tensorboard" / "finetuning").glob("plugins/profile/*/*.xplane.pb")
    assert profile.stat().st_size > 0
    assert f"profile of finetuning: {tmp_path}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_profile_that_is_cut_short_ends_and_leaves_the_profiler_free(train, tmp_path):
    with pytest.raises(NonFiniteLossError):
        train(InOrder(poisoned=range(3, 40)), profile=(3, 9), upkeep=Upkeep(max_rollbacks=0))
    tf.profiler.experimental.start(str(tmp_path / "other"))  # raises where one is running
    tf.profiler.experimental.stop()


@pytest.mark.parametrize(
    "options",
    [
        {"log_every": 0},
        {"checkpoint_every": 1.5},
        {"keep_checkpoints": 0},
        {"checkpoint_minutes": 0},
        {"max_rollbacks": -1},
    ],
)
def test_upkeep_out_of_range_is_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Upkeep.{name} must be .*, got"):
        Upkeep(**options)
