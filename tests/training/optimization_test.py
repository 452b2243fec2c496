"""Learning-rate schedules, gradient steps and moving averages."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.bindings import bindings, operative_config
from robgan_tf.keras2 import keras
from robgan_tf.training import optimization


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize(
    "optimizer, own", [("Adam", {"beta_1", "beta_2", "epsilon", "amsgrad"}), ("SGD", {"momentum", "nesterov"})]
)
def test_config_gin_names_the_same_arguments_of_optimizers_under_each_tensorflow(optimizer, own):
    gin.get_configurable(optimizer)(learning_rate=0.1)
    names = {name.split(".")[-1] for name in bindings(operative_config()) if name.startswith(f"{optimizer}.")}
    shared = {"weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "jit_compile", "name"}
    assert names == own | shared | {"use_ema", "ema_momentum", "ema_overwrite_frequency"}


def test_linear_falls_to_zero_at_the_end_of_the_stage():
    schedule = optimization.linear(updates_per_epoch=10, updates=100, initial=0.5)
    np.testing.assert_allclose(rates(schedule, (0, 50, 100)), (0.5, 0.25, 0.0), rtol=1e-6)


def test_halving_halves_at_whole_multiples_of_its_epochs():
    schedule = optimization.halving(updates_per_epoch=10, updates=100, initial=0.8, every_epochs=2)
    np.testing.assert_allclose(rates(schedule, (0, 19, 20, 39, 40)), (0.8, 0.8, 0.4, 0.4, 0.2), rtol=1e-6)


def test_staged_divides_by_ten_after_each_stage():
    # PiecewiseConstantDecay changes after the border: update 20 is the last of the first 2 epochs counted from 0.
    schedule = optimization.staged(updates_per_epoch=10, updates=60, initial=1.0, epochs=(2, 2, 1, 1))
    np.testing.assert_allclose(rates(schedule, (0, 20, 21, 41, 51)), (1, 1, 0.1, 0.01, 0.001), rtol=1e-6)


def test_cosine_rises_in_a_line_and_falls_by_half_a_cosine():
    schedule = optimization.cosine(updates_per_epoch=10, updates=60, peak=0.4, warm_up_epochs=2, final_share=0.1)
    steps = np.arange(61)
    falling = 0.4 * (0.1 + 0.9 * (1 + np.cos(np.pi * (steps - 20) / 40)) / 2)
    np.testing.assert_allclose(rates(schedule, steps), np.where(steps < 20, 0.4 * steps / 20, falling), atol=1e-6)
    schedule = optimization.cosine(updates_per_epoch=10, updates=60, peak=0.4)
    np.testing.assert_allclose(rates(schedule, (0, 30, 60)), (0.4, 0.2, 0), atol=1e-6)


@pytest.mark.parametrize(("updates", "share"), [(40, 0.25), (100, 0.3), (7, 0.5)])
def test_one_cycle_is_that_of_pytorch(updates, share):
    """PyTorch's OneCycleLR with its defaults, written anew: two phases, annealed by (1 + cos(pi * part)) / 2."""
    schedule = optimization.one_cycle(10, updates, peak=0.2, warm_up_share=share)
    phases = [(0, share * updates - 1, 0.2 / 25, 0.2), (share * updates - 1, updates - 1, 0.2, 0.2 / 25 / 1e4)]
    expected = []
    for step in range(updates):
        begin, end, start_rate, end_rate = phases[0] if step <= phases[0][1] else phases[1]
        part = (step - begin) / (end - begin)
        expected.append(end_rate + (start_rate - end_rate) / 2 * (1 + np.cos(np.pi * part)))
    np.testing.assert_allclose(rates(schedule, range(updates)), expected, atol=1e-7)


def test_one_cycle_of_few_updates_has_finite_rates_and_survives_keras_config():
    for updates in (1, 2, 3):
        found = rates(optimization.one_cycle(1, updates, peak=0.2), range(updates))
        assert np.isfinite(found).all() and max(found) <= 0.2 * (1 + 1e-6)
    schedule = optimization.one_cycle(10, 40, peak=0.2)
    schedules = keras.optimizers.schedules
    again = schedules.deserialize(schedules.serialize(schedule))
    assert rates(again, range(40)) == rates(schedule, range(40))


