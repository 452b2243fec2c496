"""Folders of images, one for each class: what they hold, listed without decoding anything.

    train/<class>/...                            images, at any depth below the folder of their class
    val/<class>/...                              the held-out ones; test/ where there is no val/
    val/images/*, val/val_annotations.txt        the same as Tiny ImageNet has it, the classes in a file

What is no image by its name, or by its first bytes where the name says nothing, is left out, and counted by kind.
"""

from __future__ import annotations

import os
import pathlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import PIL.Image

from robgan_tf.data.names import escaped, quoted, shown, some

TRAIN, TEST = "train", "test"
# Where Tiny ImageNet says which class a held-out image has.
ANNOTATIONS = "val_annotations.txt"

# Suffixes of images that are read, as far as this Pillow reads them; upper case is the same.
SUFFIXES = tuple(
    suffix
    for suffix in ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .jp2 .avif".split()
    if suffix in PIL.Image.registered_extensions()
)
# Made by cameras, phones and programs, and unknown to Pillow.
_TO_CONVERT = (".heic", ".heif", ".jxl", ".avif", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".svg", ".psd")
# Of file systems and programs: thumbnails and other second copies of images.
_NOT_OF_THE_USER = ("@eaDir", "__MACOSX")
# A suffix that says what a file is. Others are part of a name: "photo.1", "12.com_77".
_TELLING = re.compile(r"\.[a-z][a-z0-9]{0,4}")
_FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*|\0\0\0\x0cjP  ", re.DOTALL
)


class ImageFile(NamedTuple):
    """A file of a class.

    Attributes:
        name: within its class, "/" between folders.
        path: where it is, relative to the folder of its split, "/" between folders.
        size: in bytes.
    """

    name: str
    path: str
    size: int


