"""Penalties on the discriminator: value and gradient, and their place in co-training."""

import textwrap

import gin
import numpy as np
import pytest
import tensorflow as tf
from steps import BATCH, CLASSES, assert_same_step

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, Weights, projection, split
from robgan_tf.players.discriminator import Verdict
from robgan_tf.training.penalties import R1, DiscriminatorBatch, Penalty, WganGp

IMAGES, SHAPE = 3, (4, 4, 2)


def source(verdict, labels):
    return verdict.source


class Judge:
    """A discriminator of a function of images [b, 4, 4, 2] and its variables, in float64."""

    def __init__(self, function, *variables):
        self.function = function
        self.trainable_variables = [tf.Variable(variable, dtype=tf.float64) for variable in variables]

    def __call__(self, images, training):
        assert training is False
        return Verdict(self.function(images, *self.trainable_variables), tf.zeros([images.shape[0], CLASSES]))


def batch(dtype=tf.float64, shape=SHAPE):
    random = np.random.default_rng(3)
    real, fake = (tf.constant(random.uniform(-1, 1, [IMAGES, *shape]), dtype) for _ in range(2))
    return DiscriminatorBatch(
        real, fake, tf.constant([0, 2, 1]), tf.constant([1, 1, 0]), tf.constant([0.25, 0.5, 0.875], dtype)
    )


def value_and_gradient(penalty, judge, seen):
    with tf.GradientTape() as tape:
        values = penalty(judge, seen, source)
        total = tf.reduce_sum(values)
    return values.numpy(), [gradient.numpy() for gradient in tape.gradient(total, judge.trainable_variables)]


# ---- by hand


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_weights():
    # s(x) = <w, x> + 7: ds/dx = w, the penalty gamma/2 |w|^2 for each image, its derivative gamma w.
    weights = np.random.default_rng(0).normal(size=SHAPE)
    judge = Judge(lambda images, w: tf.reduce_sum(w * images, axis=[1, 2, 3]) + 7, weights)
    values, (gradient,) = value_and_gradient(R1(gamma=6.0), judge, batch())
    np.testing.assert_allclose(values, [3.0 * np.sum(weights**2)] * IMAGES, rtol=1e-12)
    np.testing.assert_allclose(gradient, IMAGES * 6.0 * weights, rtol=1e-12)


