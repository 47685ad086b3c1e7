"""`folder:PATH`: a folder of images per class, read as torchvision's `ImageFolder` reads it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never

from bench.data.classes import indices_of, ordered, read_classes, shown
from bench.data.foreign import what_is
from bench.data.images import EncodedImage
from bench.data.reading import expanded
from bench.data.splits import called_train, choose, role_of
from bench.data.stored import StoredDataset
from bench.data.trees import (
    SUFFIXES,
    branches,
    entries_of,
    has_images,
    holds_classes,
    is_image,
    like_splits,
    tables,
    without_wrapper,
)
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.data.base import Split
    from bench.data.reading import Reading


@dataclass(frozen=True)
class FolderClasses:
    """The classes of both splits together."""

    names: tuple[str, ...]
    """One per class, in the order of the labels."""
    labels: dict[str, int]
    """By the names of the folders."""
    notes: tuple[str, ...]
    """What was chosen about them."""


@dataclass(frozen=True)
class Listing:
    """What lies in the class folders of one split."""

    files: list[tuple[Path, int]]
    """Its images, sorted by label, folder and name, each with its label."""
    notes: list[str]
    """Sentences on what is no image, and on images deeper than their class's folder."""

    @classmethod
    def of(cls, root: Path, labels: Mapping[str, int]) -> Listing:
        """Go through the class folders.

        Args:
            root: that holds them.
            labels: by their names.
        """
        files, deeper, notes = [], [], []
        reached: dict[tuple[int, int], str] = {}
        folders, passed_over = entries_of(root)
        for name in sorted(folders, key=lambda name: labels[name]):
            found = sorted(branches(folders[name], reached), key=lambda branch: str(branch[0]))
            for place, names, leftovers in found:
                images = [place / n for n in sorted(names) if is_image(n)]
                files += [(image, labels[name]) for image in images]
                others = sorted([*leftovers, *(n for n in names if not is_image(n))])
                passed_over += [(place / n).relative_to(root).as_posix() for n in others]
                if place != folders[name]:
                    deeper += [image.relative_to(root).as_posix() for image in images]
        if passed_over:
            some = f"{len(passed_over)} files or folders that are no images by their names are"
            notes.append(f"{some} passed over: {shown(passed_over)}")
        if deeper:
            some = f"{len(deeper)} images lie deeper than their class's folder"
            notes.append(f"{some}, and count to it as in torchvision: {shown(deeper, 2)}")
        return cls(files, notes)

    def within(self, root: Path, file: Path) -> Listing:
        """Those images that a file lists, in the order of this listing.

        Args:
            root: of the split.
            file: has a path within it a line, such as `cat/1.png`.

        Raises:
            DataError: it cannot be read, is empty, or lists what is not there.
        """
        try:
            lines = expanded(file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"[only={file}] cannot be read as a list of paths: {error}") from error
        wanted = {line.strip().removeprefix("./") for line in lines if line.strip()}
        kept = [(p, label) for p, label in self.files if p.relative_to(root).as_posix() in wanted]
        if not wanted or len(kept) < len(wanted):
            absent = wanted - {path.relative_to(root).as_posix() for path, _ in kept}
            raise DataError(
                f"{file.name} lists {len(wanted)} images, a path within {str(root)!r} a line, and "
                f"{len(absent)} of them are not there: {shown(sorted(absent)) or 'nothing'}"
            )
        return Listing(kept, self.notes)


