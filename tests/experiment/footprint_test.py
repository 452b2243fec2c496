"""Peaks and arithmetic of small graphs, counted by hand."""

import pytest
import tensorflow as tf

from robgan_tf.experiment.footprint import footprint, size_in_bytes
from robgan_tf.keras2 import keras


def needs(function, *specs, device=None):
    return footprint(tf.function(function, autograph=False).get_concrete_function(*specs), device)


def spec(*shape):
    return tf.TensorSpec(shape)


def test_matrix_products_in_a_row():
    first, second = tf.Variable(tf.zeros([8, 16])), tf.Variable(tf.zeros([16, 2]))
    found = needs(lambda x: tf.nn.relu(x @ first) @ second, spec(4, 8))
    # [4, 16] floats, which ReLU writes over, and while they are read, the result, [4, 2]. x and variables are not its.
    assert found.peak == 4 * (4 * 16 + 4 * 2)
    assert found.flops == 2 * (4 * 16 * 8 + 4 * 2 * 16)
    assert found.unknown == ()


def test_a_buffer_that_is_still_needed_is_not_written_over():
    def function(x):
        hidden = x @ tf.ones([8, 16])
        return tf.nn.relu(hidden) + hidden

    # hidden and ReLU's output at once, [4, 16] each; the sum goes into one of them.
    assert needs(function, spec(4, 8)).peak == 2 * 4 * 4 * 16


def test_renaming_costs_nothing_and_bfloat16_half():
    def renamed(x):
        return tf.reshape(tf.stop_gradient(tf.identity(tf.exp(x))), [8, 1, 4])

    assert needs(renamed, spec(4, 8)).peak == 4 * 32
    assert needs(lambda x: tf.cast(x, tf.bfloat16), spec(4, 8)).peak == 2 * 32


def test_a_transposed_and_a_batched_product():
    assert needs(lambda x, y: tf.matmul(x, y, transpose_a=True), spec(5, 3), spec(5, 7)).flops == 2 * 3 * 7 * 5
    assert needs(lambda x, y: tf.matmul(x, y), spec(6, 3, 5), spec(6, 5, 7)).flops == 2 * 6 * 3 * 7 * 5


