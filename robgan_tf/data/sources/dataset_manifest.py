"""The manifest of prepared image records: what a folder of TFRecords holds, in one JSON file beside them.

`preparation.writing` writes it last, `records` reads it first. Each record is a `tf.Example` with

    image/encoded    bytes: JPEG of image_size x image_size, RGB
    image/label      int64: index into class_names
    image/filename   bytes: where it came from, relative to the source
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib

from robgan_tf.data.checksums import file_checksum

FILE_NAME = "manifest.json"
FORMAT = "robgan_tf image records 1"
ENCODED, LABEL, SOURCE_NAME = "image/encoded", "image/label", "image/filename"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        name: file name within the folder.
        examples: number of records.
        bytes: size of the file.
        sha256: checksum of the file, hexadecimal.
    """

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """The records of one split.

    Attributes:
        shards: in order.
        class_counts: number of records of each class.
        too_small: number of source images left out for their size.
        corrupt: source images left out because they can't be decoded, "name (reason)".
    """

    shards: tuple[Shard, ...]
    class_counts: tuple[int, ...]
    too_small: int = 0
    corrupt: tuple[str, ...] = ()

    @property
    def examples(self) -> int:
        """Number of records."""
        return sum(self.class_counts)


@dataclasses.dataclass(frozen=True)
class DatasetManifest:
    """What a folder of image records holds and how it was made.

    Attributes:
        image_size: side of the images in pixels.
        class_names: in the order of the labels.
        splits: by name, of `SPLITS`; "train" and "test" at least.
        settings: all settings of the preparation: source, selection of classes, filter, quality, seed, ...
        duplicates: source images that stand in two splits, pairs of names.
    """

    image_size: int
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    settings: dict
    duplicates: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        """Returns the text of the file, the same for equal manifests."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, folder: str | os.PathLike) -> DatasetManifest:
        """Reads the manifest of `folder`.

        Raises:
            ValueError: where there is none, or it is of another format or broken.
        """
        path = pathlib.Path(folder).expanduser() / FILE_NAME
        advice = "prepare the folder with python -m robgan_tf.prepare (again, if it was interrupted)"
        if not path.is_file():
            raise ValueError(f"there is no {path}; {advice}.")
        try:
            content = json.loads(path.read_text())
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            splits = {
                name: Split(
                    tuple(Shard(**shard) for shard in split["shards"]),
                    tuple(split["class_counts"]),
                    split["too_small"],
                    tuple(split["corrupt"]),
                )
                for name, split in content.pop("splits").items()
            }
            manifest = cls(
                class_names=tuple(content.pop("class_names")),
                splits=splits,
                duplicates=tuple(map(tuple, content.pop("duplicates"))),
                **content,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} can't be used ({error}); {advice}.") from error
        for name, split in splits.items():
            counted = sum(shard.examples for shard in split.shards)
            if len(split.class_counts) != len(manifest.class_names) or counted != split.examples:
                raise ValueError(f"{path} can't be used (the counts of {name} contradict each other); {advice}.")
        return manifest

    def damaged_shards(self, folder: str | os.PathLike, checksums: bool) -> list[str]:
        """Compares the shards in `folder` with the manifest; returns a phrase for each that differs.

        Args:
            folder: where they are.
            checksums: whether to read them all and compare their checksums, too; without, existence and size.
        """
        folder = pathlib.Path(folder).expanduser()

        def problem(shard: Shard) -> str | None:
            path = folder / shard.name
            if not path.is_file():
                return f"{shard.name} is missing"
            size = path.stat().st_size
            if size != shard.bytes:
                return f"{shard.name} has {size} bytes instead of {shard.bytes}"
            if checksums and file_checksum(path) != shard.sha256:
                return f"{shard.name} has a wrong checksum"
            return None

        shards = [shard for split in self.splits.values() for shard in split.shards]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
            return list(filter(None, pool.map(problem, shards)))