def test_a_warm_up_as_long_as_the_stage_is_refused():
    with pytest.raises(ValueError, match="cosine.warm_up_epochs = 6 must be less than the stage, 6 epochs"):
        optimization.cosine(updates_per_epoch=10, updates=60, peak=1.0, warm_up_epochs=6)
    with pytest.raises(ValueError, match="one_cycle.peak must be a number > 0, got 0"):
        optimization.one_cycle(10, 60, peak=0)


@pytest.mark.parametrize("on", ["one device", "two replicas"])
def test_sgd_with_nesterov_decay_and_clipping_by_hand(on, request):
    """Clipped by the norm of all gradients; decay of kernels alone, by the rate of the update; Keras's Nesterov."""
    strategy = request.getfixturevalue("two_replicas") if on == "two replicas" else tf.distribute.get_strategy()
    schedule = optimization.one_cycle(10, 4, peak=0.2, warm_up_share=0.5)
    start = {"kernel": [[1.0, -2.0]], "bias": [0.5], "gamma": [[3.0, 1.0]]}
    with strategy.scope():
        variables = [tf.Variable(value, name=f"layer/{name}") for name, value in start.items()]

        def make(learning_rate):
            return keras.optimizers.SGD(learning_rate, 0.9, nesterov=True, weight_decay=0.1, global_clipnorm=1.0)

        optimizer = optimization.make_optimizer(make, schedule, variables)
    gradients = [np.array(value) for value in ([[3.0, 0.0]], [4.0], [[0.0, 0.0]])]

    @tf.function
    def step(scale):
        shares = [tf.constant(gradient / strategy.num_replicas_in_sync, tf.float32) for gradient in gradients]
        return optimization.apply_gradients(optimizer, [scale * share for share in shares], variables)

    expected = [np.array(value) for value in start.values()]
    velocity = [np.zeros_like(value) for value in expected]
    for number, scale in enumerate((1.0, 0.1, -1.0)):
        strategy.run(step, args=(tf.constant(scale),))
        rate = float(schedule(number))
        clipped = [scale * gradient / max(5 * abs(scale), 1.0) for gradient in gradients]
        expected[0] = expected[0] * (1 - rate * 0.1)
        velocity = [0.9 * v - rate * gradient for v, gradient in zip(velocity, clipped)]
        expected = [w + 0.9 * v - rate * gradient for w, v, gradient in zip(expected, velocity, clipped)]
    for variable, value in zip(variables, expected):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5)


def test_fixed_stays():
    assert rates(optimization.fixed(updates_per_epoch=10, updates=100, initial=0.25), (0, 99)) == [0.25, 0.25]


@pytest.mark.parametrize(("examples", "epochs"), [(178_943, 200), (49_000, 60)])
def test_staged_takes_lengths_that_are_rounded_to_whole_training_steps(examples, epochs):
    """A stage of steps with five updates, as co-training has them: its length is not a whole number of epochs."""
    updates = 5 * round(epochs * examples / (5 * 64))
    parts = (epochs / 2, epochs / 2)
    schedule = optimization.staged(examples / 64, updates, initial=1.0, epochs=parts)
    assert float(schedule(updates - 1)) == pytest.approx(0.1)


def test_staged_refuses_epochs_that_do_not_add_up():
    with pytest.raises(ValueError, match=r"\(2, 2\) add up to 4 epochs, the stage has 6"):
        optimization.staged(updates_per_epoch=10, updates=60, initial=1.0, epochs=(2, 2))


def test_a_change_of_rate_leaves_the_moments_alone():
    variable = tf.Variable([1.0, 2.0])
    schedule = optimization.halving(updates_per_epoch=1, updates=4, initial=0.1, every_epochs=2)
    optimizer = optimization.make_optimizer(keras.optimizers.Adam, schedule, [variable])
    # Adam by hand: the rate changes, the moments and the bias corrections go on.
    m = v = 0.0
    expected = np.array([1.0, 2.0])
    for step, gradient in enumerate((0.5, -0.2, 0.3, 0.1)):
        optimizer.apply_gradients([(tf.constant([gradient, gradient]), variable)])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrected = np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-7 / np.sqrt(1 - 0.999 ** (step + 1))
        expected -= 0.1 * 0.5 ** (step // 2) * m / (1 - 0.9 ** (step + 1)) / corrected
    # float32 rounding of four steps.
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_an_update_scales_the_loss_under_float16_and_gives_the_unscaled_step():
    keras.mixed_precision.set_global_policy("mixed_float16")
    variable = tf.Variable([3.0])
    schedule = optimization.fixed(updates_per_epoch=1, updates=1, initial=0.5)
    optimizer = optimization.make_optimizer(keras.optimizers.SGD, schedule, [variable])
    assert isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable**2)
        target = optimization.scaled(optimizer, loss)
    assert float(target) > float(loss)
    optimization.apply_gradients(optimizer, tape.gradient(target, [variable]), [variable])
    # 3 - 0.5 * 2 * 3; the scale is a power of two, so that nothing is rounded.
    assert variable.numpy().tolist() == [0.0]


