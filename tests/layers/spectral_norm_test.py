import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.spectral_norm import SpectralNormConv2D, SpectralNormDense, cached_kernels

# Of each layer: how to make it, what it is built for, the matrix that its kernel is, and an input.
LAYERS = {
    "conv": (lambda **options: SpectralNormConv2D(5, 3, **options), (None, 6, 6, 4), (36, 5)),
    "dense": (lambda **options: SpectralNormDense(7, **options), (None, 4), (4, 7)),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def make(kind, **options):
    layer, input_shape, _ = LAYERS[kind]
    layer = layer(**options)
    layer.build(tf.TensorShape(input_shape))
    return layer


def inputs(kind):
    return tf.random.normal([2, *LAYERS[kind][1][1:]])


def matrix(layer, kind):
    """The layer's kernel as a float64 matrix with a column for each output."""
    return layer.kernel.numpy().astype(np.float64).reshape(LAYERS[kind][2])


def iterate(layer, steps):
    step = tf.function(layer.power_iteration)
    for _ in range(steps):
        step()


def unit(vector):
    return vector / np.linalg.norm(vector)


# ---- sigma


@every_layer
def test_sigma_converges_to_the_largest_singular_value(kind):
    layer = make(kind)
    iterate(layer, 300)
    largest = np.linalg.svd(matrix(layer, kind), compute_uv=False)[0]
    # Rounding of float32 alone (2**-24 = 6e-8 for each of some ten operations): the iteration has converged.
    np.testing.assert_allclose(layer.sigma(), largest, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.svd(layer.normalized_kernel().numpy().reshape(LAYERS[kind][2]))[1][0], 1, 1e-6)


@every_layer
def test_power_iteration_is_one_step_of_numpys_and_moves_u_alone(kind):
    layer = make(kind)
    before = [variable.numpy() for variable in layer.trainable_variables]
    weight, u = matrix(layer, kind), layer.u.numpy().astype(np.float64)
    layer.power_iteration()
    np.testing.assert_allclose(layer.u, unit(weight.T @ unit(weight @ u)), atol=1e-6)  # float32 against float64
    assert np.abs(layer.u.numpy() - u).max() > 1e-2
    for old, new in zip(before, layer.trainable_variables):
        np.testing.assert_array_equal(old, new)


@every_layer
def test_u_starts_as_a_random_unit_vector_that_is_not_trained(kind):
    first, second = make(kind), make(kind)
    np.testing.assert_allclose(np.linalg.norm(first.u.numpy()), 1, rtol=1e-6)  # float32
    assert np.abs(first.u.numpy() - second.u.numpy()).max() > 1e-2
    assert [variable is first.u for variable in first.non_trainable_variables] == [True]


def test_sigma_does_not_depend_on_the_length_of_u():
    # An average of unit vectors, as a moving average of a network holds, is shorter than one.
    layer = make("dense")
    before = layer.sigma().numpy()
    layer.u.assign(0.3 * layer.u)
    np.testing.assert_allclose(layer.sigma(), before, rtol=1e-6)  # float32


@every_layer
def test_a_zero_kernel_gives_zeros(kind):
    layer = make(kind)
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    layer.power_iteration()
    assert np.isfinite(layer.u.numpy()).all()
    np.testing.assert_array_equal(layer.normalized_kernel(), np.zeros(layer.kernel.shape))
    np.testing.assert_array_equal(layer(inputs(kind)), 0 * layer(inputs(kind)))


def test_a_kernel_that_was_zero_once_is_normalized_again():
    layer = make("dense")
    kernel = layer.kernel.numpy()
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    layer.power_iteration()
    layer.kernel.assign(kernel)
    iterate(layer, 300)
    np.testing.assert_allclose(layer.sigma(), np.linalg.svd(kernel, compute_uv=False)[0], rtol=1e-6)  # float32


# ---- the gradient through sigma


@every_layer
def test_gradient_is_that_of_finite_differences_through_sigma(kind):
    layer = make(kind)
    layer.power_iteration()
    weight, u = matrix(layer, kind), unit(layer.u.numpy().astype(np.float64))
    functional = np.random.default_rng(1).normal(size=weight.shape)

    def value(weight):
        return np.sum(functional * weight / np.linalg.norm(weight @ u))

    step = 1e-5
    expected = np.zeros_like(weight)
    for index in np.ndindex(*weight.shape):
        change = np.zeros_like(weight)
        change[index] = step
        expected[index] = (value(weight + change) - value(weight - change)) / (2 * step)
    # The error of the differences is of the order step**2 = 1e-10; what is left is float32.
    np.testing.assert_allclose(gradient(layer, kind, functional), expected, rtol=1e-5, atol=1e-5)


@every_layer
def test_gradient_is_equation_12_of_miyato_et_al(kind):
    # d/dW <A, W / sigma> with sigma = v'Wu, u and v held fixed:  A / sigma - <A, W> / sigma^2 v u'.
    layer = make(kind)
    weight, u = matrix(layer, kind), unit(layer.u.numpy().astype(np.float64))
    functional = np.random.default_rng(2).normal(size=weight.shape)
    v = unit(weight @ u)
    sigma = v @ weight @ u
    through_sigma = np.sum(functional * weight) / sigma**2 * np.outer(v, u)
    assert np.abs(through_sigma).max() > 1e-2  # a gradient that stops at sigma would be seen
    expected = functional / sigma - through_sigma
    np.testing.assert_allclose(gradient(layer, kind, functional), expected, rtol=1e-5, atol=1e-5)  # float32


def gradient(layer, kind, functional):
    functional = tf.constant(functional.reshape(layer.kernel.shape), tf.float32)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(functional * layer.normalized_kernel())
    return tape.gradient(value, layer.kernel).numpy().reshape(LAYERS[kind][2])


def test_a_normalized_kernel_does_not_change_with_the_scale_of_the_kernel():
    # So the gradient is orthogonal to the kernel: <A, W> / sigma - <A, W> / sigma^2 v'Wu = 0.
    layer = make("dense")
    found = gradient(layer, "dense", np.random.default_rng(3).normal(size=(4, 7)))
    assert abs(np.sum(found * matrix(layer, "dense"))) < 1e-5  # float32 sum of 28 products of order one


# ---- the forward pass


def test_dense_is_the_input_times_the_normalized_kernel_plus_bias():
    layer = make("dense")
    layer.bias.assign(tf.range(7.0))
    features = inputs("dense")
    weight = matrix(layer, "dense")
    expected = features.numpy() @ (weight / np.linalg.norm(weight @ layer.u.numpy())) + np.arange(7)
    np.testing.assert_allclose(layer(features), expected, atol=1e-5)  # float32, values up to 10


def test_convolution_is_a_convolution_with_the_normalized_kernel_plus_bias():
    layer = make("conv")
    layer.bias.assign(tf.range(5.0))
    images = inputs("conv")
    plain = keras.layers.Conv2D(5, 3, padding="same")
    plain.build(images.shape)
    plain.set_weights([layer.kernel.numpy() / layer.sigma().numpy(), np.arange(5)])
    np.testing.assert_allclose(layer(images), plain(images), atol=1e-5)  # float32, values up to 10


def test_a_dense_layer_without_bias_holds_the_inner_products_with_all_embeddings():
    """Projection (Miyato & Koyama 2018): the spectrally normalised table of embeddings is the kernel turned round."""
    dense = SpectralNormDense(9, use_bias=False)
    dense.build(tf.TensorShape([None, 4]))
    iterate(dense, 100)
    table = dense.kernel.numpy().T
    table /= np.linalg.svd(table, compute_uv=False)[0]
    features, labels = tf.random.normal([5, 4]), tf.constant([3, 0, 8, 3, 1])
    products = np.sum(table[labels.numpy()] * features.numpy(), axis=-1)
    np.testing.assert_allclose(tf.gather(dense(features), labels, batch_dims=1), products, atol=1e-5)
    assert len(dense.trainable_variables) == 1


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_calling_never_assigns_anything(kind, training):
    layer = make(kind)
    before = [variable.numpy() for variable in layer.variables]
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(layer(inputs(kind), training=training))
    tape.gradient(output, layer.trainable_variables)
    for old, new in zip(before, layer.variables):
        np.testing.assert_array_equal(old, new)


@every_layer
def test_held_kernels_are_those_of_the_beginning_until_the_end(kind):
    layer = make(kind)
    images = inputs(kind)
    before = layer(images).numpy()
    with cached_kernels([layer]):
        layer.kernel.assign(layer.kernel + 1.0)
        with cached_kernels([layer]):
            np.testing.assert_array_equal(layer(images), before)
        np.testing.assert_array_equal(layer(images), before)
    assert not np.allclose(layer(images), before)


def test_held_kernels_are_computed_outside_of_a_loop():
    layer = make("conv")

    @tf.function
    def loop(images):
        with cached_kernels([layer]):
            return tf.while_loop(lambda _: True, lambda images: (images + tf.reduce_sum(layer(images)),), (images,))

    (body,) = [
        function
        for function in loop.get_concrete_function(inputs("conv")).graph.as_graph_def().library.function
        if "body" in function.signature.name
    ]
    operations = {node.op for node in body.node_def}
    assert "Conv2D" in operations and not operations & {"MatMul", "RealDiv", "Sqrt"}


# ---- mixed precision


@every_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_only_the_finished_kernel_is_rounded(kind, policy):
    single = make(kind)
    keras.mixed_precision.set_global_policy(policy)
    mixed = make(kind)
    mixed.kernel.assign(single.kernel)
    mixed.u.assign(single.u)
    dtype = keras.mixed_precision.global_policy().compute_dtype
    assert {variable.dtype for variable in mixed.variables} == {tf.float32}
    assert mixed.sigma().dtype == tf.float32
    np.testing.assert_array_equal(mixed.sigma(), single.sigma())
    assert mixed(inputs(kind)).dtype == dtype
    assert mixed.normalized_kernel().dtype == tf.float32
    np.testing.assert_array_equal(mixed.normalized_kernel(), single.normalized_kernel())
    mixed.power_iteration()
    single.power_iteration()
    np.testing.assert_array_equal(mixed.u, single.u)


def test_within_a_mixed_network_too_sigma_is_made_of_the_unrounded_kernel():
    # A model of 16 bits casts what its layers read of their variables, unless they prevent it.
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    layer = SpectralNormDense(7)
    found = []

    class Network(keras.Model):
        def call(self, features):
            found.append(layer.sigma())
            return layer(features)

    layer.build(tf.TensorShape([None, 4]))
    assert Network()(tf.zeros([2, 4])).dtype == tf.bfloat16
    np.testing.assert_array_equal(found[0], layer.sigma())


def test_a_float32_layer_in_a_mixed_network_computes_in_float32():
    keras.mixed_precision.set_global_policy("mixed_float16")
    layer = make("dense", dtype="float32")
    assert layer(tf.zeros([2, 4], tf.float16)).dtype == layer.normalized_kernel().dtype == tf.float32


# ---- replicas, checkpoints, SavedModel


@every_layer
def test_two_replicas_hold_the_same_u_as_one_device(kind, two_replicas):
    single = make(kind)
    with two_replicas.scope():
        mirrored = make(kind)
        mirrored.kernel.assign(single.kernel)
        mirrored.u.assign(single.u)

    @tf.function
    def step():
        two_replicas.run(mirrored.power_iteration)

    for _ in range(3):
        step()
        single.power_iteration()
    replicas = two_replicas.experimental_local_results(mirrored.u)
    assert len(replicas) == 2
    for u in replicas:
        np.testing.assert_array_equal(u, single.u)


def test_u_is_part_of_a_checkpoint(tmp_path):
    saved, restored = make("conv"), make("conv")
    saved.power_iteration()
    assert np.abs(saved.u.numpy() - restored.u.numpy()).max() > 1e-2
    path = tf.train.Checkpoint(layer=saved).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(layer=restored).read(path).assert_consumed()
    for old, new in zip(saved.variables, restored.variables):
        np.testing.assert_array_equal(old, new)


@every_layer
def test_a_saved_model_answers_like_the_layer_and_keeps_the_gradient_through_sigma(kind, tmp_path):
    class Served(tf.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        @tf.function
        def __call__(self, batch):
            return self.layer(batch)

    module, batch = Served(make(kind)), inputs(kind)
    module(batch)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded(batch), module(batch))
    gradients = []
    for network in (module, loaded):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(network(batch) ** 2)
        gradients.append(tf.convert_to_tensor(tape.gradient(value, network.layer.kernel)))
    np.testing.assert_allclose(*gradients, atol=1e-5)  # float32; the graphs may be ordered differently
