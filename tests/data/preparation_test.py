"""Preparation of records, on small folders made here; the slow tests on real photographs in `data_dir`."""

import fcntl
import functools
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data.files import clear_unfinished
from robgan_tf.data.preparation import classes, sources, writing
from robgan_tf.data.preparation.report import compared_with_sngan, report
from robgan_tf.data.sources import pillow_images
from robgan_tf.data.sources.dataset_manifest import DatasetManifest
from robgan_tf.data.sources.digits import prepared_digits

CLASSES = ("n01", "n02", "n03")


def jpeg(seed, width=24, height=20):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def source(tmp_path):
    """Three classes with 12, 13 and 14 images in train/ and 4 in val/, all different."""
    for label, name in enumerate(CLASSES):
        for number in range(12 + label):
            write(tmp_path / "source/train" / name / f"{number}.JPEG", jpeg((label, number), 20 + number))
        for number in range(4):
            write(tmp_path / "source/val" / name / f"v{number}.JPEG", jpeg((label, number, 1)))
    return tmp_path / "source"


def prepare(source, out, processes=1, max_corrupt_share=0.001, **settings):
    settings = {"image_size": 16, "classes": "all", "min_side": 0, "validation_per_class": 2, "shards": 4, **settings}
    settings = writing.Settings(**settings)
    return writing.prepare(sources.Folder(source), out, settings, processes, max_corrupt_share)


