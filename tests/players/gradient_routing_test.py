"""Which loss moves which variables, with the real networks and the real co-training updates."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import losses
from robgan_tf.keras2 import keras
from robgan_tf.losses import Weights
from robgan_tf.training.cotraining import CoTraining

# Nothing but the terms on generated images.
FAKE_ALONE = Weights(real=0, real_class=0)
EQUATIONS = {"equation 9": losses.split, "equation 8": losses.ac_gan}


@pytest.fixture
def make_stage(make_generator, make_discriminator):
    def make(objectives):
        return CoTraining(
            make_generator(),
            make_generator(name="average_generator"),
            make_discriminator(),
            num_examples=8,
            seed=0,
            attacker=None,
            losses=objectives,
            epochs=1,
            batch_size=4,
            discriminator_steps=1,
            optimizer=keras.optimizers.SGD,
            generator_schedule=lambda *_: 0.1,
            discriminator_schedule=lambda *_: 0.1,
        )

    return make


def moved(variables, before):
    return [not np.array_equal(variable.numpy(), old) for variable, old in zip(variables, before)]


def values(*networks):
    return [variable.numpy() for network in networks for variable in network.variables]


@pytest.mark.parametrize("equation, reaches", [("equation 9", False), ("equation 8", True)])
def test_gradients_from_generated_images_reach_the_class_head_under_equation_8_alone(
    equation, reaches, make_discriminator
):
    discriminator = make_discriminator()
    images, labels = tf.random.uniform([4, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0])
    with tf.GradientTape(persistent=True) as tape:
        real, fake = discriminator(images), discriminator(tf.reverse(images, [2]))
        loss = EQUATIONS[equation](FAKE_ALONE).discriminator(real, fake, labels, labels)
    for variable in discriminator.class_head.trainable_variables:
        gradient = tape.gradient(loss, variable, unconnected_gradients="zero")
        assert np.any(gradient.numpy() != 0) == reaches
    # The features below learn from generated images under either.
    assert np.any(tape.gradient(loss, discriminator.blocks[0].conv_1.kernel).numpy() != 0)
    assert np.any(tape.gradient(loss, discriminator.source_head.kernel).numpy() != 0)


@pytest.mark.parametrize("equation, moves", [("equation 9", False), ("equation 8", True)])
def test_an_update_on_generated_images_moves_the_class_head_under_equation_8_alone(equation, moves, make_stage):
    stage = make_stage(EQUATIONS[equation](FAKE_ALONE))
    head = stage.discriminator.class_head.trainable_variables
    before = [variable.numpy() for variable in head]
    stage.update_discriminator(tf.random.uniform([4, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0]), tf.constant([1, 2]))
    assert moved(head, before) == [moves] * 2


def test_under_equation_9_real_images_move_the_class_head(make_stage):
    stage = make_stage(losses.split(Weights(fake=0)))
    head = stage.discriminator.class_head.trainable_variables
    before = [variable.numpy() for variable in head]
    stage.update_discriminator(tf.random.uniform([4, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0]), tf.constant([1, 2]))
    assert moved(head, before) == [True] * 2


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_discriminators_update_moves_no_weight_of_a_generator(equation, make_stage):
    stage = make_stage(EQUATIONS[equation](Weights()))
    weights = stage.generator.trainable_variables + stage.average_generator.variables
    before = [variable.numpy() for variable in weights]
    of_discriminator = values(stage.discriminator)
    stage.update_discriminator(tf.random.uniform([4, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0]), tf.constant([1, 2]))
    assert not any(moved(weights, before))
    # Every weight of its own moves, and every u but the source head's, which has one entry: 1 or -1.
    still = [
        variable.shape
        for variable, has_moved in zip(
            stage.discriminator.variables, moved(stage.discriminator.variables, of_discriminator)
        )
        if not has_moved
    ]
    assert still == [(1,)]


def test_the_generators_update_moves_its_weights_and_nothing_of_the_others(make_stage):
    stage = make_stage(losses.split(Weights()))
    others = stage.discriminator.variables + stage.average_generator.variables  # u among them
    before = [variable.numpy() for variable in others]
    kernels = [variable for variable in stage.generator.trainable_variables if "kernel" in variable.name]
    of_generator = [variable.numpy() for variable in kernels]
    stage.update_generator(tf.constant([1, 2]))
    assert not any(moved(others, before))
    # dense, three convolutions in the block, and the one to the image
    assert moved(kernels, of_generator) == [True] * 5


def test_under_projection_the_embeddings_learn_from_real_and_from_generated_images(make_stage):
    for weights in (FAKE_ALONE, Weights(fake=0)):
        stage = make_stage(losses.projection(weights))
        # The hinge lets images alone that are on their side by 1.
        head = stage.discriminator.class_head.trainable_variables[0]
        before = head.numpy()
        stage.update_discriminator(
            tf.random.uniform([4, 8, 8, 3], -1, 1), tf.constant([0, 1, 2, 0]), tf.constant([1, 2])
        )
        assert moved([head], [before]) == [True]


def test_under_projection_the_generator_hears_of_its_classes_through_the_embeddings(make_generator, make_discriminator):
    generator, discriminator = make_generator(), make_discriminator(class_bias=False)
    noise = tf.random.normal([3, generator.latent_dim])
    with tf.GradientTape() as tape:
        verdict = discriminator(generator((noise, tf.constant([0, 1, 2]))))
        loss = losses.projection(Weights()).generator(verdict, tf.constant([0, 1, 2]))
    # -1 for the class that was asked for, 0 for the others; and all of it reaches the generator's weights.
    with tf.GradientTape() as tape_of_logits:
        tape_of_logits.watch(verdict.classes)
        again = losses.projection(Weights()).generator(verdict, tf.constant([0, 1, 2]))
    np.testing.assert_array_equal(tf.convert_to_tensor(tape_of_logits.gradient(again, verdict.classes)), -np.eye(3))
    assert np.any(tape.gradient(loss, generator.dense.kernel).numpy() != 0)