def test_r1_is_taken_at_the_real_images():
    # s(x) = sum a x^2 / 2: ds/dx = a x.
    scales, seen = np.random.default_rng(1).normal(size=SHAPE), batch()
    judge = Judge(lambda images, a: tf.reduce_sum(a * images**2, axis=[1, 2, 3]) / 2, scales)
    values, (gradient,) = value_and_gradient(R1(gamma=10.0), judge, seen)
    squares = scales**2 * seen.real.numpy() ** 2
    np.testing.assert_allclose(values, 5.0 * squares.sum(axis=(1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(gradient, 10.0 * (scales * seen.real.numpy() ** 2).sum(axis=0), rtol=1e-12)


def test_wgan_gp_is_taken_between_real_and_generated_images_and_is_zero_at_a_slope_of_one():
    scales, seen = np.random.default_rng(1).normal(size=SHAPE), batch()
    judge = Judge(lambda images, a: tf.reduce_sum(a * images**2, axis=[1, 2, 3]) / 2, scales)
    values, (gradient,) = value_and_gradient(WganGp(weight=4.0), judge, seen)
    share = np.array([0.25, 0.5, 0.875])[:, None, None, None]
    between = share * seen.real.numpy() + (1 - share) * seen.fake.numpy()
    norms = np.sqrt(np.sum((scales * between) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(values, 4.0 * (norms - 1) ** 2, rtol=1e-12)
    # d/da 4 (n - 1)^2 = 8 (n - 1) dn/da, and dn/da = a x^2 / n.
    factors = (8.0 * (norms - 1) / norms)[:, None, None, None]
    np.testing.assert_allclose(gradient, (factors * scales * between**2).sum(axis=0), rtol=1e-10)
    slope = np.zeros(SHAPE)
    slope[1, 2, 0] = 1.0
    linear = Judge(lambda images, w: tf.reduce_sum(w * images, axis=[1, 2, 3]), slope)
    values, (gradient,) = value_and_gradient(WganGp(), linear, seen)
    np.testing.assert_array_equal(values, [0.0] * IMAGES)
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


def test_a_discriminator_without_slope_has_a_finite_gradient():
    judge = Judge(lambda images, w: tf.reduce_sum(w * images, axis=[1, 2, 3]), np.zeros(SHAPE))
    values, (gradient,) = value_and_gradient(WganGp(weight=4.0), judge, batch())
    np.testing.assert_allclose(values, [4.0] * IMAGES, rtol=1e-9)
    assert np.all(np.isfinite(gradient))


# ---- by finite differences


def convolutions(images, kernel, head):
    return tf.reduce_sum(head * tf.tanh(tf.nn.conv2d(images, kernel, 1, "SAME")), axis=[1, 2, 3])


@pytest.mark.parametrize("penalty", [R1(gamma=2.0), WganGp(weight=3.0)], ids=["r1", "wgan_gp"])
def test_value_and_gradient_are_those_of_finite_differences(penalty):
    random, seen, step = np.random.default_rng(5), batch(), 1e-5
    judge = Judge(convolutions, random.normal(size=[3, 3, 2, 3]), random.normal(size=[4, 4, 3]))
    values, gradients = value_and_gradient(penalty, judge, seen)

    # The value, from the logits alone. The error of central differences is step^2 = 1e-10, and rounding / step = 1e-11.
    share = np.ones([3, 1, 1, 1]) if isinstance(penalty, R1) else seen.uniform.numpy()[:, None, None, None]
    points = share * seen.real.numpy() + (1 - share) * seen.fake.numpy()
    slopes = np.zeros(points.shape)
    for place in np.ndindex(*SHAPE):
        moved = np.zeros(SHAPE)
        moved[place] = step
        ahead, behind = (judge(tf.constant(points + sign * moved), training=False).source for sign in (1, -1))
        slopes[(slice(None), *place)] = (ahead - behind) / (2 * step)
    squares = np.sum(slopes**2, axis=(1, 2, 3))
    expected = squares if isinstance(penalty, R1) else 3.0 * (np.sqrt(squares) - 1) ** 2
    np.testing.assert_allclose(values, expected, rtol=1e-6)

    # The gradient, along a random direction of the weights.
    directions = [random.normal(size=variable.shape) for variable in judge.trainable_variables]

    def at(distance):
        for variable, direction in zip(judge.trainable_variables, directions):
            variable.assign_add(distance * direction)
        value = float(tf.reduce_sum(penalty(judge, seen, source)))
        for variable, direction in zip(judge.trainable_variables, directions):
            variable.assign_sub(distance * direction)
        return value

    along = sum(np.sum(gradient * direction) for gradient, direction in zip(gradients, directions))
    np.testing.assert_allclose((at(step) - at(-step)) / (2 * step), along, rtol=1e-6)


# ---- with the networks


@pytest.mark.parametrize("penalty", [R1(), WganGp()], ids=["r1", "wgan_gp"])
def test_the_penalty_leaves_u_and_the_statistics_of_a_batch_norm_alone(penalty, make_discriminator):
    class WithBatchNorm(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = make_discriminator(), keras.layers.BatchNormalization()

        def call(self, images, training=False):
            return self.inner(self.norm(images, training=training), training=training)

    discriminator, seen = WithBatchNorm(), batch(tf.float32, (8, 8, 3))
    discriminator(seen.real)
    state = [*discriminator.variables, *(layer.u for layer in discriminator.inner.spectral_norm_layers)]
    before = [variable.numpy() for variable in state]
    assert np.all(penalty(discriminator, seen, source) > 0)
    for old, variable in zip(before, state):
        np.testing.assert_array_equal(old, variable.numpy(), err_msg=variable.name)


def test_the_logit_of_a_projection_discriminator_is_that_of_the_images_class(make_discriminator):
    discriminator, seen = make_discriminator(class_bias=False), batch(tf.float32, (8, 8, 3))
    discriminator(seen.real)
    logits = projection(Weights()).source_logits
    values = R1(gamma=2.0)(discriminator, seen, logits)
    for image, label, value in zip(seen.real, seen.labels, values):
        with tf.GradientTape() as tape:
            tape.watch(image)
            verdict = discriminator(image[tf.newaxis], training=False)
            logit = verdict.source[0] + verdict.classes[0, int(label)]
        # One image at a time: float32 rounding.
        np.testing.assert_allclose(value, np.sum(tape.gradient(logit, image).numpy() ** 2), rtol=1e-4)


@pytest.mark.parametrize("penalty", [R1(gamma=0.5), WganGp(weight=0.5)], ids=["r1", "wgan_gp"])
def test_an_update_goes_down_the_loss_and_the_penalty(cotraining, penalty):
    """The update is by SGD: with and without the penalty it differs by the rate times the penalty's gradient."""
    seed = tf.constant([4, 2])
    images, labels = tf.random.uniform([8, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0, 1, 2, 0, 1])
    with_penalty, without = cotraining(penalty=penalty), cotraining()
    for one, other in zip(with_penalty.discriminator.weights, without.discriminator.weights):
        np.testing.assert_array_equal(one, other)
    seen = []

    class Spy(Penalty):
        def __call__(self, discriminator, batch, source_logits):
            seen.append(batch)
            return penalty(discriminator, batch, source_logits)

    with_penalty.penalty = Spy()
    metrics = with_penalty.update_discriminator(images, labels, seed)
    plain = without.update_discriminator(images, labels, seed)
    assert set(metrics) == {*plain, "discriminator_penalty"}
    assert float(metrics["discriminator_loss"]) == float(plain["discriminator_loss"])
    (found,) = seen
    np.testing.assert_array_equal(found.real, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert 0 <= np.min(found.uniform) < np.max(found.uniform) < 1

    # A third one, whose weights stand where the gradient was taken: behind the power iteration, before the update.
    reference = cotraining().discriminator
    for layer in reference.spectral_norm_layers:
        layer.power_iteration()
    variables = reference.trainable_variables
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(penalty(reference, found, source))
    np.testing.assert_allclose(metrics["discriminator_penalty"], mean, rtol=1e-5)
    for gradient, one, other in zip(
        tape.gradient(mean, variables, unconnected_gradients="zero"),
        with_penalty.discriminator.trainable_variables,
        without.discriminator.trainable_variables,
    ):
        # The rate is 0.05. Float32 rounding of weights of size 1.
        np.testing.assert_allclose(one - other, -0.05 * gradient, atol=1e-6, err_msg=one.name)


def after_an_update(make, strategy=None, updates=1, **options):
    """Weights of the discriminator, and metrics over the global batch, after updates of it on the same images."""
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, [BATCH, 8, 8, 3]).astype(np.float32)
    labels = random.integers(0, CLASSES, [BATCH]).astype(np.int32)
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        stage = make(attacker=None, **options)
        parts = (
            strategy.experimental_distribute_values_from_function(
                lambda context, array=array: tf.constant(np.split(array, replicas)[context.replica_id_in_sync_group])
            )
            for array in (images, labels)
        )

        def update(images, labels):
            return stage.sum_over_replicas(stage.update_discriminator(images, labels, tf.constant([4, 2])))

        run = tf.function(lambda *batch: strategy.run(update, args=batch), autograph=False)
        batch = tuple(parts)
        for _ in range(updates):
            found = run(*batch)
        metrics = {name: float(strategy.experimental_local_results(value)[0]) for name, value in found.items()}
    return [weight.numpy() for weight in stage.discriminator.weights], metrics


@pytest.mark.parametrize("penalty", [pytest.param(R1(), marks=pytest.mark.slow), WganGp()], ids=["r1", "wgan_gp"])
@pytest.mark.parametrize("how", ["parts", "replicas", pytest.param("xla", marks=pytest.mark.slow)])
def test_parts_replicas_and_xla_make_the_same_update(cotraining, penalty, how, two_replicas):
    whole = after_an_update(cotraining, penalty=penalty)
    options = {"parts": {"accumulation": 4}, "replicas": {"strategy": two_replicas}, "xla": {"jit_compile": True}}[how]
    other = after_an_update(cotraining, penalty=penalty, **options)
    # Sums in another order: float32 rounding of weights and metrics of sizes 1 to 10.
    assert_same_step(other, whole, atol=5e-6, metrics_atol=5e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_the_penalty_is_that_of_float32_but_for_rounding(cotraining, precision):
    _, expected = after_an_update(cotraining, penalty=WganGp())
    keras.mixed_precision.set_global_policy(precision)
    _, metrics = after_an_update(cotraining, penalty=WganGp())
    # bfloat16 has 8 bits: some roundings of 0.4 % in the two directions through the network.
    np.testing.assert_allclose(metrics["discriminator_penalty"], expected["discriminator_penalty"], rtol=0.05)
    # float16 leaves updates out, with a norm of 0, until the loss scale, 2^15 at first, is small enough.
    weights, metrics = after_an_update(cotraining, penalty=WganGp(), updates=10)
    assert metrics["discriminator_gradient_norm"] > 0
    assert all(np.all(np.isfinite(weight)) and weight.dtype == np.float32 for weight in weights)


def test_without_a_penalty_the_update_computes_none(cotraining):
    _, metrics = after_an_update(cotraining)
    assert "discriminator_penalty" not in metrics


# ---- from gin


def test_gin_binds_penalties_by_reference():
    gin.parse_config("r1.gamma = 3.0\nwgan_gp.weight = 4.0")
    assert gin.query_parameter("r1.gamma") == 3.0
    assert (R1(), WganGp()) == (R1(gamma=3.0), WganGp(weight=4.0))


def test_a_penalty_and_a_loss_of_your_own_are_one_file(cotraining, tmp_path, monkeypatch):
    (tmp_path / "my_small_logits.py").write_text(
        textwrap.dedent(
            """
            import gin
            import tensorflow as tf

            from robgan_tf.losses import CoTrainingLosses, Weights, class_loss
            from robgan_tf.training.penalties import Penalty


            @gin.configurable
            class small_logits(Penalty):
                def __init__(self, weight=gin.REQUIRED):
                    self.weight = weight

                def __call__(self, discriminator, batch, source_logits):
                    real = source_logits(discriminator(batch.real, training=False), batch.labels)
                    return self.weight * tf.square(real)


            @gin.configurable
            def squared_losses():
                return CoTrainingLosses(
                    Weights(),
                    discriminator=lambda real, fake, labels, fake_labels: (real.source - 1) ** 2 + fake.source**2,
                    generator=lambda fake, fake_labels: (fake.source - 1) ** 2,
                    attack=lambda real, labels: class_loss(real.classes, labels),
                )


            @gin.configurable
            def parts(losses, penalty):
                return losses, penalty
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    gin.parse_config(
        """
        import my_small_logits
        small_logits.weight = 2.0
        parts.losses = @squared_losses()
        parts.penalty = @small_logits()
        """
    )
    losses, penalty = gin.get_configurable("parts")()
    stage = cotraining(losses=losses, penalty=penalty, attacker=None)
    images, labels = tf.random.uniform([8, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0, 1, 2, 0, 1])
    for layer in stage.discriminator.spectral_norm_layers:
        layer.power_iteration()
    u = [layer.u.numpy() for layer in stage.discriminator.spectral_norm_layers]
    for layer in stage.discriminator.spectral_norm_layers:
        layer.power_iteration()  # as the update will
    logits = stage.discriminator(images, training=False).source.numpy()
    for layer, value in zip(stage.discriminator.spectral_norm_layers, u):
        layer.u.assign(value)
    metrics = stage.update_discriminator(images, labels, tf.constant([1, 2]))
    np.testing.assert_allclose(metrics["discriminator_penalty"], np.mean(2.0 * logits**2), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: R1(gamma=0), r"r1.gamma must be a number > 0, got 0; .* CoTraining.penalty = None"),
        (lambda: WganGp(weight=-1.0), r"wgan_gp.weight must be a number > 0, got -1.0"),
    ],
)
def test_a_weight_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_penalty_or_does_not_go_with_the_network_is_refused(cotraining):
    with pytest.raises(
        ValueError, match=r"CoTraining.penalty must be .* such as @r1\(\), with brackets, or None, got <class"
    ):
        cotraining(penalty=R1)
    with pytest.raises(ValueError, match="second derivatives.*Discriminator.recompute = False"):
        cotraining(penalty=R1(), recompute=True)
    cotraining(penalty=R1(), losses=split(SplitAsCode()))