def read(out, split):
    """(name, label, JPEG) of all records of a split, in stored order."""
    manifest, records = DatasetManifest.read(out), []
    for shard in manifest.splits[split].shards:
        before = len(records)
        for record in tf.data.TFRecordDataset(str(out / shard.name)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            assert sorted(features) == ["image/encoded", "image/filename", "image/label"]
            name = features["image/filename"].bytes_list.value[0].decode()
            encoded = features["image/encoded"].bytes_list.value[0]
            records.append((name, features["image/label"].int64_list.value[0], encoded))
        assert len(records) - before == shard.examples
    return records


def contents(folder):
    """All files of a folder, hidden ones too, with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


# ---- what is written


def test_every_image_is_in_one_split_with_its_label_and_its_pixels(source, tmp_path):
    manifest = prepare(source, tmp_path / "out")
    splits = {split: read(tmp_path / "out", split) for split in ("train", "validation", "test")}
    names = sorted(name for records in splits.values() for name, _, _ in records)
    assert names == sorted(f"{path.relative_to(source)}" for path in source.rglob("*.JPEG"))
    for split, records in splits.items():
        for name, label, encoded in records:
            assert name.split("/")[0] == ("val" if split == "test" else "train")
            assert CLASSES[label] == name.split("/")[1]
            with PIL.Image.open(source / name) as image:
                expected = io.BytesIO()
                square = pillow_images.centre_square(image, 16, PIL.Image.Resampling.LANCZOS)
                square.save(expected, "JPEG", quality=95, subsampling=0)
            assert encoded == expected.getvalue()
        assert tuple(np.bincount([label for _, label, _ in records])) == manifest.splits[split].class_counts
    assert manifest.splits["validation"].class_counts == (2, 2, 2)
    assert manifest.splits["train"].class_counts == (10, 11, 12)
    assert manifest.splits["test"].class_counts == (4, 4, 4)
    assert manifest.class_names == CLASSES and manifest.image_size == 16
    assert manifest == DatasetManifest.read(tmp_path / "out")
    assert manifest.damaged_shards(tmp_path / "out", checksums=True) == []


def test_shards_mix_the_classes_and_nothing_but_shards_and_manifest_is_left(source, tmp_path):
    manifest = prepare(source, tmp_path / "out")
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    assert [shard.name for shard in manifest.splits["train"].shards] == [
        f"train-{number:05d}-of-00004.tfrecord" for number in range(4)
    ]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["manifest.json", *(shard.name for shard in shards)])
    assert {shard.examples for shard in manifest.splits["train"].shards} == {8, 9}
    labels = [label for _, label, _ in read(tmp_path / "out", "train")]
    assert all(len(set(labels[start : start + 8])) == 3 for start in (0, 8, 16, 24))


def test_the_bytes_depend_on_source_and_settings_alone(source, tmp_path):
    prepare(source, tmp_path / "one", processes=1)
    shutil.copytree(source, tmp_path / "moved" / "source")
    prepare(tmp_path / "moved" / "source", tmp_path / "two", processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    prepare(source, tmp_path / "other", seed=1)
    orders = [[name for name, _, _ in read(tmp_path / folder, "train")] for folder in ("one", "other")]
    assert orders[0] != orders[1]


def test_jpegs_of_the_right_size_keep_their_bytes(data_dir, tmp_path):
    root = pathlib.Path(data_dir) / "imagewoof128"
    prepare(root, tmp_path, image_size=128, classes="n02086240,n02115641", validation_per_class=250)
    records = read(tmp_path, "train") + read(tmp_path, "test")
    assert len(records) == 200
    assert all(encoded == (root / name).read_bytes() for name, _, encoded in records)


def test_validation_can_be_left_out_and_the_number_of_shards_chosen(source, tmp_path):
    manifest = prepare(source, tmp_path / "out", validation_per_class=0, shards=0)
    assert set(manifest.splits) == {"train", "test"} and manifest.splits["train"].examples == 39
    assert len(manifest.splits["train"].shards) == 16
    many = prepare(source, tmp_path / "many", validation_per_class=0, shards=1000)
    assert {shard.examples for shard in many.splits["train"].shards} == {1}


def test_a_seed_chooses_the_validation_images_and_no_split_overlaps(source, tmp_path):
    chosen = []
    for seed in (0, 1):
        prepare(source, tmp_path / str(seed), seed=seed)
        train, validation = (
            {name for name, _, _ in read(tmp_path / str(seed), split)} for split in ("train", "validation")
        )
        assert len(train) == 33 and len(validation) == 6 and not train & validation
        chosen.append(validation)
    assert chosen[0] != chosen[1]


def test_broken_tiny_and_small_images_are_left_out_and_listed(source, tmp_path):
    write(source / "train/n01/0.JPEG", (source / "train/n01/0.JPEG").read_bytes()[:-90])
    write(source / "train/n01/1.JPEG", b"nothing")
    write(source / "train/n02/3.JPEG", b"")
    write(source / "train/n03/5.JPEG", jpeg(0, 1, 1))
    write(source / "val/n03/v1.JPEG", jpeg(0, 15, 100))
    with pytest.raises(ValueError, match=r"4 images \(of 51\) can't be decoded, over --max_corrupt_share=0.05: train"):
        prepare(source, tmp_path / "out", min_side=16, validation_per_class=0, max_corrupt_share=0.05)
    assert not (tmp_path / "out/manifest.json").exists()
    manifest = prepare(source, tmp_path / "out", min_side=16, validation_per_class=0, max_corrupt_share=0.08)
    train, test = manifest.splits["train"], manifest.splits["test"]
    reasons = {name: reason.rstrip(")") for name, _, reason in (entry.partition(" (") for entry in train.corrupt)}
    assert set(reasons) == {"train/n01/0.JPEG", "train/n01/1.JPEG", "train/n02/3.JPEG", "train/n03/5.JPEG"}
    assert reasons["train/n01/1.JPEG"] == reasons["train/n02/3.JPEG"] == "it is no image"
    assert reasons["train/n03/5.JPEG"] == "it has 1x1 pixels" and "truncated" in reasons["train/n01/0.JPEG"]
    assert (train.class_counts, train.too_small) == ((10, 12, 13), 0)
    assert (test.class_counts, test.too_small, test.corrupt) == ((4, 4, 3), 1, ())
    table = report(manifest)
    assert "train/n01/0.JPEG" in table and "and 1 more" in table


def test_equal_files_in_two_splits_are_reported(source, tmp_path):
    shutil.copy(source / "train/n01/3.JPEG", source / "val/n02/copy.JPEG")
    shutil.copy(source / "train/n01/3.JPEG", source / "train/n02/twin.JPEG")  # within a split: not reported
    manifest = prepare(source, tmp_path / "out", validation_per_class=0)
    assert manifest.duplicates == (("train/n01/3.JPEG", "val/n02/copy.JPEG"),)
    assert "the same file stands in two splits 1 times: train/n01/3.JPEG = val/n02/copy.JPEG" in (report(manifest))
    for number in range(12):
        write(source / f"train/n01/{number}.JPEG", jpeg(0))
    manifest = prepare(source, tmp_path / "again")  # whichever are chosen, train and validation share n01's only image
    assert all(name.startswith("train/n01/") for name in manifest.duplicates[0])


def test_a_tfds_set_gives_every_example_with_its_label_and_pixels(tmp_path):
    builder = prepared_digits(str(tmp_path / "tfds"))
    source = sources.TfdsSet("digits", str(tmp_path / "tfds"))
    settings = writing.Settings(image_size=8, classes="2:4", min_side=0, quality=100, validation_per_class=5)
    manifest = writing.prepare(source, tmp_path / "out", settings, 1)
    assert manifest.class_names == ("2", "3", "4") and manifest.settings["source"] == "digits/1.0.0"
    for splits, split in ((("train", "validation"), "train"), (("test",), "test")):
        stored = {}
        for name in splits:
            stored.update((record[0], record[1:]) for record in read(tmp_path / "out", name))
        file = builder.info.splits[split].filenames
        expected = {
            f"{next(iter(file))}__{position}": (example["label"], example["image"])
            for position, example in enumerate(builder.as_dataset(split=split).as_numpy_iterator())
            if example["label"] in (2, 3, 4)
        }
        assert set(stored) == set(expected) and len(stored) > 100
        for name, (label, encoded) in stored.items():
            assert label == expected[name][0] - 2
            decoded = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
            assert np.abs(decoded.numpy().astype(int) - expected[name][1]).max() <= 4


# ---- stops and starts


@pytest.fixture
def stopped(source, tmp_path):
    """A preparation that ended at its last shard, in which an image is corrupt; `max_corrupt_share=1` lets it pass."""
    write(source / "val/n03/v1.JPEG", b"nothing")
    with pytest.raises(ValueError, match="1 images .* can't be decoded"):
        prepare(source, tmp_path / "out", max_corrupt_share=0)
    assert not (tmp_path / "out/manifest.json").exists()
    return tmp_path / "out"


def test_only_what_is_missing_or_damaged_is_written_again(source, stopped, tmp_path, capsys):
    prepare(source, tmp_path / "undisturbed", max_corrupt_share=1)
    flipped, missing, unnoted, torn, *whole = sorted(stopped.glob("*.tfrecord"))
    assert len(whole) == 2
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"!")
    missing.unlink()
    (stopped / f".progress/{unnoted.name}.json").unlink()
    write(stopped / f".progress/{torn.name}.json", b'{"shard": {"name":')
    write(stopped / f".progress/.7.partial.{flipped.name}", b"half")
    times = {path: path.stat().st_mtime_ns for path in whole}
    prepare(source, stopped, max_corrupt_share=1)
    assert "2 of 6 shards are there already" in capsys.readouterr().out
    assert contents(stopped) == contents(tmp_path / "undisturbed")
    assert times == {path: path.stat().st_mtime_ns for path in whole}


def test_a_finished_folder_is_left_alone(source, tmp_path, capsys):
    out = tmp_path / "out"
    manifest = prepare(source, out)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    (out / ".progress").mkdir()  # as after a stop between the manifest and the end
    assert prepare(source, out) == manifest
    assert f"{out} is finished already" in capsys.readouterr().out
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    os.truncate(out / "test-00000-of-00001.tfrecord", 5)
    with pytest.raises(ValueError, match="is finished but damaged: test-00000-of-00001.tfrecord has 5 bytes"):
        prepare(source, out)


@pytest.mark.parametrize(
    "change, settings, message",
    [
        (None, {"quality": 90}, "quality was 95 and is now 90"),
        (None, {"image_size": 17, "seed": 3}, "image_size was 16 and is now 17; seed was 0 and is now 3"),
        (
            None,
            {"classes": "n01,n03"},
            r"train.files was 39 and is now 26.*; classes\[1\] was n02 and is now n03",
        ),
        (lambda f: write(f / "val/n02/more.png", jpeg(5)), {}, "listing.test.files was 12 and is now 13"),
        (lambda f: write(f / "val/n02/v1.JPEG", b"12345"), {}, "listing.test.bytes was"),
        (lambda f: (f / "val/n02/v1.JPEG").rename(f / "val/n02/w.JPEG"), {}, "listing.test.sha256 was"),
        (lambda f: f.rename(f.parent / "renamed"), {}, "source was source and is now renamed"),
    ],
)
def test_another_source_or_other_settings_are_refused_and_named(source, stopped, change, settings, message):
    before = contents(stopped)
    if change:
        change(source)
    source = source if source.exists() else source.parent / "renamed"
    with pytest.raises(ValueError, match=message) as caught:
        prepare(source, stopped, **{"max_corrupt_share": 1, **settings})
    assert "give the same source and settings, or another --out" in str(caught.value)
    assert contents(stopped) == before


def test_other_settings_are_refused_when_the_folder_is_finished_too(source, tmp_path):
    prepare(source, tmp_path / "out")
    with pytest.raises(ValueError, match="filter was lanczos and is now box"):
        prepare(source, tmp_path / "out", filter="box")


def test_damaged_notes_are_named(source, stopped):
    write(stopped / ".progress/settings.json", b"")
    with pytest.raises(ValueError, match="settings.json is damaged; remove .*/out and start anew"):
        prepare(source, stopped)


def test_a_second_process_is_refused_as_long_as_one_is_at_work(source, stopped):
    with open(stopped / ".progress/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing to .*/out at this moment"):
            prepare(source, stopped, max_corrupt_share=1)
    prepare(source, stopped, max_corrupt_share=1)


def test_no_space_on_the_way_is_said_in_one_line_and_finished_shards_stay(source, stopped, monkeypatch):
    first, second, *_ = sorted(stopped.glob("*.tfrecord"))
    second.unlink()

    def then_fill_the_disk(folder):
        clear_unfinished(folder)
        # What is written next goes to a device that is always full.
        (folder / f".{os.getpid()}.partial.{second.name}").symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "clear_unfinished", then_fill_the_disk)
        with pytest.raises(ValueError, match=f"^no space is left for {stopped}; make room"):
            prepare(source, stopped, max_corrupt_share=1)
    assert first.exists() and not list(stopped.rglob("*.partial*")) and not (stopped / "manifest.json").exists()
    assert len(prepare(source, stopped, max_corrupt_share=1).splits) == 3


def test_a_source_that_changes_in_the_meantime_is_noticed(source, tmp_path):
    listed = sources.Folder(str(source))
    listed.listing("train", CLASSES)
    os.truncate(source / "train/n02/2.JPEG", 9)
    settings = writing.Settings(16, "all", min_side=0, validation_per_class=0)
    with pytest.raises(ValueError, match="train/n02/2.JPEG was changed in the meantime"):
        writing.prepare(listed, tmp_path / "out", settings, 1)


# ---- what is refused


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def flat_validation(folder):
    shutil.rmtree(folder / "val")
    write(folder / "val/ILSVRC2012_val_00000001.JPEG", jpeg(0))


def no_image(folder):
    for path in (folder / "train/n02").iterdir():
        path.rename(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    "damage, settings, message",
    [
        (rename("train", "other"), {}, "there is no folder .*source/train; expected .*train/<class>/ with images"),
        (rename("val", "other"), {}, "there is no folder .*source/val; expected .*val/<class>/ with images"),
        (
            rename("val/n02", "val/n05"),
            {},
            "classes differ .* only in train: none; only in val: n05; make",
        ),
        (
            lambda f: shutil.rmtree(f / "val/n02"),
            {},
            "only in train: n02; only in val: none; make",
        ),
        (flat_validation, {}, "val holds images, but no class folders; sort the images into .*val/<class>/"),
        (
            no_image,
            {},
            "no images in .*n02 .there: train/n02/.*txt, .* and 10 more.; expected files ending in",
        ),
        (
            None,
            {"classes": "151:293"},
            "151:293 does not fit: the source has 3 classes, 0:2 .ImageNet has 1000",
        ),
        (None, {"classes": "2:1"}, "--classes=2:1 does not fit"),
        (None, {"classes": "n01,n07"}, "the source has no class n07; did you mean n0"),
        (None, {"classes": "n01,n01"}, "names n01 twice"),
        (None, {"classes": ","}, "names no class"),
        (None, {"classes": "@/no/such"}, "--classes: can't read /no/such"),
        (None, {"class_names": "/no/such"}, "--class_names: can't read /no/such"),
        (None, {"validation_per_class": 12}, "leaves nothing to train on of n01 .the smallest class has 12 images"),
        (None, {"image_size": 10**6}, "needs about .* GiB, and .* GiB are free; make room"),
    ],
)
def test_what_can_not_be_prepared_is_refused_in_one_line_and_leaves_nothing(
    source, tmp_path, damage, settings, message
):
    if damage:
        damage(source)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(source, tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_class_of_which_nothing_can_be_used_is_refused(source, tmp_path):
    for path in (source / "val/n02").iterdir():
        path.write_bytes(jpeg(0, 9, 9))
    with pytest.raises(ValueError, match="no image of n02 in test can be used"):
        prepare(source, tmp_path / "out", min_side=10)


@pytest.mark.parametrize("name", ["notes.txt", "train-00000-of-00004.tfrecord", ".hidden"])
def test_a_folder_that_holds_other_files_is_refused_and_left_alone(source, tmp_path, name):
    write(tmp_path / "out" / name, b"mine")
    with pytest.raises(ValueError, match=f"--out=.*/out holds {name}, which is not of this preparation"):
        prepare(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {name: b"mine"}


@pytest.mark.parametrize("out", ["file/out", "file"])
def test_a_folder_that_can_not_be_written_is_refused(source, tmp_path, out):
    write(tmp_path / "file", b"mine")
    with pytest.raises(ValueError, match=f"--out=.*{out} can't be written"):
        prepare(source, tmp_path / out)
    assert (tmp_path / "file").read_bytes() == b"mine"


# ---- classes and their names


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ("all", ["a", "b", "c", "d", "e"]),
        ("1:3", ["b", "c", "d"]),
        ("4:4", ["e"]),
        ("d, a", ["a", "d"]),
        ("@FILE", ["b", "e"]),
    ],
)
def test_classes_are_selected_in_the_order_of_the_source(tmp_path, wanted, expected):
    (tmp_path / "file").write_text("e\n\n b \n")
    wanted = wanted.replace("FILE", str(tmp_path / "file"))
    assert classes.select_classes(wanted, ["a", "b", "c", "d", "e"]) == expected


def test_readable_names_come_from_the_mapping_and_stay_distinct(tmp_path):
    mapping = tmp_path / "LOC_synset_mapping.txt"
    mapping.write_text("n02 tench, Tinca tinca\nn01 crane\n\nn03 crane\nn04 goldfish\n")
    names = classes.readable_names(str(mapping), ["n01", "n02", "n03"])
    assert names == ["crane (n01)", "tench, Tinca tinca", "crane (n03)"]
    with pytest.raises(ValueError, match="has no name for n07"):
        classes.readable_names(str(mapping), ["n01", "n07"])


def test_labels_and_names_follow_the_selection(source, tmp_path):
    (tmp_path / "names").write_text("n01 cat\nn02 dog\nn03 owl\n")
    manifest = prepare(source, tmp_path / "out", classes="n03,n02", class_names=str(tmp_path / "names"))
    assert manifest.class_names == ("dog", "owl") and manifest.settings["classes"] == ["n02", "n03"]
    assert all(name.split("/")[1] == ("n02", "n03")[label] for name, label, _ in read(tmp_path / "out", "train"))


def test_hidden_and_other_files_are_passed_over(source, tmp_path):
    write(source / "train/n01/.0.JPEG", b"nothing")
    write(source / "train/n01/list.txt", b"nothing")
    write(source / "train/.cache/0.JPEG", b"nothing")
    write(source / "train/n01/.thumbnails/0.JPEG", b"nothing")
    assert prepare(source, tmp_path / "out").splits["train"].class_counts == (10, 11, 12)


def test_the_count_of_imagenet_143_is_compared_with_that_of_sngan(source, tmp_path):
    line = compared_with_sngan(prepare(source, tmp_path / "out"))
    assert line == "train and validation: 39 images; SN-GAN's preparation has 180373 (-180334)"


# ---- command line


def command(*arguments):
    return [sys.executable, "-m", "robgan_tf.prepare", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def test_wrong_flags_end_with_status_2_and_one_line(source, tmp_path):
    for arguments, message in (
        ([f"--source={source}"], "error: --out is missing"),
        ([f"--out={tmp_path}/out", f"--source={source}", "--filter=nearest"], "error: flag --filter=nearest"),
        ([f"--out={source}/train/out", f"--source={source}"], "is within the images of --source"),
        ([f"--out={tmp_path}/out", f"--source={source}", "--test_split=train"], "error: --test_split=train is what"),
        ([f"--out={tmp_path}/out", "--verify"], "error: there is no"),
    ):
        answer = run(*arguments)
        assert answer.returncode == 2 and message in answer.stderr, answer.stderr
        assert answer.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_command_prepares_and_verifies(source, tmp_path):
    flags = [f"--source={source}", "--classes=all", "--min_side=0", "--image_size=16", "--validation_per_class=2"]
    flags += ["--shards=4", f"--out={tmp_path}/out"]
    answer = run(*flags, "--processes=2")
    assert answer.returncode == 0, answer.stderr
    assert "3 classes, 16 px" in answer.stdout and "51 images, about" in answer.stdout
    prepare(source, tmp_path / "same")
    assert contents(tmp_path / "out") == contents(tmp_path / "same")
    answer = run("--verify", f"--out={tmp_path}/out")
    assert (answer.returncode, answer.stderr) == (0, "") and "6 shards with 51 images" in answer.stdout
    shard = tmp_path / "out/test-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    answer = run("--verify", f"--out={tmp_path}/out")
    assert answer.returncode == 2 and f"{shard.name} has a wrong checksum" in answer.stderr


# ---- stopped from outside


@pytest.fixture
def photographs(data_dir, tmp_path):
    """Flags of a preparation of 3,500 photographs, and what it writes when nothing disturbs it."""
    flags = [f"--source={data_dir}/imagewoof128", "--classes=all", "--min_side=0", "--processes=2", "--shards=24"]
    answer = run(*flags, f"--out={tmp_path}/undisturbed")
    assert answer.returncode == 0, answer.stderr
    return flags, contents(tmp_path / "undisturbed")


def alive(group):
    """Command lines of the processes of a group, without those that only wait to be collected."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_bytes()
        except OSError:  # gone in the meantime
            continue
    return found


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_bytes(photographs, tmp_path):
    flags, expected = photographs
    random, out, written = np.random.default_rng(0), tmp_path / "out", [0]
    for _ in range(7):
        process = subprocess.Popen(
            command(*flags, f"--out={out}"),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        enough = written[-1] + random.integers(0, 6)  # counted in shards, so that a fast machine is hit on its way too
        until(lambda enough=enough: len(list(out.glob("*.tfrecord"))) >= enough or (out / "manifest.json").exists())
        time.sleep(random.uniform(0, 0.3))
        process.kill()  # this one alone: its workers have to notice
        process.wait()
        until(lambda group=process.pid: not alive(group))
        written.append(len(list(out.glob("*.tfrecord"))))
    assert len(set(written)) >= 4 and written[4] < len(expected) - 1, written
    answer = run(*flags, f"--out={out}")
    assert answer.returncode == 0, answer.stderr
    assert contents(out) == expected


@pytest.mark.slow
def test_ctrl_c_and_a_killed_worker_end_it_with_one_line_and_the_same_command_goes_on(photographs, tmp_path):
    flags, expected = photographs
    out = tmp_path / "out"

    def interrupt(group):
        os.killpg(group, signal.SIGINT)  # as a terminal does, to all processes

    def kill_a_worker(group):
        os.kill(min(pid for pid, line in alive(group).items() if b"spawn_main" in line), signal.SIGKILL)

    for stop, message in ((interrupt, "interrupted"), (kill_a_worker, "a worker process was killed")):
        shards = len(list(out.glob("*.tfrecord"))) + 2
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command(*flags, f"--out={out}"), start_new_session=True, preexec_fn=heed, **pipes)
        until(lambda shards=shards: len(list(out.glob("*.tfrecord"))) >= shards)
        stop(process.pid)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and "Traceback" not in errors, (message, errors)
        assert errors.splitlines()[-1].startswith(f"stopped: {message}")
        assert errors.endswith("; the same command goes on from there.\n")
        assert not list(out.rglob("*.partial*"))
        until(lambda group=process.pid: not alive(group))
    assert run(*flags, f"--out={out}").returncode == 0
    assert contents(out) == expected
