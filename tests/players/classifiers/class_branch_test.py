import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier


@pytest.fixture
def discriminator(make_discriminator):
    return make_discriminator()


def test_class_branch_is_the_class_head_of_the_same_network(discriminator):
    branch, images = ClassBranch(discriminator), tf.random.uniform([4, 8, 8, 3], -1, 1)
    np.testing.assert_array_equal(branch(images), discriminator(images).classes)
    discriminator.class_head.bias.assign([1, 2, 3])  # shared, not copied
    np.testing.assert_array_equal(branch(images), discriminator(images).classes)


def test_class_variables_are_those_with_a_gradient(discriminator):
    branch = ClassBranch(discriminator)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(branch(tf.random.uniform([4, 8, 8, 3], -1, 1)) ** 2)
    gradients = tape.gradient(total, branch.trainable_variables)
    connected = [variable for variable, gradient in zip(branch.trainable_variables, gradients) if gradient is not None]
    assert [id(variable) for variable in branch.class_variables] == [id(variable) for variable in connected]
    # All but kernel and bias of the real/fake head.
    assert len(branch.class_variables) == len(discriminator.trainable_variables) - 2


def test_power_iteration_is_the_discriminators(discriminator):
    before = discriminator.class_head.u.numpy()
    ClassBranch(discriminator).power_iteration()
    assert np.abs(discriminator.class_head.u.numpy() - before).max() > 1e-3


def test_a_class_branch_gives_another_and_a_copy_without_spectral_norm(discriminator):
    branch, images = ClassBranch(discriminator), tf.random.uniform([4, 8, 8, 3], -1, 1)
    assert (branch.num_classes, branch.image_shape) == (3, (8, 8, 3))
    copy = branch.inference_copy()
    np.testing.assert_allclose(copy(images), branch(images), atol=1e-5)  # W / sigma at once
    assert not copy.discriminator.spectral_norm_layers
    assert len(branch.another().weights) == len(branch.weights) and branch.another().name == branch.name


def test_a_classifier_that_does_not_say_how_another_is_made_says_so():
    with pytest.raises(NotImplementedError, match="Classifier does not say"):
        Classifier().inference_copy()