class FolderDataset(StoredDataset):
    """`folder:PATH`: one folder per class in PATH/train and PATH/test, or in PATH itself.

    Folders called `val`, `valid`, `validation` or `dev` stand in for a missing `test`; without any
    of these, everything is the test split. Classes go by the alphabet, numbered ones by their
    numbers, and are those of both splits together; images may lie deeper than their class's
    folder. With `[classes=FILE]` labels are the places of the folders' names in the file.
    """

    scheme = "folder"
    options = ("classes", "split", "preset", "resize", "crop", "only")

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        if not path.is_dir():
            if found := what_is(path):
                raise DataError(f"{str(path)!r} is no folder: {found}")
            raise DataError(
                f"there is no folder {str(path)!r}; give one that holds a folder of images per "
                "class, or such folders in train and test"
            )
        super().__init__(path, reading)
        self._listings: dict[Split, Listing] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The folders' names, or those in the file of classes."""
        return self._classes.names

    def has(self, split: Split) -> bool:
        """Whether there is a folder for it."""
        return split in self._roots

    def labels(self, split: Split) -> Sequence[int]:
        """By the folders of its image files."""
        return [label for _, label in self._files(split).files]

    def images(self, split: Split, rows: Sequence[int] | None = None) -> Iterator[EncodedImage]:
        """Sorted by class, folder and file name."""
        files = self._files(split).files
        for file, label in files if rows is None else map(files.__getitem__, rows):
            if not file.is_file():
                raise DataError(f"{str(file)!r} is no file, or a link to nothing; remove it")
            try:
                data = file.read_bytes()
            except OSError as error:
                raise DataError(f"{str(file)!r} cannot be read ({error.strerror})") from error
            yield EncodedImage(file.relative_to(self._roots[split]).as_posix(), data, label)

    def digest(self, split: Split) -> str:
        """SHA-256 over the class names, the relative paths of the images, and their bytes."""
        digest = self.begin_digest(f"folder {self.class_names!r}")
        for image in self.images(split):
            digest.update(f"{image.where!r} {len(image.data)}\n".encode())
            digest.update(image.data)
        return digest.hexdigest()

    def said(self, split: Split) -> Sequence[str]:
        """On splits, on classes, and on the files of this one."""
        return [*self._layout[1], *self._classes.notes, *self._files(split).notes]

    @property
    def _roots(self) -> dict[Split, Path]:
        return self._layout[0]

    @functools.cached_property
    def _layout(self) -> tuple[dict[Split, Path], list[str]]:
        """Each split that there is, the test split first, and the folder of its classes."""
        root, notes = without_wrapper(self.path)
        folders, files = entries_of(root)
        wanted = self.reading.split
        parts = {
            name: (role_of(name), folder)
            for name, folder in folders.items()
            if role_of(name) or name.lower() == wanted.lower()
        }
        whole = {name: part for name, part in parts.items() if holds_classes(part[1])}
        others = [n for n in folders if n not in parts and parts and has_images(folders[n])]
        if not whole and wanted:
            raise DataError(
                f"{str(root / wanted)!r} holds no class folders; it cannot be the split"
            )
        if not whole:
            return {"test": self.path}, self._unsplit([*parts], others)
        if others and len(whole) == 1 and not wanted:
            raise DataError(
                f"{str(self.path)!r} holds a split ({shown([*whole])}) and other folders with "
                f"images ({shown(others)}): say which it is by [split={next(iter(whole))}], or "
                "rename it if all are classes"
            )
        chosen, more = choose(whole, wanted, str(root))
        notes += more
        flat = [name for name in parts if name not in whole and has_images(parts[name][1])]
        if flat:
            notes.append(f"{shown(flat)} without class folders, so without labels: not read")
        if aside := sorted({*folders} - {*parts}) + files:
            notes.append(f"beside the splits, not read: {shown(aside)}")
        return {split: whole[name][1] for split, name in chosen.items()}, notes

    def _unsplit(self, parts: Sequence[str], others: Sequence[str]) -> list[str]:
        """What to say where PATH holds the classes themselves.

        Raises:
            DataError: it holds nothing but splits, whose images are in no class folders, or
                folders that are splits by what they hold.
        """
        if parts and not others and any(has_images(self.path / name) for name in parts):
            table = next((t for name in parts for t in tables(self.path / name)), None)
            why = f"{table} is not read" if table else "nothing says what they show"
            raise DataError(
                f"the images in {shown(parts)} of {str(self.path)!r} are in no class folders, and "
                f"{why}; put those of each class into a folder of its own"
            )
        alike, names = like_splits(self.path)
        if alike and not self.reading.classes:
            tested = alike[min(alike, key=called_train)]
            raise DataError(
                f"{shown([*alike])} of {str(self.path)!r} hold the same folders ({shown(names)}), "
                f"as splits do and classes do not: give one of them, such as folder:{tested}, or "
                "say by [classes=FILE] that they are classes"
            )
        if called_train(self.path.resolve().name):
            return [f"the folder is called {self.path.resolve().name}, and all of it is evaluated"]
        return []

    @functools.cached_property
    def _classes(self) -> FolderClasses:
        """Classes of both splits.

        Raises:
            DataError: a class without images, a single class, spellings or splits that
                contradict one another, or names that the file of classes does not have.
        """
        found = {split: [*_class_folders(root)] for split, root in self._roots.items()}
        names, sentence = ordered(name for names in found.values() for name in names)
        notes = list(_compared(found)) if len(found) == 2 else []
        if self.reading.classes:
            known = read_classes(Path(self.reading.classes))
            labels = indices_of(names, known, self.name, Path(self.reading.classes).name)
            return FolderClasses(tuple(called[0] for called in known), labels, tuple(notes))
        if len(names) == 1:
            self._refuse_single(names[0])
        return FolderClasses(
            names,
            {name: label for label, name in enumerate(names)},
            (*notes, *([sentence] if sentence else [])),
        )

    def _refuse_single(self, name: str) -> Never:
        (root, *_) = self._roots.values()
        below = [n for n, folder in entries_of(root / name)[0].items() if has_images(folder)]
        hint = f": its folders are {shown(below)}; did you mean folder:{root / name}?"
        raise DataError(
            f"{str(root)!r} holds one class folder, {name!r}, and one class cannot be told apart"
            f"{hint if below else '; put a folder of images there for each class'}"
        )

    def _files(self, split: Split) -> Listing:
        """The images of a split, found once.

        Raises:
            DataError: there is no such split.
        """
        if split not in self._roots:
            why = "".join(f" ({note})" for note in self._layout[1])
            raise DataError(
                f"{self.name} has no {split} split: no folder {str(self.path / split)!r} with one "
                f"folder of images per class{why}; make one"
            )
        if split not in self._listings:
            listing = Listing.of(self._roots[split], self._classes.labels)
            if self.reading.only and split == "test":
                listing = listing.within(self._roots[split], Path(self.reading.only))
            self._listings[split] = listing
        return self._listings[split]


