"""Measures the reader of image records: `python benchmarks/reader.py --data_dir=/data/imagenet143_128`.

Throughput against bare loops without shuffling, checks, batches by step or resuming; memory over a long run; what
resuming in the middle of a pass costs. What is compared runs in one process in turn, a new iterator each time, and who
begins changes; ratios are taken round by round, also those of CPU time, which say more where others are at work.
"""

from __future__ import annotations

import os
import pathlib
import platform
import time
from collections.abc import Iterator

import numpy as np
from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.batches import training_batches
from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.files import write_json
from robgan_tf.data.sources import dataset_manifest
from robgan_tf.data.sources.record_stream import Records
from robgan_tf.data.sources.records import tfrecord_images
from robgan_tf.run.machine import cores, machine
from robgan_tf.run.provenance import provenance

FLAGS = flags.FLAGS
AUGMENT = (preprocessing.random_flip, preprocessing.random_resized_crop)
NOISE = 1 / 128
REQUIRED_RATE, REQUIRED_RATIO = 1200, 0.7


def parsed(train: Records) -> tf.data.Dataset:
    features = {dataset_manifest.ENCODED: tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset(list(train.paths)).repeat()
    return records.map(lambda record: tf.io.parse_single_example(record, features)[dataset_manifest.ENCODED])


def bare(train: Records) -> tf.data.Dataset:
    """Images, decoded in parallel, in stored order."""
    images = parsed(train).map(lambda encoded: tf.io.decode_jpeg(encoded, channels=3), tf.data.AUTOTUNE)
    return images.batch(FLAGS.batch).prefetch(2)


def bare_augmented(train: Records) -> tf.data.Dataset:
    """What a short script would do: the same with the augmentations of whole batches."""
    seed, shape = tf.constant([0, 0, 0], tf.int64), [FLAGS.batch, *train.image_shape]

    def augment(images):
        images = tf.ensure_shape(images, shape)
        for function in AUGMENT:
            images = function(images, seed)
        return preprocessing.dequantise(preprocessing.to_pixel_range(images), seed, NOISE)

    images = parsed(train).map(lambda encoded: tf.io.decode_jpeg(encoded, channels=3), tf.data.AUTOTUNE)
    return images.batch(FLAGS.batch, drop_remainder=True).map(augment, tf.data.AUTOTUNE).prefetch(2)


def fused_crop(train: Records, fused: bool) -> tf.data.Dataset:
    """A random window of each image, enlarged: cut while decoding, or from the decoded batch as the reader does."""
    size, seed = train.image_size, tf.constant([0, 0, 0], tf.int64)

    def cut(number, encoded):
        area, vertical, horizontal = tf.unstack(
            preprocessing.uniform(preprocessing.row_seed(seed[:2], number), [1, 3])[0]
        )
        side = tf.cast(tf.round(size * tf.sqrt(0.8 + 0.1 * area)), tf.int32)
        room = tf.cast(size - side + 1, tf.float32)
        window = [tf.cast(vertical * room, tf.int32), tf.cast(horizontal * room, tf.int32), side, side]
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(tf.image.resize(image, [size, size]), train.image_shape)

    def decode(encoded):
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, train.image_shape)

    if fused:
        return parsed(train).enumerate().map(cut, tf.data.AUTOTUNE).batch(32).prefetch(2)
    images = parsed(train).map(decode, tf.data.AUTOTUNE).batch(32, drop_remainder=True)
    return images.map(lambda batch: AUGMENT[1](batch, seed), tf.data.AUTOTUNE).prefetch(2)


def batches(train: Records, **settings) -> tf.data.Dataset:
    return training_batches(train, FLAGS.batch, steps=10**9, seed=0, **settings)


def consume(iterator: Iterator, images: int) -> int:
    """Takes at least so many images; returns how many they were."""
    taken = 0
    while taken < images:
        batch = next(iterator)
        taken += len(batch[1] if isinstance(batch, tuple) else batch)
    return taken


