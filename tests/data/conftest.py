"""What the tests of data share: image records written on the spot."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.sources import dataset_manifest as _manifest


def record(encoded, label, name=b""):
    """A serialized record."""
    features = {
        _manifest.ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        _manifest.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        _manifest.SOURCE_NAME: tf.train.Feature(bytes_list=tf.train.BytesList(value=[name])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def write_records(tmp_path):
    """Writes splits of (encoded image, label) to shards and their manifest; returns the folder.

    A split is a list of pairs, or of serialized records where they are to be bad; these count for class 0.
    """

    def write(image_size, num_classes, shards=3, **splits):
        folder = tmp_path / "records"
        folder.mkdir()
        described = {}
        for split, items in splits.items():
            written = []
            for number in range(shards):
                path = folder / f"{split}-{number:05d}-of-{shards:05d}.tfrecord"
                with tf.io.TFRecordWriter(str(path)) as writer:
                    part = list(enumerate(items))[number::shards]
                    for index, item in part:
                        whole = isinstance(item, bytes)
                        writer.write(item if whole else record(*item, f"{split}/{index}.jpg".encode()))
                written.append(_manifest.Shard(path.name, len(part), path.stat().st_size, file_checksum(path)))
            labels = [0 if isinstance(item, bytes) else item[1] for item in items]
            counts = np.bincount(np.array(labels, int), minlength=num_classes).tolist()
            described[split] = _manifest.Split(tuple(written), tuple(counts))
        names = tuple(f"n{label:08d}" for label in range(num_classes))
        text = _manifest.DatasetManifest(image_size, names, described, {}).to_json()
        (folder / _manifest.FILE_NAME).write_text(text)
        return folder

    return write