@pytest.mark.parametrize("strides, side", [(1, 8), (2, 4)])
def test_a_convolution_and_its_gradients_take_the_same_arithmetic(strides, side):
    def convolve(images, kernel):
        return tf.nn.conv2d(images, kernel, strides, "SAME")

    def gradients(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            result = convolve(images, kernel)
        return tape.gradient(result, [images, kernel])

    # 2 x side x side x 4 results, each a sum over 3 x 3 x 3 products.
    forward = 2 * (2 * side * side * 4) * 27
    specs = spec(2, 8, 8, 3), spec(3, 3, 3, 4)
    assert needs(convolve, *specs).flops == forward
    # The forward pass is traced too, but its result is not needed.
    assert needs(gradients, *specs).flops == 2 * forward
    assert needs(lambda *tensors: gradients(*tensors)[0], *specs).flops == forward


def test_a_depthwise_convolution_and_its_gradients_take_the_same_arithmetic():
    def convolve(images, kernel):
        return tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")

    def gradients(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            result = convolve(images, kernel)
        return tape.gradient(result, [images, kernel])

    # 2 x 8 x 8 x 3 results, each a sum over 7 x 7 products.
    forward, specs = 2 * (2 * 8 * 8 * 3) * 49, (spec(2, 8, 8, 3), spec(7, 7, 3, 1))
    assert needs(convolve, *specs).flops == forward
    assert needs(gradients, *specs).flops == 2 * forward


def test_a_loop_counts_each_round_and_keeps_the_last_result_and_the_new_one():
    weights = tf.Variable(tf.ones([64, 64]))

    def function(x):
        def step(index, y):
            return index + 1, tf.nn.relu(y @ weights)

        return tf.while_loop(lambda index, y: index < 5, step, (0, x), maximum_iterations=5)[1]

    found = needs(function, spec(4, 64))
    assert found.flops == 5 * 2 * 4 * 64 * 64
    # [4, 64] before and after the product, and some counters.
    assert 2 * 4 * 4 * 64 <= found.peak <= 2 * 4 * 4 * 64 + 32
    assert found.unknown == ()


def test_what_a_loop_only_reads_is_not_copied():
    def function(x):
        noise = tf.exp(x)
        return tf.while_loop(lambda y: True, lambda y: (y + tf.reduce_sum(noise),), (0.0,), maximum_iterations=3)[0]

    assert 4 * 1000 <= needs(function, spec(1000)).peak <= 4 * 1000 + 64


def test_loops_within_a_loop_multiply():
    def product(y):
        return tf.while_loop(lambda y: True, lambda y: (y @ y,), (y,), maximum_iterations=3)[0]

    def function(x):
        return tf.while_loop(lambda y: True, lambda y: (product(y),), (x,), maximum_iterations=4)[0]

    assert needs(function, spec(8, 8)).flops == 4 * 3 * 2 * 8**3


def test_called_functions_and_the_larger_branch_count():
    called = tf.function(lambda x: x @ x)
    assert needs(lambda x: called(x) @ x, spec(8, 8)).flops == 2 * 2 * 8**3
    found = needs(lambda x: tf.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x), spec(8, 8))
    assert found.flops == 2 * 2 * 8**3


def test_what_is_not_known_is_said():
    endless = needs(lambda x: tf.while_loop(lambda y: y[0, 0] > 0, lambda y: (y @ y,), (x,))[0], spec(8, 8))
    assert endless.flops == 2 * 8**3 and "number of rounds" in endless.unknown[0]
    assert needs(lambda x: tf.tile(x, [2, 1]), spec(None, 8)).unknown == ("the size of what Tile gives",)


def test_a_size_that_is_only_known_behind_it_is_taken_from_there():
    def function(x):
        array = tf.TensorArray(tf.float32, 3).unstack(tf.reshape(x, [3, 2, 8]))
        return tf.ensure_shape(array.concat(), [6, 8])

    found = needs(function, spec(6, 8))
    assert found.unknown == () and found.peak == 4 * 48


def test_rows_of_a_gradient_are_at_most_those_looked_up():
    table = tf.Variable(tf.zeros([1000, 8]))
    optimizer = keras.optimizers.Adam()
    optimizer.build([table])

    def update(labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.gather(table, labels)))
        optimizer.apply_gradients([(tape.gradient(loss, table), table)])

    assert needs(update, tf.TensorSpec([4], tf.int32)).unknown == ()


def test_of_several_devices_one_is_counted():
    def function(x):
        with tf.device("CPU:0"):
            small = x[:8] @ x[:8]
        with tf.device("CPU:1"):
            return small, x @ x[:8]

    both, first, second = (needs(function, spec(16, 8), device=device) for device in (None, "CPU:0", "CPU:1"))
    assert (both.flops, first.flops, second.flops) == (3 * 2 * 8**3, 2 * 8**3, 2 * 2 * 8**3)
    # The slices [8, 8] and the product of the first device; those of the second, where the product is twice as large.
    assert first.peak == 4 * 3 * 64


def test_recomputed_blocks_need_less_memory_and_more_arithmetic():
    weights = [tf.Variable(tf.zeros([64, 64])) for _ in range(8)]

    def block(x, pair):
        for weight in pair:
            x = tf.tanh(x @ weight)
        return x

    def gradient(x, recompute):
        with tf.GradientTape() as tape:
            for index in range(0, 8, 2):

                def call(x, pair=weights[index : index + 2]):
                    return block(x, pair)

                x = (tf.recompute_grad(call) if recompute else call)(x)
            loss = tf.reduce_sum(x)
        return tape.gradient(loss, weights)

    kept, recomputed = (needs(lambda x, flag=flag: gradient(x, flag), spec(4096, 64)) for flag in (False, True))
    assert recomputed.peak < 0.8 * kept.peak
    assert recomputed.flops > kept.flops


def test_sizes():
    assert size_in_bytes(spec(2, 3)) == 24 and size_in_bytes(spec(None)) is None
    assert size_in_bytes(tf.Variable(tf.zeros([5], tf.bfloat16))) == 10
