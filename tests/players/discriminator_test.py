import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses import projection_logits


def random_images(count=4, channels=3):
    return tf.random.uniform([count, 8, 8, channels], -1, 1)


def test_verdict_is_two_linear_heads_on_the_sum_of_the_features(make_discriminator):
    discriminator = make_discriminator(spectral_norm=False)
    discriminator.class_head.bias.assign([1, 2, 3])
    images = features = random_images()
    for block in discriminator.blocks:
        features = block(features)
    summed = np.maximum(features.numpy().astype(np.float64), 0).sum(axis=(1, 2))  # a sum, not a mean
    verdict = discriminator(images)
    source = summed @ discriminator.source_head.kernel.numpy() + discriminator.source_head.bias.numpy()
    classes = summed @ discriminator.class_head.kernel.numpy() + [1, 2, 3]
    np.testing.assert_allclose(verdict.source, source[:, 0], rtol=1e-5, atol=1e-4)  # float32, values of order 10
    np.testing.assert_allclose(verdict.classes, classes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("spectral_norm", [True, False])
def test_training_makes_no_difference_and_assigns_nothing(spectral_norm, make_discriminator):
    discriminator, images = make_discriminator(spectral_norm=spectral_norm), random_images()
    before = [variable.numpy() for variable in discriminator.variables]
    for one, other in zip(discriminator(images, training=True), discriminator(images, training=False)):
        np.testing.assert_array_equal(one, other)
    for old, new in zip(before, discriminator.variables):
        np.testing.assert_array_equal(old, new)


def test_each_image_is_judged_by_itself(make_discriminator):
    # Co-training judges real and generated images in one batch.
    discriminator, images = make_discriminator(), random_images()
    for together, alone in zip(discriminator(images), discriminator(images[2:3])):
        np.testing.assert_allclose(together[2:3], alone, atol=1e-5)  # float32: the order of sums depends on the batch


def test_power_iteration_moves_u_of_every_layer_and_nothing_else(make_discriminator):
    discriminator = make_discriminator()
    before = [variable.numpy() for variable in discriminator.variables]
    discriminator.power_iteration()
    moved = {
        id(variable)
        for old, variable in zip(before, discriminator.variables)
        if not np.array_equal(old, variable.numpy())
    }
    # u of the source head has one entry and is 1 or -1 for ever.
    several = [variable for variable in discriminator.non_trainable_variables if variable.shape != (1,)]
    assert moved == {id(variable) for variable in several}
    layers = discriminator.spectral_norm_layers
    assert {id(layer.u) for layer in layers} == {id(variable) for variable in discriminator.non_trainable_variables}
    assert len(layers) == 3 * 2 + 2 + 2  # three blocks, two of them with a convolution in the shortcut, and two heads


def test_without_spectral_norm_power_iteration_does_nothing(make_discriminator):
    discriminator = make_discriminator(spectral_norm=False)
    before = [variable.numpy() for variable in discriminator.variables]
    discriminator.power_iteration()
    assert discriminator.spectral_norm_layers == []
    for old, new in zip(before, discriminator.variables):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("spectral_norm", [True, False])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_weights_and_logits_are_float32_and_features_are_not(
    policy, spectral_norm, make_discriminator
):
    keras.mixed_precision.set_global_policy(policy)
    discriminator = make_discriminator(spectral_norm=spectral_norm)
    assert {logits.dtype for logits in discriminator(random_images())} == {tf.float32}
    assert {variable.dtype for variable in discriminator.variables} == {tf.float32}
    features = discriminator.blocks[0](random_images())
    assert features.dtype == keras.mixed_precision.global_policy().compute_dtype


def test_tables_that_do_not_fit_each_other_are_refused(make_discriminator):
    with pytest.raises(
        ValueError, match=r"multipliers has 3 entries and Discriminator.downsample 2: each block needs one"
    ):
        make_discriminator(multipliers=(1, 2, 2), downsample=(True, False))


@pytest.mark.parametrize("image_shape", [(6, 8, 3), (8, 6, 3), (10, 10, 1)])
def test_an_image_that_cannot_be_halved_that_often_is_refused(image_shape, make_discriminator):
    message = (
        rf"halve the image 2 times, which {image_shape[0]}x{image_shape[1]} px does not allow: use sides divisible by 4"
    )
    with pytest.raises(ValueError, match=message):
        make_discriminator(image_shape=image_shape, downsample=(True, True, False))


def test_odd_sides_are_refused_even_where_nothing_is_halved(make_discriminator):
    with pytest.raises(ValueError, match="which 15x15 px does not allow: use sides divisible by 2"):
        make_discriminator(image_shape=(15, 15, 1), multipliers=(1,), downsample=(False,))


def test_images_need_not_be_square(make_discriminator):
    assert make_discriminator(image_shape=(4, 8, 1))(tf.zeros([2, 4, 8, 1])).classes.shape == (2, 3)


@pytest.mark.parametrize("spectral_norm", [True, False])
def test_a_plain_copy_with_inference_weights_judges_alike(make_discriminator, spectral_norm):
    discriminator = make_discriminator(spectral_norm=spectral_norm)
    discriminator.power_iteration()
    for index, variable in enumerate(discriminator.trainable_variables):
        variable.assign_add(tf.random.stateless_uniform(variable.shape, [index, 0]))
    plain = make_discriminator(spectral_norm=False)
    plain.set_weights(discriminator.inference_weights())
    images = tf.random.stateless_uniform([4, 8, 8, 3], [0, 0], -1, 1)
    for found, expected in zip(plain(images), discriminator(images)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32: a division in another order


def test_inference_weights_are_read_under_a_strategy(make_discriminator, two_replicas):
    with two_replicas.scope():
        discriminator = make_discriminator()
    plain = make_discriminator(spectral_norm=False)
    plain.set_weights(discriminator.inference_weights())
    assert plain.count_params() == sum(variable.shape.num_elements() for variable in discriminator.trainable_variables)
    kernel = discriminator.blocks[0].conv_1.normalized_kernel().numpy()
    np.testing.assert_array_equal(plain.blocks[0].conv_1.kernel, kernel)


@pytest.mark.parametrize("spectral_norm", [True, False])
def test_without_class_bias_it_is_a_projection_discriminator(make_discriminator, spectral_norm):
    discriminator, images = make_discriminator(spectral_norm=spectral_norm, class_bias=False), random_images()
    head = discriminator.class_head
    assert len(head.trainable_variables) == 1 and not getattr(head, "bias", None)
    features = images
    for block in discriminator.blocks:
        features = block(features)
    summed = np.maximum(features.numpy(), 0).sum(axis=(1, 2))
    table = (head.normalized_kernel() if spectral_norm else head.kernel).numpy()  # an embedding in each column
    labels = np.array([2, 0, 1, 2])
    psi, verdict = discriminator.source_head(summed).numpy()[:, 0], discriminator(images)
    expected = psi + (summed * table[:, labels].T).sum(axis=1)
    np.testing.assert_allclose(projection_logits(verdict, labels), expected, rtol=1e-5, atol=1e-5)


def test_a_copy_for_inference_judges_alike_without_spectral_norm(make_discriminator):
    for options in ({}, {"class_bias": False}, {"spectral_norm": False, "recompute": True}):
        discriminator, images = make_discriminator(**options), random_images()
        copy = discriminator.inference_copy()
        assert not copy.spectral_norm_layers
        for one, other in zip(copy(images), discriminator(images)):
            np.testing.assert_allclose(one, other, atol=1e-5)
        another = discriminator.another()
        assert [weight.shape for weight in another.weights] == [weight.shape for weight in discriminator.weights]