def test_xla_compiles_no_weight_by_itself_where_keras_finds_a_gpu(monkeypatch):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.compat.v2.config, "list_physical_devices", lambda kind=None: [gpu])
    assert keras.optimizers.Adam(0.1).jit_compile  # as Keras would have it
    assert not optimization.make_optimizer(keras.optimizers.Adam, 0.1, [tf.Variable([0.0])]).jit_compile
    keras.mixed_precision.set_global_policy("mixed_float16")
    scaled = optimization.make_optimizer(keras.optimizers.Adam, 0.1, [tf.Variable([0.0])])
    assert not scaled.inner_optimizer.jit_compile


def test_average_follows_the_decay_and_starts_fast():
    average, weight = tf.Variable([0.0]), tf.Variable([1.0])
    optimization.update_average([average], [weight], 0.5, step=0)
    # (1 + 0) / (10 + 0) is smaller than 0.5: 0.1 of the old, 0.9 of the new.
    np.testing.assert_allclose(average.numpy(), [0.9], rtol=1e-6)
    weight.assign([2.0])
    optimization.update_average([average], [weight], 0.5, step=1000)
    np.testing.assert_allclose(average.numpy(), [0.5 * 0.9 + 0.5 * 2.0], rtol=1e-6)


def test_an_update_tells_the_norm_of_its_gradients():
    table, bias = tf.Variable(tf.zeros([3, 2])), tf.Variable([0.0])
    optimizer = optimization.make_optimizer(keras.optimizers.SGD, 1.0, [table, bias])
    with tf.GradientTape() as tape:
        # Row 0 twice: its gradient is (2, 2), though TensorFlow keeps it as two rows of (1, 1).
        loss = tf.reduce_sum(tf.gather(table, [0, 0, 1])) + 3 * bias[0]
    norm = optimization.apply_gradients(optimizer, tape.gradient(loss, [table, bias]), [table, bias])
    np.testing.assert_allclose(norm, np.sqrt(4 + 4 + 1 + 1 + 9), rtol=1e-6)
    assert table.numpy().tolist() == [[-2, -2], [-1, -1], [0, 0]]


def test_the_norm_is_that_of_the_sum_over_all_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([0.0, 0.0])
        optimizer = optimization.make_optimizer(keras.optimizers.SGD, 1.0, [variable])

    @tf.function
    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.cond(replica == 0, lambda: tf.constant([3.0, 1.0]), lambda: tf.constant([0.0, 3.0]))
        return optimization.apply_gradients(optimizer, [gradient], [variable])

    norms = two_replicas.experimental_local_results(two_replicas.run(step))
    np.testing.assert_allclose(norms, [5.0, 5.0])  # of (3, 4)
    assert variable.numpy().tolist() == [-3, -4]


def test_gradients_that_overflow_under_float16_have_norm_0():
    keras.mixed_precision.set_global_policy("mixed_float16")
    variable = tf.Variable([3.0])
    optimizer = optimization.make_optimizer(keras.optimizers.SGD, 0.5, [variable])
    norm = optimization.apply_gradients(optimizer, [tf.constant([np.inf])], [variable])
    assert float(norm) == 0.0 and variable.numpy().tolist() == [3.0]


def test_a_learning_rate_is_a_number_a_keras_schedule_or_a_function():
    keras_schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    assert optimization.learning_rate(keras_schedule, 10, 100) is keras_schedule
    assert rates(optimization.learning_rate(0.25, 10, 100), (0, 99)) == [0.25, 0.25]
    found = optimization.learning_rate(lambda updates_per_epoch, updates: (updates_per_epoch, updates), 10, 100)
    assert found == (10, 100)


@pytest.mark.parametrize("wrong", [0, -1e-3, float("nan"), float("inf"), "1e-3", None])
def test_what_is_no_learning_rate_is_refused(wrong):
    with pytest.raises(ValueError, match="A learning rate must be a positive number"):
        optimization.learning_rate(wrong, 10, 100)
