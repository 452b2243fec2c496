"""Both stages: precision, XLA and replicas make the same step."""

import numpy as np
import pytest
import small_stages
import tensorflow as tf
from small_stages import SHAPE, make_attacker, make_cotraining, make_finetuning, make_generator, on_two_replicas, train
from steps import assert_same_step, take_steps

from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.run.devices import mirrored
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.optimization import apply_gradients, make_optimizer


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_has_the_losses_of_float32_but_for_rounding_and_float32_variables(precision):
    def make():  # without an attack, whose signs turn a rounding into a step
        keras.utils.set_random_seed(0)
        return [make_cotraining(attacker=None), make_finetuning(make_generator(), None, fake_weight=0.5)]

    expected = [train(stage, 1) for stage in make()]
    keras.mixed_precision.set_global_policy(precision)
    for stage, exact in zip(make(), expected):
        first = train(stage, 1)
        for name in exact:
            if name in ("generator_loss", "loss"):  # those of the first update
                np.testing.assert_allclose(first[name], exact[name], rtol=0.03, err_msg=name)
        variables = [variable for model in stage.players.values() for variable in model.trainable_variables]
        assert {variable.dtype for variable in variables} == {tf.float32}
        scaled = {
            isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) for optimizer in stage.optimizers.values()
        }
        assert scaled == {precision == "mixed_float16"}


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make", [make_cotraining, lambda **xla: make_finetuning(make_generator(), fake_weight=0.5, **xla)]
)
def test_xla_makes_the_same_step(make, replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        plain, compiled = (make(optimizer=keras.optimizers.SGD, jit_compile=xla) for xla in (False, True))
    for name, model in plain.players.items():
        compiled.players[name].set_weights(model.get_weights())
    if isinstance(plain, FineTuning):
        compiled.generated.generator.set_weights(plain.generated.generator.get_weights())
    metrics = [train(stage, 1) for stage in (plain, compiled)]
    for player, model in plain.players.items():
        for one, other in zip(model.weights, compiled.players[player].weights):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6, err_msg=one.name)  # float32 rounding
    for name, value in metrics[0].items():
        np.testing.assert_allclose(value, metrics[1][name], rtol=1e-4, err_msg=name)


def test_an_attack_that_xla_cannot_compile_is_refused_where_it_is_to_compile():
    square = Square(LInf(0.1), queries=2)
    assert make_finetuning(attacker=square).attacker is square
    with pytest.raises(ValueError, match="FineTuning.jit_compile = True: XLA can't compile Square; set it to False"):
        make_finetuning(attacker=square, jit_compile=True)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_an_update_that_xla_compiles_as_one_program_is_the_same(precision):
    keras.mixed_precision.set_global_policy(precision)
    random = np.random.default_rng(0)
    # A kernel, a bias, and a table of which two rows have a gradient, one of them twice.
    values = [random.normal(size=shape).astype(np.float32) for shape in ([3, 2], [2], [4, 2])]
    rows = random.normal(size=[3, 2]).astype(np.float32)
    found = []
    for xla in (False, True):
        variables = [tf.Variable(value) for value in values]
        optimizer = make_optimizer(keras.optimizers.Adam, 0.1, variables)

        @tf.function(autograph=False)
        def step(scale, xla=xla, optimizer=optimizer, variables=variables):
            gradients = [scale * value for value in values[:2]]
            gradients.append(tf.IndexedSlices(scale * rows, tf.constant([3, 1, 3]), tf.constant([4, 2])))
            return apply_gradients(optimizer, gradients, variables, xla)

        # Under float16 the last one overflows, and is left out.
        scales = (1.0, -0.5, np.inf if precision == "mixed_float16" else 2.0)
        norms = [step(tf.constant(scale)).numpy() for scale in scales]
        found.append([*norms, *(variable.numpy() for variable in (*variables, *optimizer.variables))])
    for plain, compiled in zip(*found):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-7)  # float32 rounding of three steps


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD, pytest.param(keras.optimizers.Adam, marks=pytest.mark.slow)]
)
def test_cotraining_on_two_replicas_equals_one(optimizer):
    one, two = on_two_replicas(lambda: make_cotraining(optimizer=optimizer))
    metrics_one, metrics_two = train(one, 10), train(two, 10)
    # Weights, u and running statistics. Sums in another order: float32 rounding of ten steps, of 30 updates together,
    # which Adam's division by small second moments enlarges.
    tolerance = 5e-6 if optimizer is keras.optimizers.SGD else 1e-3
    for model in ("generator", "average_generator", "discriminator"):
        for a, b in zip(getattr(one, model).weights, getattr(two, model).weights):
            # A bias in front of a batch norm has no gradient but rounding, which Adam blows up to whole steps; the
            # running mean, nothing else, goes along with it.
            in_front_of_norm = "bias" in a.name and "to_image" not in a.name
            if optimizer is keras.optimizers.Adam and "generator" in model and (in_front_of_norm or "mean" in a.name):
                continue
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=tolerance, err_msg=f"{model} {a.name}")
    for name, value in metrics_one.items():
        np.testing.assert_allclose(value, metrics_two[name], rtol=1e-3, err_msg=name)


def test_finetuning_on_two_replicas_equals_one():
    one, two = on_two_replicas(lambda: make_finetuning(optimizer=keras.optimizers.SGD))
    metrics_one, metrics_two = train(one, 3), train(two, 3)
    for a, b in zip(one.classifier.weights, two.classifier.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-6, err_msg=a.name)  # float32 rounding
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-5)


def test_random_starts_differ_between_replicas():
    strategy = mirrored(("CPU:0", "CPU:1"))
    with strategy.scope():
        stage = make_finetuning(attacker=make_attacker(random_start=True))
    images, labels = tf.zeros([2, *SHAPE]), tf.zeros([2], tf.int32)
    attack = tf.function(lambda: strategy.run(stage.attack, args=(images, labels, tf.constant([1, 2]))))
    first, second = strategy.experimental_local_results(attack())
    assert not np.array_equal(first.numpy(), second.numpy())


@pytest.mark.parametrize(
    "make",
    [make_cotraining, lambda: make_finetuning(make_generator(), fake_weight=0.5)],
    ids=["cotraining", "finetuning"],
)
def test_a_step_of_fewer_images_is_that_of_a_stage_with_such_batches(make, monkeypatch):
    def step_of(make_stage):
        keras.utils.set_random_seed(0)
        stage = make_stage()
        images, labels = tf.random.stateless_uniform([2, *SHAPE], [0, 0], -1, 1), tf.constant([1, 2])
        metrics = take_steps(stage, tf.data.Dataset.from_tensors((images, labels)), 1)
        return [weight.numpy() for player in stage.players.values() for weight in player.weights], metrics

    part = step_of(lambda: make().with_images_at_once(2))
    monkeypatch.setattr(small_stages, "BATCH", 2)
    monkeypatch.setattr(small_stages, "STEPS", 1)
    assert_same_step(part, step_of(make), atol=0, metrics_atol=0)