class ClassFolders:
    """The image files of a folder by split and class, listed on first use.

    Attributes:
        root: the folder.
        folders: those of the splits, by `TRAIN` and `TEST`.
        classes: the names of the folders of train/, sorted.

    Raises:
        ValueError: if folders are missing or hold no class folders, or names of classes are not UTF-8, hold control
            characters, or are the same but for their Unicode form.
    """

    def __init__(self, root: str | os.PathLike, test_split: str | None = None):
        """Looks at the folders of the classes.

        Args:
            root: the folder that holds train/ and val/.
            test_split: name of the held-out folder; None is "val", or "test" where there is none.
        """
        self.root = pathlib.Path(root).expanduser().absolute()
        if not self.root.is_dir():
            raise ValueError(f"there is no folder {shown(self.root)}; it must hold train/<class>/ and val/<class>/")
        if test_split is None:
            test_split = "test" if (self.root / "test").is_dir() and not (self.root / "val").is_dir() else "val"
        self.folders = {TRAIN: self.root / "train", TEST: self.root / test_split}
        self._left_out: dict[str, list[str]] = {}
        self._nested: list[str] = []
        self._files: dict[tuple[str, str], list[ImageFile]] = {}
        self._annotated = None
        if (self.folders[TEST] / ANNOTATIONS).is_file() and (self.folders[TEST] / "images").is_dir():
            self._annotated = self._read_annotations(self.folders[TEST])
        self.classes = self._class_names(TRAIN)
        self._test_classes = sorted(self._annotated) if self._annotated is not None else self._class_names(TEST)

    def check(self, classes: Collection[str]) -> None:
        """Compares the classes of the splits.

        Args:
            classes: those of train/ that are wanted.

        Raises:
            ValueError: if one of them is not held out, or one that is held out is not in train/.
        """
        of_train = sorted(set(classes) - set(self._test_classes))
        of_test = sorted(set(self._test_classes) - set(self.classes))
        if not of_train and not of_test:
            return
        held_out = self.folders[TEST].name
        alike = {_plain(name): name for name in self.classes if name not in self._test_classes}
        for name in of_test:
            twin = alike.get(_plain(name))
            if twin is not None:
                same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", twin)
                form = "their Unicode form (NFC and NFD)" if same else "upper and lower case, or spaces"
                raise ValueError(
                    f"class names of train/ and {held_out}/ differ in {form}, {quoted(twin)} and {quoted(name)}: "
                    f"{self._rename(held_out, name, twin)}"
                )
        raise ValueError(
            f"classes differ between {shown(self.folders[TRAIN])} and {shown(self.folders[TEST])}: only in train: "
            f"{some(of_train)}; only in {held_out}: {some(of_test)}; make the folder names equal"
        )

    def files(self, split: str, name: str) -> list[ImageFile]:
        """The images of a class in TRAIN or TEST, sorted by name.

        Raises:
            ValueError: if there are none.
        """
        if (split, name) not in self._files:
            folder = self.folders[split]
            if split == TEST and self._annotated is not None:
                found = self._annotated[name]
            else:
                before = len(self._left_out_names())
                found = [
                    ImageFile(path[len(name) + 1 :], path, os.stat(folder / path).st_size)
                    for path in self._images(folder, name)
                ]
                found.sort(key=lambda file: file.name.split("/"))
                if self._annotated is None:  # Tiny ImageNet's are all in train/<class>/images/
                    self._nested += [f"{folder.name}/{file.path}" for file in found if "/" in file.name]
                if not found:
                    there = self._left_out_names()[before:]
                    raise ValueError(
                        f"no images in {shown(folder / name)} (there: {some(there)}); expected files ending in "
                        f"{', '.join(SUFFIXES)}; add some, or remove the folder or leave the class out"
                    )
            self._files[split, name] = found
        return self._files[split, name]

    def remarks(self) -> list[str]:
        """Sentences about what was listed so far: files that are left out, by kind, and those in nested folders."""
        sentences = []
        if self._left_out:
            counts = {kind: len(names) for kind, names in self._left_out.items()}
            kinds = (f"{counts[kind]} {kind} ({some(self._left_out[kind])})" for kind in sorted(counts))
            read = sum(map(len, self._files.values()))
            total = sum(counts.values())
            sentences.append(f"left out {total} of {total + read} files in {shown(self.root)}: {'; '.join(kinds)}")
        if self._nested:
            sentences.append(
                f"{len(self._nested)} images lie in folders below that of their class, and count for it: "
                f"{some(self._nested)}"
            )
        return sentences

    def _left_out_names(self) -> list[str]:
        return [name for names in self._left_out.values() for name in names]

    def _leave_out(self, kind: str, name: str) -> None:
        self._left_out.setdefault(kind, []).append(name)

    def _class_names(self, split: str) -> list[str]:
        """Folders of a split that are not hidden, sorted; what lies beside them is left out."""
        folder = self.folders[split]
        if not folder.is_dir():
            raise ValueError(
                f"there is no folder {shown(folder)}; expected {shown(folder)}/<class>/ with images (.jpg, .png, ...)"
            )
        entries = list(os.scandir(folder))
        for name in sorted(entry.name for entry in entries if _is_hidden(entry.name)):
            self._leave_out("hidden", f"{folder.name}/{name}")
        entries = [entry for entry in entries if not _is_hidden(entry.name)]
        classes = sorted(entry.name for entry in entries if entry.is_dir())
        beside = sorted(entry.name for entry in entries if not entry.is_dir() and entry.name != ANNOTATIONS)
        if not classes:
            images = any(_suffix(name) in SUFFIXES for name in beside)
            found = "images, but no class folders" if images else "no class folders"
            raise ValueError(f"{shown(folder)} holds {found}; sort the images into {shown(folder)}/<class>/")
        for name in beside:
            self._leave_out("outside of the class folders", f"{folder.name}/{name}")
        self._check_names(folder, classes)
        return classes

    def _check_names(self, folder: pathlib.Path, classes: Sequence[str]) -> None:
        forms: dict[str, str] = {}
        for name in classes:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                latin = os.fsencode(name).decode("latin-1")
                raise ValueError(
                    f"the name of the class folder {quoted(name)} in {shown(folder)} is not UTF-8, as reports and "
                    f"exports need it: {self._rename(folder.name, name, latin)} (if it is Latin-1)"
                ) from error
            plain = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in name)
            if plain != name:
                raise ValueError(
                    f"the name of the class folder {quoted(name)} in {shown(folder)} holds control characters: "
                    f"{self._rename(folder.name, name, plain)}"
                )
            twin = forms.setdefault(unicodedata.normalize("NFC", name), name)
            if twin != name:
                raise ValueError(
                    f"the class folders {quoted(twin)} and {quoted(name)} in {shown(folder)} have names that differ "
                    f"in their Unicode form (NFC and NFD) alone: move the images of one into the other"
                )

    def _rename(self, split: str, old: str, new: str) -> str:
        return f"rename it, in {shown(self.root)}: mv -T $'{split}/{escaped(old)}' $'{split}/{escaped(new)}'"

    def _images(self, folder: pathlib.Path, inner: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
        """Paths of the images below folder/inner, relative to `folder`; counts what is left out."""
        status = os.stat(folder / inner)
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that holds it
            return
        for entry in os.scandir(folder / inner):
            path = f"{inner}/{entry.name}"
            kind = _kind(entry)
            if kind is not None:
                self._leave_out(kind, f"{folder.name}/{path}")
            elif entry.is_dir():
                yield from self._images(folder, path, (*above, here))
            else:
                yield path

    def _read_annotations(self, folder: pathlib.Path) -> dict[str, list[ImageFile]]:
        """The images of Tiny ImageNet's val/ by class."""
        path = folder / ANNOTATIONS
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{shown(path)} can't be read: {error}") from error
        classes = {}
        for number, line in enumerate(lines, 1):
            fields = line.split("\t")
            if len(fields) < 2 and line.strip():
                raise ValueError(
                    f"{shown(path)}, line {number}: expected an image and its class with a tab between, as in Tiny "
                    f"ImageNet, got {line[:40]!r}"
                )
            if line.strip():
                classes[f"images/{fields[0]}"] = fields[1].strip()
        by_class: dict[str, list[ImageFile]] = {}
        for image in sorted(self._images(folder, "images")):
            if image in classes:
                file = ImageFile(image.partition("/")[2], image, os.stat(folder / image).st_size)
                by_class.setdefault(classes[image], []).append(file)
            else:
                self._leave_out(f"not in {ANNOTATIONS}", f"{folder.name}/{image}")
        return by_class


def _plain(name: str) -> str:
    """What two spellings of a name have in common."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_OF_THE_USER


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _kind(entry: os.DirEntry) -> str | None:
    """Why an entry of a class's folder is left out; None for images and folders."""
    if _is_hidden(entry.name):
        return "hidden"
    if entry.is_dir():
        return None
    if not entry.is_file():
        return "that are no files"
    suffix = _suffix(entry.name)
    if suffix in SUFFIXES:
        return None
    if suffix in _TO_CONVERT:
        return f"{suffix}, which Pillow does not read: convert them to JPEG or PNG"
    if _TELLING.fullmatch(suffix):
        return suffix
    with open(entry.path, "rb") as file:
        return None if _FIRST_BYTES.match(file.read(16)) else "no images by their content"
