import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.batches import evaluation_batches, training_batches
from robgan_tf.data.datasets import Examples

AUGMENT = (preprocessing.pad_and_crop, preprocessing.random_flip)


def numbered_examples(count, size=4):
    """Examples whose label is their number, sorted, and whose pixels hold it too."""
    labels = np.arange(count, dtype=np.int32)
    images = np.broadcast_to((labels % 256)[:, None, None, None], (count, size, size, 3)).astype(np.uint8)
    return Examples(images, labels)


def collect(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


@pytest.mark.parametrize("count, batch_size", [(20, 5), (23, 5), (7, 20), (1, 3), (2, 3)])
def test_every_pass_visits_every_example_once_across_batch_borders(count, batch_size):
    steps = -(-4 * count // batch_size)
    batches = training_batches(numbered_examples(count), batch_size, steps=steps, seed=5)
    labels = np.concatenate([labels for _, labels in collect(batches)])
    assert len(labels) == steps * batch_size
    passes = labels[: 4 * count].reshape(4, count)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(count), (4, 1)))
    if count > 10:
        assert len({one.tobytes() for one in passes}) == 4


def test_shuffling_leaves_no_trace_of_the_stored_order_or_of_the_pass_before():
    # TensorFlow's index_shuffle with its defaults fails both: 0.3 and 0.7.
    count = 10000
    batches = training_batches(numbered_examples(count, size=1), 1000, steps=30, seed=0)
    passes = np.concatenate([labels for _, labels in collect(batches)]).reshape(3, count)
    correlation = np.corrcoef(np.vstack([np.arange(count), passes]))
    assert np.abs(correlation - np.eye(4)).max() < 0.05  # five standard deviations


def test_images_and_labels_stay_together_and_on_the_networks_scale():
    for images, labels in collect(training_batches(numbered_examples(50), 16, steps=5, seed=0)):
        assert images.dtype == np.float32 and labels.dtype == np.int32
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels.astype(np.float32) / 127.5 - 1)


def test_resuming_at_a_step_gives_bit_identical_batches():
    arguments = dict(steps=12, seed=7, augment=AUGMENT, noise=1 / 128)
    whole = collect(training_batches(numbered_examples(30), 8, **arguments))
    rest = collect(training_batches(numbered_examples(30), 8, first_step=5, **arguments))
    assert (len(whole), len(rest)) == (12, 7)
    for (images, labels), (resumed_images, resumed_labels) in zip(whole[5:], rest):
        np.testing.assert_array_equal(images, resumed_images)
        np.testing.assert_array_equal(labels, resumed_labels)


def test_another_seed_gives_another_order_and_another_step_another_augmentation():
    examples = numbered_examples(30)
    first, other = (collect(training_batches(examples, 30, steps=2, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first[0][1], other[0][1])
    one = Examples(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8), np.zeros(1, np.int32))
    (images, _), (next_images, _) = collect(training_batches(one, 4, steps=2, seed=1, augment=AUGMENT))
    assert not np.array_equal(images, next_images)


def test_noise_moves_pixels_up_by_at_most_its_width_and_not_past_white():
    arguments = dict(steps=2, seed=3)
    examples = Examples(np.full([10, 4, 4, 3], 100, np.uint8), np.arange(10, dtype=np.int32))
    examples.images[5:] = 255
    clean = collect(training_batches(examples, 10, **arguments))
    noisy = collect(training_batches(examples, 10, noise=1 / 128, **arguments))
    for (images, labels), (noisy_images, noisy_labels) in zip(clean, noisy):
        np.testing.assert_array_equal(labels, noisy_labels)
        assert (noisy_images - images)[labels < 5].max() > 0.005
        assert (noisy_images >= images).all() and (noisy_images - images).max() <= 1 / 128 + 1e-6
        assert noisy_images.max() == 1.0


def test_batches_have_static_shapes_and_a_known_number():
    examples = numbered_examples(10)
    training = training_batches(examples, 4, steps=9, first_step=2, seed=0, augment=AUGMENT)
    assert [spec.shape for spec in training.element_spec] == [[4, 4, 4, 3], [4]]
    assert training.cardinality() == 7
    assert [spec.shape for spec in evaluation_batches(examples, 4).element_spec] == [[4, 4, 4, 3], [4], [4]]


def test_evaluation_counts_every_example_once_and_masks_the_padding():
    batches = collect(evaluation_batches(numbered_examples(10), 4))
    assert len(batches) == 3
    assert [mask.tolist() for _, _, mask in batches] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]
    images, labels, mask = (np.concatenate(parts) for parts in zip(*batches))
    np.testing.assert_array_equal(labels[mask == 1], np.arange(10))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels.astype(np.float32) / 127.5 - 1)


def test_batches_are_divided_among_replicas_and_workers_by_data():
    for dataset in (
        training_batches(numbered_examples(4), 2, steps=2, seed=0),
        evaluation_batches(numbered_examples(4), 2),
    ):
        policy = dataset.options().experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.DATA


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e: training_batches(e.take(0), 4, steps=1, seed=0), "no examples"),
        (lambda e: training_batches(e, 0, steps=1, seed=0), "batch_size must be 1 or more, got 0"),
        (lambda e: training_batches(e, 4, steps=1, first_step=2, seed=0), "first_step <= steps, got 2 and 1"),
        (lambda e: training_batches(e, 4, steps=1, seed=0, noise=-1.0), "noise must be 0 or more"),
        (lambda e: evaluation_batches(e.take(0), 4), "no examples"),
        (lambda e: evaluation_batches(e, -1), "batch_size must be 1 or more, got -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbered_examples(10))
