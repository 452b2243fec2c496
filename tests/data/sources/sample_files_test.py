"""Files of images read in place: what they hold, on replicas, and those that are refused."""

import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.sources.sample_files import SampleFile, read_samples, write_sample_file

IMAGES = np.random.default_rng(0).integers(0, 256, [12, 4, 6, 3], np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def write(tmp_path):
    def make(save=np.savez, **arrays):
        path = str(tmp_path / "million.npz")
        save(path, **(arrays or {"image": IMAGES, "label": LABELS}))
        return path

    return make


@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels")])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_images_stay_in_the_file_and_labels_are_read(write, names, dtype):
    path = write(others=np.zeros(1000), **dict(zip(names, (IMAGES, LABELS.astype(dtype)))))
    examples = read_samples(path, 3)
    assert isinstance(examples.images, np.memmap) and os.path.samefile(examples.images.filename, path)
    np.testing.assert_array_equal(examples.images, IMAGES)
    np.testing.assert_array_equal(examples.labels, LABELS)
    assert examples.labels.dtype == np.int32 and examples.image_shape == (4, 6, 3)


def test_names_and_extra_fields_of_any_length_stand_before_the_images(tmp_path):
    # As other programs write zips: the offset is behind what the local header says, not what the directory says.
    np.save(tmp_path / "image.npy", IMAGES)
    np.save(tmp_path / "label.npy", LABELS)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a note", "text")
        for name in ("image.npy", "label.npy"):
            info = zipfile.ZipInfo(name)
            info.extra = b"\xfe\xca\x05\x00extra"
            archive.writestr(info, (tmp_path / name).read_bytes())
    np.testing.assert_array_equal(read_samples(str(tmp_path / "x.npz"), 3).images, IMAGES)


def test_rows_are_drawn_in_a_graph_in_any_order_and_with_repetitions(write):
    examples, rows = read_samples(write(), 3), [7, 0, 11, 7, 3]
    gather = tf.function(lambda rows: examples.gather(rows))
    for dtype in (tf.int32, tf.int64):
        images, labels = gather(tf.constant(rows, dtype))
        assert (images.dtype, labels.dtype) == (tf.uint8, tf.int32)
        np.testing.assert_array_equal(images, IMAGES[rows])
        np.testing.assert_array_equal(labels, LABELS[rows])
    assert gather.get_concrete_function(tf.TensorSpec([5], tf.int32)).output_shapes[0] == (5, 4, 6, 3)


def test_batches_of_a_training_split_are_those_of_images_in_memory(write):
    examples = read_samples(write(), 3)
    in_memory = examples.select(np.arange(12))
    assert not isinstance(in_memory.images.base, np.memmap)
    options = dict(first_step=1, steps=6, seed=3, rows=range(1, 4))
    for one, other in zip(examples.raw_batches(5, **options), in_memory.raw_batches(5, **options)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_file_larger_than_the_memory_that_it_may_take_is_drawn_from(tmp_path):
    # 64 MB, of which a process with 1 MB more than it has can draw; a sparse file, so nothing of it is written.
    path, side = str(tmp_path / "large.npz"), 64
    count = 2**26 // (side * side * 4)
    chunks = (np.full([1, side, side, 4], index % 256, np.uint8) for index in range(count))
    write_sample_file(path, chunks, np.zeros(count, np.int32), (side, side, 4))
    examples = read_samples(path, 1)
    before = _private_memory()
    images, _ = examples.gather(tf.constant([count - 1, 5, 300]))
    np.testing.assert_array_equal(images[:, 0, 0, 0], [(count - 1) % 256, 5, 300 % 256])
    assert _private_memory() - before < 2**24


def _private_memory():
    """Bytes of this process that are no file's."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def test_what_was_written_in_chunks_is_read_by_numpy_too(tmp_path):
    path = str(tmp_path / "x.npz")
    write_sample_file(path, iter([IMAGES[:5], IMAGES[5:]]), LABELS.astype(np.int32), (4, 6, 3))
    with np.load(path) as file:
        np.testing.assert_array_equal(file["images"], IMAGES)
        np.testing.assert_array_equal(file["labels"], LABELS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_chunks_stream_compressed_files_too(write, save):
    file = SampleFile(write(save))
    assert file.compressed == (save is np.savez_compressed)
    chunks = list(file.chunks(5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(chunks), IMAGES)


def test_compressed_images_are_answered_by_the_command_that_unpacks_them(write):
    path = write(np.savez_compressed)
    with pytest.raises(ValueError, match=rf"compressed.*prepare --samples={path} --out=FILE.npz") as error:
        read_samples(path, 3)
    assert "\n" not in str(error.value)


def test_missing_labels_are_answered_by_the_command_that_finds_them(write):
    path = write(image=IMAGES)
    with pytest.raises(ValueError, match=rf"no labels: .*prepare --samples={path} --classifier=EXPORT"):
        read_samples(path, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named_with_its_size(write, share):
    path = write()
    data = open(path, "rb").read()
    open(path, "wb").write(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=f"cut short or damaged, with {int(share * len(data)):,} bytes: fetch it"):
        read_samples(path, 3)


def test_damage_within_the_images_is_found_where_all_of_them_are_read(write):
    path = write()
    data = bytearray(open(path, "rb").read())
    data[data.index(IMAGES.tobytes()) + 100] ^= 1
    open(path, "wb").write(data)
    with pytest.raises(ValueError, match="cut short or damaged"):
        list(SampleFile(path).chunks(5))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"label": LABELS}, "can't be read"),
        ({"image": IMAGES.astype(np.float32), "label": LABELS}, "images must be uint8 .* got float32"),
        ({"image": np.asfortranarray(IMAGES), "label": LABELS}, "can't be read"),
        ({"image": IMAGES, "label": LABELS + 1}, "labels are from 1 to 3, the data has the classes 0 to 2"),
        ({"image": IMAGES, "label": LABELS - 1}, "labels are from -1 to 1, classes count from 0"),
        ({"image": IMAGES, "label": LABELS / 2}, "labels must be integers .* got float64"),
        ({"image": IMAGES, "label": LABELS[:5]}, r"labels must be integers of shape \[12\]"),
        ({"image": IMAGES, "label": np.array([{}] * 12)}, "can't be read"),
    ],
)
def test_other_files_are_refused_in_one_line(write, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        read_samples(write(**arrays), 3)
    assert "\n" not in str(error.value)
