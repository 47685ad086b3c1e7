"""`webdataset:PATH`: tar archives with an image and a file of its label for each example."""

from __future__ import annotations

import functools
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.classes import indices_of, numbered, ordered, read_classes, shown
from bench.data.foreign import what_is
from bench.data.images import EncodedImage
from bench.data.shards import check_complete, files_in
from bench.data.splits import called_train, choose, is_leftover, role_of
from bench.data.stored import StoredDataset
from bench.data.trees import SUFFIXES
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.data.base import Split
    from bench.data.reading import Reading

#: The endings of files that hold a label.
_LABELS = ("cls", "label", "cls.txt", "label.txt")
#: The bytes of a label, at most.
_MOST = 1024
#: The bytes of zero at the end of every archive that is whole.
_END = 1024


@dataclass(frozen=True)
class Sample:
    """One example in an archive: nothing of its image is read."""

    file: Path
    key: str
    """What the names of its files have in common."""
    place: int
    """Where the bytes of its image begin in the archive."""
    size: int
    """How many there are."""
    label: str
    """As written: a number or a class name."""

    @property
    def where(self) -> str:
        """For errors."""
        return f"{self.key} of {self.file.name}"


class WebDataset(StoredDataset):
    """`webdataset:PATH`: one uncompressed tar archive, or a folder of them, as WebDataset's.

    The files of an example share their name up to its first dot: an image (`.jpg`, `.png`, …) and
    a label in `.cls`, a number or a class name; `[image=…,label=…]` gives other endings. Archives
    whose names have `train`, `val` or `test` in them, or lie in a folder called so, are of that
    split; all are the test split where none has. Nothing is unpacked.
    """

    scheme = "webdataset"
    options = ("image", "label", "classes", "split", "preset", "resize", "crop")

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        if not path.exists():
            raise DataError(f"there is no file or folder {str(path)!r}; give that of tar archives")
        super().__init__(path, reading)
        self._listed: dict[Split, list[Sample]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the file of classes, or the labels."""
        return self._classes[0]

    def has(self, split: Split) -> bool:
        """Whether there are archives of it."""
        return split in self._found[0]

    def labels(self, split: Split) -> Sequence[int]:
        """From the files of labels alone."""
        places = self._classes[1]
        return [places[sample.label] for sample in self._samples(split)]

    def images(self, split: Split, rows: Sequence[int] | None = None) -> Iterator[EncodedImage]:
        """Archives in the order of their names, examples as stored."""
        samples, places = self._samples(split), self._classes[1]
        for row in range(len(samples)) if rows is None else rows:
            sample = samples[row]
            try:
                with sample.file.open("rb") as archive:
                    archive.seek(sample.place)
                    data = archive.read(sample.size)
            except OSError as error:
                raise DataError(f"{str(sample.file)!r} cannot be read ({error.strerror})") from (
                    error
                )
            yield EncodedImage(sample.where, data, places[sample.label])

    def digest(self, split: Split) -> str:
        """SHA-256 over the number of classes, the images as stored, and their labels."""
        digest = self.begin_digest(f"webdataset {len(self.class_names)}")
        for image in self.images(split):
            digest.update(f"{image.label} {len(image.data)}\n".encode())
            digest.update(image.data)
        return digest.hexdigest()

    def said(self, split: Split) -> Sequence[str]:
        """On splits and classes."""
        return [*self._found[1], *self._classes[2]]

    @functools.cached_property
    def _found(self) -> tuple[Mapping[Split, Sequence[Path]], list[str]]:
        """The archives of each split, and what was chosen.

        Raises:
            DataError: there are none.
        """
        if not self.path.is_dir():
            said = f"the file is called {self.path.name}, and all of it is evaluated"
            return {"test": [self.path]}, [said] if called_train(self.path.stem) else []
        parts: dict[str, list[Path]] = {}
        for file in files_in(self.path, ".tar"):
            parts.setdefault(_part(file), []).append(file)
        for folder in sorted(each for each in self.path.iterdir() if each.is_dir()):
            if role_of(folder.name) and (files := files_in(folder, ".tar")):
                parts.setdefault(folder.name, []).extend(files)
        if not parts:
            raise DataError(
                f"{str(self.path)!r} holds no .tar files: {what_is(self.path) or 'give others'}"
            )
        if [*parts] == [""]:
            return {"test": parts[""]}, []
        known = {name: (role_of(name), self.path) for name in parts if name}
        taken, notes = choose(known, self.reading.split, str(self.path))
        if "" in parts:
            said = shown([file.name for file in parts[""]])
            notes.append(f"of no split by their names, not read: {said}")
        return {split: parts[name] for split, name in taken.items()}, notes

    def _samples(self, split: Split) -> list[Sample]:
        """The examples of a split, found once.

        Raises:
            DataError: there is no such split, not all of it, or an example is not whole.
        """
        files = self._found[0].get(split)
        if not files:
            raise DataError(
                f"{self.name} has no {split} split: no archive with {split} in its name in "
                f"{str(self.path)!r}"
            )
        if split not in self._listed:
            check_complete(files)
            self._listed[split] = [s for file in files for s in _samples_of(file, self.reading)]
        return self._listed[split]

    @functools.cached_property
    def _classes(self) -> tuple[tuple[str, ...], Mapping[str, int], tuple[str, ...]]:
        """The names of the classes, the place of each label as written, and what was chosen."""
        found = {sample.label for split in self._found[0] for sample in self._samples(split)}
        numbers = all(re.fullmatch(r"-?\d+", label) for label in found)
        if self.reading.classes:
            file = Path(self.reading.classes)
            known = read_classes(file)
            names = tuple(called[0] for called in known)
            if numbers:
                return names, {label: int(label) for label in found}, ()
            return names, indices_of(sorted(found), known, self.name, file.name), ()
        if numbers:
            names, notes = numbered({int(label) for label in found})
            return names, {label: int(label) for label in found}, notes
        names, sentence = ordered(found)
        said = sentence or f"text labels are classes in the alphabet's order ({shown(names)})"
        return names, {name: place for place, name in enumerate(names)}, (said,)


def _part(file: Path) -> str:
    """The split that the name of an archive says, as it says it; empty for none."""
    words = re.split(r"[-_. ]", re.sub(r"\d+", "-", file.stem))
    return next((word for word in words if role_of(word)), "")


def _samples_of(file: Path, asked: Reading) -> Iterator[Sample]:
    """The examples of one archive, as stored.

    Raises:
        DataError: it is no tar archive, is compressed or cut off, or an example is not whole.
    """
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    labels: dict[str, str] = {}
    try:
        with file.open("rb") as stored:
            stored.seek(max(0, file.stat().st_size - _END))
            if any(stored.read()):
                raise tarfile.ReadError("its end is missing: fetch it again")
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if not member.isfile() or is_leftover(name):
                    continue
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if ending.lower() in members.get(key, {}):
                    raise DataError(
                        f"{file.name} holds {key}.{ending} twice, and which is meant cannot be "
                        "told: write it again with each once"
                    )
                members.setdefault(key, {})[ending.lower()] = member
                wanted = (asked.label,) if asked.label else _LABELS
                if ending.lower() in wanted and member.size <= _MOST:
                    opened = archive.extractfile(member)
                    labels[key] = opened.read().decode().strip() if opened else ""
    except (tarfile.TarError, OSError, ValueError) as error:
        found = what_is(file)
        reason = found if found and "a tar archive" not in found else error
        raise DataError(f"{str(file)!r} is no whole, uncompressed tar archive: {reason}") from error
    for key, endings in members.items():
        image = _image_of(key, file, endings, asked)
        if not labels.get(key):
            raise DataError(
                f"{key} of {file.name} has no label: of each example there has to be a file with "
                f".cls, a number or a class name, or say its ending: webdataset:PATH[label=ENDING] "
                f"(it has {', '.join(sorted(endings))})"
            )
        yield Sample(file, key, image.offset_data, image.size, labels[key])


def _image_of(
    key: str, file: Path, endings: Mapping[str, tarfile.TarInfo], asked: Reading
) -> tarfile.TarInfo:
    """The image among the files of an example.

    Raises:
        DataError: there is none, or there are several.
    """
    images = [each for each in endings if f".{each.rpartition('.')[2]}" in SUFFIXES]
    if asked.image:
        images = [each for each in endings if each == asked.image]
    if len(images) != 1:
        what = f"several images ({', '.join(images)})" if images else "no image"
        raise DataError(
            f"{key} of {file.name} has {what} among its files ({', '.join(sorted(endings))}); say "
            "which it is by its ending: webdataset:PATH[image=ENDING]"
        )
    return endings[images[0]]