def throughput(train: Records) -> tuple[dict, dict]:
    """Images per second, and per second of CPU time, of all contestants; and the ratios of some."""
    datasets = {
        "bare": bare(train),
        "reader": batches(train),
        "bare, flip, crop, noise": bare_augmented(train),
        "reader, flip, crop, noise": batches(train, augment=AUGMENT, noise=NOISE),
        "crop of the decoded batch": fused_crop(train, fused=False),
        "crop while decoding": fused_crop(train, fused=True),
    }
    rates, cpu_rates = ({name: [] for name in datasets} for _ in range(2))
    for round_number in range(-1, FLAGS.repetitions):  # the first one fills the cache of files, and does not count
        turn = round_number % len(datasets)
        for name in [*datasets][turn:] + [*datasets][:turn]:
            iterator = iter(datasets[name])
            consume(iterator, 5 * FLAGS.batch)  # shuffle buffer, threads, batches ahead
            start, cpu_start = time.perf_counter(), time.process_time()
            taken = consume(iterator, FLAGS.images)
            if round_number >= 0:
                rates[name].append(taken / (time.perf_counter() - start))
                cpu_rates[name].append(taken / (time.process_time() - cpu_start))
            del iterator
    series = {}
    for name in datasets:
        required = REQUIRED_RATE if name.startswith("reader") else None
        series[f"{name}, images/s"] = summary(rates[name], required)
        series[f"{name}, images per CPU second"] = summary(cpu_rates[name])
    ratios = {}
    for name, one, other, required in (
        ("reader / bare", "reader", "bare", REQUIRED_RATIO),
        ("the same, both augmented", "reader, flip, crop, noise", "bare, flip, crop, noise", REQUIRED_RATIO),
        ("reader augmented / bare decoding", "reader, flip, crop, noise", "bare", None),
        ("crop while decoding / of the decoded batch", "crop while decoding", "crop of the decoded batch", None),
    ):
        ratios[name] = summary(np.divide(rates[one], rates[other]), required)
        ratios[f"{name}, by CPU time"] = summary(np.divide(cpu_rates[one], cpu_rates[other]))
    return series, ratios


def summary(values, required: float | None = None) -> dict:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": median, "quartiles": [low, high], "at_least": required, "values": np.asarray(values).tolist()}


def memory(train: Records) -> dict:
    """Resident memory while `--memory_images` are read, and its slope after the first fifth."""
    iterator = iter(batches(train, augment=AUGMENT, noise=NOISE))
    before, taken, samples = resident(), 0, []
    while taken < FLAGS.memory_images:
        taken += consume(iterator, 1000)
        samples.append((taken, resident()))
    images, mib = np.array(samples, float).T
    late = images > FLAGS.memory_images / 5
    slope = float(np.polyfit(images[late], mib[late], 1)[0]) * 10000
    return {
        "images": taken,
        "before_mib": before,
        "median_mib": float(np.median(mib[late])),
        "peak_mib": float(mib.max()),
        "slope_mib_per_10000_images": slope,
        "samples": samples,
    }


