import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.batches import evaluation_batches, training_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.data.sources.image_files import ImageFiles
from robgan_tf.data.sources.records import tfrecord_images

AUGMENT = (preprocessing.pad_and_crop, preprocessing.random_flip, preprocessing.random_resized_crop)
KINDS = ("examples", "records", "files")


def numbered_examples(count, size=4):
    """Examples whose label is their number, sorted, and whose pixels hold it too."""
    labels = np.arange(count, dtype=np.int32)
    images = np.broadcast_to((labels % 256)[:, None, None, None], (count, size, size, 3)).astype(np.uint8)
    return Examples(images, labels)


@pytest.fixture
def make_split(tmp_path, write_records):
    """Makes a training split of a kind: images of noise whose label is their number, sorted."""

    def make(kind, count, size=9, **settings):  # 9 x 9 x 3 values: no whole number of the random generator's counts
        images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
        if kind == "examples":
            return Examples(images, np.arange(count, dtype=np.int32))
        if kind == "files":
            paths = [tmp_path / f"{number}.png" for number in range(count)]
            for path, image in zip(paths, images):
                PIL.Image.fromarray(image).save(path)
            return ImageFiles(paths, np.arange(count, dtype=np.int32), size)
        encoded = []
        for image in images:
            output = io.BytesIO()
            PIL.Image.fromarray(image).save(output, "JPEG")
            encoded.append(output.getvalue())
        pairs = list(zip(encoded, range(count)))
        folder = write_records(size, count, shards=min(count, 3), train=pairs, test=pairs)
        return tfrecord_images(str(folder), **{"shuffle_buffer": 4, **settings}).train

    return make


def collect(dataset):
    return [tuple(part.numpy() for part in batch) for batch in dataset]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count, batch_size", [(20, 5), (23, 5), (7, 20), (1, 3), (2, 3)])
def test_every_pass_visits_every_example_once_across_batch_borders(make_split, kind, count, batch_size):
    steps = -(-4 * count // batch_size)
    batches = training_batches(make_split(kind, count), batch_size, steps=steps, seed=5)
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


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_at_a_step_gives_bit_identical_batches_within_and_across_passes(make_split, kind):
    split = make_split(kind, 30)
    arguments = dict(steps=12, seed=7, augment=AUGMENT, noise=1 / 128)
    whole = collect(training_batches(split, 8, **arguments))
    assert len(whole) == 12
    for first_step in (3, 5, 11, 12):  # 30 images: step 3 ends in the second pass, step 11 begins in the third
        tf.random.set_seed(first_step)  # the process's seed has no say
        rest = collect(training_batches(split, 8, first_step=first_step, **arguments))
        assert len(rest) == 12 - first_step
        for (images, labels), (resumed_images, resumed_labels) in zip(whole[first_step:], rest):
            np.testing.assert_array_equal(images, resumed_images)
            np.testing.assert_array_equal(labels, resumed_labels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_of_all_workers_put_together_are_the_batches_of_one(make_split, kind):
    split, workers = make_split(kind, 11), 3
    arguments = dict(steps=4, first_step=1, seed=7, augment=AUGMENT, noise=1 / 128)
    whole = collect(training_batches(split, 6, **arguments))
    shares = [
        collect(training_batches(split, 6, workers=workers, worker=worker, **arguments)) for worker in range(workers)
    ]
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(images, np.concatenate([share[step][0] for share in shares]))
        np.testing.assert_array_equal(labels, np.concatenate([share[step][1] for share in shares]))


def test_files_and_the_same_images_in_memory_give_the_same_batches(make_split):
    arguments = dict(steps=6, seed=7, augment=AUGMENT, noise=1 / 128)
    in_memory = collect(training_batches(make_split("examples", 11), 4, **arguments))
    on_disk = collect(training_batches(make_split("files", 11), 4, **arguments))
    for (images, labels), (read_images, read_labels) in zip(in_memory, on_disk):
        np.testing.assert_array_equal(images, read_images)
        np.testing.assert_array_equal(labels, read_labels)


@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_share_the_batches_of_one(make_split, two_replicas, kind):
    batches = training_batches(make_split(kind, 11), 4, steps=3, seed=0, augment=AUGMENT, noise=1 / 128)
    for (images, labels), shared in zip(collect(batches), two_replicas.experimental_distribute_dataset(batches)):
        for whole, parts in zip((images, labels), shared):
            np.testing.assert_array_equal(whole, np.concatenate(two_replicas.experimental_local_results(parts)))


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


@pytest.mark.parametrize("kind", KINDS)
def test_batches_have_static_shapes_and_a_known_number(make_split, kind):
    training = training_batches(make_split(kind, 10), 4, steps=9, first_step=2, seed=0, augment=AUGMENT)
    assert [spec.shape for spec in training.element_spec] == [[4, 9, 9, 3], [4]]
    assert training.cardinality() == 7
    examples = numbered_examples(10)
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
    share = training_batches(numbered_examples(4), 2, steps=2, seed=0, workers=2)
    assert share.options().experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.OFF


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e: training_batches(e.take(0), 4, steps=1, seed=0), "no examples"),
        (lambda e: training_batches(e, 0, steps=1, seed=0), "batch_size must be 1 or more, got 0"),
        (lambda e: training_batches(e, 4, steps=1, first_step=2, seed=0), "first_step <= steps, got 2 and 1"),
        (lambda e: training_batches(e, 4, steps=1, seed=0, noise=-1.0), "noise must be 0 or more"),
        (lambda e: training_batches(e, 4, steps=1, seed=0, workers=2, worker=2), "worker < workers, got 2 and 2"),
        (lambda e: training_batches(e, 5, steps=1, seed=0, workers=2), "multiple of the 2 workers, got 5"),
        (lambda e: evaluation_batches(e.take(0), 4), "no examples"),
        (lambda e: evaluation_batches(e, -1), "batch_size must be 1 or more, got -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbered_examples(10))


@pytest.mark.parametrize("kind", KINDS)
def test_an_iterator_of_batches_does_not_wait_for_a_tuner_as_it_ends(make_split, kind):
    assert training_batches(make_split(kind, 8), 4, steps=2, seed=0).options().autotune.enabled is False


def test_nor_does_one_of_an_evaluation():
    assert evaluation_batches(numbered_examples(8), 4).options().autotune.enabled is False
