import dataclasses
import hashlib
import json
import os

import pytest

from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.sources.dataset_manifest import FILE_NAME, DatasetManifest, Shard, Split

CONTENT = b"0123456789" * 300000  # over 1 MiB, so that it is read in pieces


@pytest.fixture
def manifest(tmp_path):
    """Of a folder with one shard for training and one for testing."""
    shards = []
    for name in ("train-00000-of-00001.tfrecord", "test-00000-of-00001.tfrecord"):
        (tmp_path / name).write_bytes(CONTENT)
        shards.append(Shard(name, 3, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()))
    splits = {
        "train": Split((shards[0],), (1, 2), too_small=4, corrupt=("train/a/x.jpg (it is no image)",)),
        "test": Split((shards[1],), (3, 0)),
    }
    settings = {"filter": "lanczos", "classes": ["a", "b"], "listing": {"train": {"files": 8}}}
    manifest = DatasetManifest(16, ("cat", "dög"), splits, settings, (("train/a/1.jpg", "val/a/1.jpg"),))
    (tmp_path / FILE_NAME).write_text(manifest.to_json())
    return manifest


def test_what_is_written_is_read_again(manifest, tmp_path):
    assert DatasetManifest.read(tmp_path) == manifest
    assert DatasetManifest.read(str(tmp_path)).to_json() == manifest.to_json()
    assert manifest.splits["train"].examples == 3


def test_equal_manifests_have_equal_text_and_others_have_another(manifest):
    assert dataclasses.replace(manifest).to_json() == manifest.to_json()
    assert dataclasses.replace(manifest, image_size=17).to_json() != manifest.to_json()


def test_an_undamaged_folder_has_no_damage(manifest, tmp_path):
    assert manifest.damaged_shards(tmp_path, checksums=True) == []


def test_a_flipped_byte_is_found_by_checksum_alone(manifest, tmp_path):
    path = tmp_path / "test-00000-of-00001.tfrecord"
    path.write_bytes(CONTENT[:-1] + b"x")
    assert manifest.damaged_shards(tmp_path, checksums=False) == []
    assert manifest.damaged_shards(tmp_path, checksums=True) == [f"{path.name} has a wrong checksum"]


@pytest.mark.parametrize("checksums", [False, True])
def test_a_missing_and_a_short_shard_are_found_and_named(manifest, tmp_path, checksums):
    (tmp_path / "train-00000-of-00001.tfrecord").unlink()
    os.truncate(tmp_path / "test-00000-of-00001.tfrecord", 7)
    assert manifest.damaged_shards(tmp_path, checksums) == [
        "train-00000-of-00001.tfrecord is missing",
        "test-00000-of-00001.tfrecord has 7 bytes instead of 3000000",
    ]


def test_the_checksum_is_that_of_the_whole_file(manifest, tmp_path):
    assert file_checksum(tmp_path / "train-00000-of-00001.tfrecord") == hashlib.sha256(CONTENT).hexdigest()


def changed(key, value):
    def change(content):
        content[key] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (changed("format", "other 2"), "its format is not 'robgan_tf image records 1'"),
        (lambda content: content.pop("format"), "'format'"),
        (lambda content: content.pop("class_names"), "'class_names'"),
        (lambda content: content.pop("image_size"), "image_size"),
        (changed("more", 1), "more"),
        (lambda content: content["splits"]["train"].pop("shards"), "'shards'"),
        (changed("class_names", ["cat"]), "the counts of train contradict each other"),
        (lambda content: content["splits"]["test"].update(class_counts=[2, 0]), "the counts of test contradict"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused_in_one_line(manifest, tmp_path, change, message):
    content = json.loads(manifest.to_json())
    change(content)
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        DatasetManifest.read(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "null"])
def test_a_manifest_that_is_none_is_refused_in_one_line(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match="can't be used .*; prepare the folder") as caught:
        DatasetManifest.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_refused_with_advice(tmp_path):
    with pytest.raises(
        ValueError, match=f"there is no {tmp_path}/manifest.json; prepare the folder with python -m robgan_tf.prepare"
    ):
        DatasetManifest.read(tmp_path)