def _class_folders(root: Path) -> dict[str, Path]:
    """The classes in the folder of a split.

    Raises:
        DataError: there are none, or one is without images.
    """
    folders, files = entries_of(root)
    if not folders or not any(map(has_images, folders.values())):
        if found := what_is(root):
            raise DataError(f"no images in the folders of {str(root)!r}: {found}")
        table = any(name.lower().endswith((".csv", ".tsv")) for name in files)
        hint = " (a table that names them is not read)" if table else ""
        raise DataError(
            f"no images in the folders of {str(root)!r}; put one folder per class there{hint}, "
            f"with files that end in {', '.join(sorted(SUFFIXES))}"
        )
    empty = [name for name, folder in folders.items() if not has_images(folder)]
    if "-1" in folders:
        raise DataError(
            f"{str(root / '-1')!r} holds images without a label, as -1 says; move it elsewhere"
        )
    if empty:
        raise DataError(
            f"{len(empty)} folders of {str(root)!r} hold no images: {shown(empty)}; every folder "
            "there is a class, so remove those that are none, and fill those that are"
        )
    return folders


def _compared(found: dict[Split, list[str]]) -> Iterator[str]:
    """Sentences on classes that one split lacks.

    Raises:
        DataError: they have no class in common.
    """
    train, test = ({*found[split]} for split in ("train", "test"))
    if not train & test:
        raise DataError(
            f"train and test have no class in common ({shown(sorted(train))}; "
            f"{shown(sorted(test))}): each image has to lie in a folder of its class, where a "
            "table (as tiny-imagenet's val_annotations.txt) names the classes too"
        )
    for split, more in (("test", test - train), ("train", train - test)):
        if more:
            yield f"classes with images in {split} alone: {shown(sorted(more))}"
