import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras


def inputs(count=4):
    return tf.random.normal([count, 6]), tf.range(count) % 3


def test_images_depend_on_noise_and_label_and_stay_on_the_pixel_scale(make_generator):
    generator = make_generator()
    for block in generator.blocks:  # all classes start with the same gamma and beta
        block.norm_1.gamma.assign(tf.random.normal(block.norm_1.gamma.shape))
    generator.to_image.kernel.assign(100 * generator.to_image.kernel)
    noise, labels = inputs()
    images = generator((noise, labels))
    assert np.abs(images).max() <= 1 and np.abs(images).max() > 0.99
    for other in (generator((noise + 1, labels)), generator((noise, (labels + 1) % 3))):
        assert (np.abs(images - other).max((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_statistics_move_in_training_alone(training, make_generator):
    generator = make_generator()
    before = [variable.numpy() for variable in generator.variables]
    generator(inputs(), training=training)
    moved = {
        id(variable) for old, variable in zip(before, generator.variables) if not np.array_equal(old, variable.numpy())
    }
    assert moved == ({id(variable) for variable in generator.non_trainable_variables} if training else set())


def test_batch_norm_layers_are_all_there_are(make_generator):
    generator = make_generator(image_shape=(16, 16, 3), multipliers=(4, 2, 1), upsample=(True, True))
    found = [variable for layer in generator.batch_norm_layers for variable in layer.non_trainable_variables]
    assert {id(variable) for variable in found} == {id(variable) for variable in generator.non_trainable_variables}
    assert len(generator.batch_norm_layers) == 5


def test_weights_exist_before_the_first_step(make_generator):
    generator = make_generator()
    count = len(generator.variables)
    generator(inputs(), training=True)
    assert count == len(generator.variables) > 0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_weights_and_images_are_float32_and_features_are_not(policy, make_generator):
    keras.mixed_precision.set_global_policy(policy)
    generator = make_generator()
    assert generator(inputs(), training=True).dtype == tf.float32
    assert {variable.dtype for variable in generator.variables} == {tf.float32}
    features = generator.blocks[0](tf.zeros([1, 4, 4, 8]), tf.constant([0]))
    assert features.dtype == keras.mixed_precision.global_policy().compute_dtype


def test_tables_that_do_not_fit_each_other_are_refused(make_generator):
    with pytest.raises(
        ValueError, match=r"multipliers has 2 entries and Generator.upsample 2: multipliers needs one more"
    ):
        make_generator(multipliers=(2, 1), upsample=(True, False))
    make_generator(multipliers=(2, 1, 1), upsample=(True, False))


@pytest.mark.parametrize("image_shape", [(16, 16, 3), (8, 16, 3), (16, 8, 3), (4, 4, 3)])
def test_an_image_size_that_the_blocks_cannot_make_is_refused(image_shape, make_generator):
    message = (
        rf"make 8x8 images, the data has {image_shape[0]}x{image_shape[1]}: set the data's image_size to 8, or give "
    )
    with pytest.raises(ValueError, match=message + r"Generator.upsample .* \(now 1\)"):
        make_generator(image_shape=image_shape)