def resident() -> float:
    """MiB of this process's memory."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def skipping(train: Records) -> dict:
    """Seconds until the first batch, from the beginning and from the middle of a pass."""
    middle = len(train) // 2 // FLAGS.batch
    steps = {"beginning": 0, "middle": middle}
    seconds = {name: [] for name in steps}
    for round_number in range(-1, FLAGS.repetitions):
        for name in list(steps)[:: 1 if round_number % 2 else -1]:
            start = time.perf_counter()
            next(iter(batches(train, first_step=steps[name])))
            if round_number >= 0:
                seconds[name].append(time.perf_counter() - start)
    skipped = middle * FLAGS.batch
    extra = np.subtract(seconds["middle"], seconds["beginning"])
    return {
        "records_skipped": skipped,
        **{f"first batch from the {name}, s": summary(values) for name, values in seconds.items()},
        "skipping, s": summary(extra),
        "microseconds_per_record": float(np.median(extra)) / max(skipped, 1) * 1e6,
    }


def repeated(source: pathlib.Path, out: pathlib.Path, records: int) -> None:
    """Writes records out of an image folder whose images all have one size, each as often as it takes."""
    names = sorted(path.name for path in (source / "train").iterdir())
    files = [(path, names.index(path.parent.name)) for path in sorted((source / "train").glob("*/*.jpg"))]
    if not files:
        command_line.fail(f"--source={source} holds no train/<class>/*.jpg")
    size = tf.io.extract_jpeg_shape(files[0][0].read_bytes())[0].numpy().item()
    splits, random = {}, np.random.default_rng(0)
    for split, count, shards in (("train", records, 16), ("test", len(names), 1)):
        chosen = [files[i] for i in random.permutation(np.resize(np.arange(len(files)), count))]
        written = []
        for shard in range(shards):
            path = out / f"{split}-{shard:05d}-of-{shards:05d}.tfrecord"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for file, label in chosen[shard::shards]:
                    writer.write(serialized(file, label))
            number = len(chosen[shard::shards])
            written.append(dataset_manifest.Shard(path.name, number, path.stat().st_size, file_checksum(path)))
        counts = np.bincount([label for _, label in chosen], minlength=len(names)).tolist()
        splits[split] = dataset_manifest.Split(tuple(written), tuple(counts))
    (out / dataset_manifest.FILE_NAME).write_text(
        dataset_manifest.DatasetManifest(size, tuple(names), splits, {}).to_json()
    )


def serialized(file: pathlib.Path, label: int) -> bytes:
    feature = {
        dataset_manifest.ENCODED: tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()])),
        dataset_manifest.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        dataset_manifest.SOURCE_NAME: tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.name.encode()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def benchmark():
    out = pathlib.Path(FLAGS.data_dir).expanduser()
    if FLAGS.source and not (out / dataset_manifest.FILE_NAME).exists():
        out.mkdir(parents=True, exist_ok=True)
        repeated(pathlib.Path(FLAGS.source).expanduser(), out, FLAGS.records)
    start = time.perf_counter()
    train = command_line.or_fail(lambda: tfrecord_images(str(out))).train
    opening = time.perf_counter() - start
    report = {
        "records": len(train),
        "bytes": sum(os.path.getsize(path) for path in train.paths),
        "image_size": train.image_size,
        "batch": FLAGS.batch,
        "cores": cores(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "opening_s": opening,
    }
    report["throughput"], report["ratios"] = throughput(train)
    for name, one in {**report["throughput"], **report["ratios"]}.items():
        low, high = one["quartiles"]
        digits = 2 if one["median"] < 10 else 0
        verdict = "" if one["at_least"] is None else "ok" if one["median"] >= one["at_least"] else "MISSED"
        verdict = verdict and f"{verdict}: at least {one['at_least']}"
        print(f"{name:<56} {one['median']:>8.{digits}f} ({low:.{digits}f} .. {high:.{digits}f}) {verdict}", flush=True)
    report["resuming"] = skipping(train)
    print(
        f"resuming: {report['resuming']['records_skipped']} records skipped in "
        f"{report['resuming']['skipping, s']['median']:.2f} s, "
        f"{report['resuming']['microseconds_per_record']:.1f} microseconds each"
    )
    report["memory"] = memory(train)
    print(
        f"memory over {report['memory']['images']} images: {report['memory']['median_mib']:.0f} MiB, "
        f"peak {report['memory']['peak_mib']:.0f}, "
        f"slope {report['memory']['slope_mib_per_10000_images']:+.1f} MiB per 10,000 images"
    )
    report["load_average_after"] = os.getloadavg()[0]
    if FLAGS.out:
        write_json(pathlib.Path(FLAGS.out), {**report, "machine": machine(), **provenance()})


def define_flags(values):
    flags.DEFINE_string(
        "data_dir", None, "Folder of records, as robgan_tf.prepare makes it.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "source", None, "Image folder to fill data_dir from where it holds no records yet.", flag_values=values
    )
    flags.DEFINE_integer(
        "records", 12000, "Training records made of --source, by repetition.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer("batch", 320, "Images of a training step.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("images", 5000, "Images of a repetition.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("repetitions", 7, "Rounds that count.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "memory_images", 50000, "Images over which memory is watched.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("out", None, "JSON file for all figures.", flag_values=values)


if __name__ == "__main__":
    command_line.main(benchmark, define_flags)
