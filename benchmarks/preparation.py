"""Measures `writing.py` against a bare loop: `python benchmarks/preparation.py --source=/data/imagenet`.

The bare loop opens, decodes, cuts, resizes and encodes the same files with Pillow in as many processes, and throws the
result away: no hashing, no checks, no order, no records. Both run in turn, each with new processes every time, and who
begins changes; ratios are taken round by round.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pathlib
import resource
import tempfile
import time

import numpy as np
import PIL.Image
from absl import flags

from robgan_tf import command_line
from robgan_tf.data.files import write_json
from robgan_tf.data.preparation import writing
from robgan_tf.data.preparation.sources import Folder
from robgan_tf.data.sources import pillow_images
from robgan_tf.run.machine import machine
from robgan_tf.run.provenance import provenance

FLAGS = flags.FLAGS
REQUIRED = 0.8


def bare(job: tuple[str, int]) -> int:
    path, size = job
    with PIL.Image.open(path) as image:
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), pillow_images.Filter.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.tell()


def bare_loop(jobs: list[tuple[str, int]]) -> None:
    with multiprocessing.get_context("spawn").Pool(FLAGS.processes) as pool:
        for _ in pool.imap_unordered(bare, jobs, chunksize=32):
            pass


def prepare(settings: writing.Settings) -> None:
    with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as folder:
        source = Folder(FLAGS.source)
        writing.prepare(source, pathlib.Path(folder) / "out", settings, FLAGS.processes)


def cpu_time() -> float:
    """Seconds of all processes that ended so far and of this one: says more than the clock where others are at work."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def benchmark():
    import tensorflow  # noqa: F401  (3 s that don't depend on the number of images)

    settings = writing.Settings(FLAGS.image_size, "all", min_side=0, validation_per_class=0)
    source = command_line.or_fail(lambda: Folder(FLAGS.source))
    images = [image for split in ("train", "test") for image in source.images(split, source.classes, None)]
    jobs = [(image.path, FLAGS.image_size) for image in images]
    functions = {"bare": lambda: bare_loop(jobs), "prepare": lambda: prepare(settings)}
    seconds, cpu_seconds = ({name: [] for name in functions} for _ in range(2))
    for round_number in range(-1, FLAGS.repetitions):  # the first one fills the cache of files, and does not count
        for name in list(functions)[:: 1 if round_number % 2 else -1]:
            start, cpu_start = time.perf_counter(), cpu_time()
            functions[name]()
            if round_number >= 0:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(cpu_time() - cpu_start)
    ratios = np.array(seconds["bare"]) / seconds["prepare"]
    low, median, high = np.percentile(ratios, [25, 50, 75]).tolist()
    cpu_ratio = float(np.median(np.array(cpu_seconds["bare"]) / cpu_seconds["prepare"]))
    report = {
        "images": len(jobs),
        "source_bytes": sum(image.size for image in images),
        "image_size": FLAGS.image_size,
        "processes": FLAGS.processes,
        "load_average": os.getloadavg()[0],
        "pillow": PIL.__version__,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "images_per_second": {name: len(jobs) / float(np.median(values)) for name, values in seconds.items()},
        "throughput_of_bare": {"values": ratios.tolist(), "median": median, "quartiles": [low, high]},
        "cpu_ratio": cpu_ratio,
        "required": REQUIRED,
    }
    rates = ", ".join(f"{name} {rate:.0f} images/s" for name, rate in report["images_per_second"].items())
    print(f"{rates}; prepare / bare {median:.3f} ({low:.3f} .. {high:.3f})", end=" ")
    print(f"(by CPU time {cpu_ratio:.3f}) {'ok' if median >= REQUIRED else 'MISSED'}: at least {REQUIRED}")
    if FLAGS.out:
        write_json(pathlib.Path(FLAGS.out), {**report, "machine": machine(), **provenance()})


def define_flags(values):
    flags.DEFINE_string(
        "source", None, "Folder with train/<class>/* and val/<class>/*.", required=True, flag_values=values
    )
    flags.DEFINE_integer("image_size", 64, "Side of the written images, in pixels.", lower_bound=8, flag_values=values)
    flags.DEFINE_integer("processes", os.cpu_count(), "Worker processes of both.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("repetitions", 7, "Rounds that count.", lower_bound=1, flag_values=values)
    flags.DEFINE_string(
        "scratch", None, "Where the records are written for a moment; the system's if not given.", flag_values=values
    )
    flags.DEFINE_string("out", None, "JSON file for all figures.", flag_values=values)


if __name__ == "__main__":
    command_line.main(benchmark, define_flags)
