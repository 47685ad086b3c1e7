"""`parquet:PATH`: Hugging Face's image-classification layout, encoded images and labels.

The image column holds bytes, alone or in a struct `{bytes, path}`; a path is never followed.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.classes import indices_of, numbered, ordered, read_classes, shown
from bench.data.columns import Columns, columns_of, reading
from bench.data.images import EncodedImage
from bench.data.shards import NoSuchSplitError, check_complete, files_of
from bench.data.stored import StoredDataset
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.data.base import Split
    from bench.data.reading import Reading

_BATCH_ROWS = 512


@dataclass(frozen=True)
class ParquetClasses:
    """The classes of both splits together."""

    names: tuple[str, ...]
    """One per class, in the order of the labels."""
    labels: dict[Path, Mapping[Any, int]]
    """Of files whose stored labels are not the places in `names`: the places, by what is stored."""
    notes: tuple[str, ...]
    """What was chosen about them."""


class ParquetDataset(StoredDataset):
    """`parquet:PATH`: a file, or a folder of `train-*.parquet` and `test-*.parquet` files.

    `validation-*` stands in for a missing `test-*`. A single file is the test split, or the train
    split when its name begins with `train`. Which columns hold images and labels, and what the
    classes are called, the schema metadata `huggingface` says; where it is missing, the usual names
    are tried, and classes are called by their numbers, or are the sorted values where labels are
    text. `[image=…,label=…]` names the columns. With `[classes=FILE]` labels are the places of the
    classes' names in the file.
    """

    scheme = "parquet"
    options = ("image", "label", "classes", "split", "preset", "resize", "crop")

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        if not path.exists():
            raise DataError(
                f"there is no file or folder {str(path)!r}; give the path of a Parquet file, or "
                "of a folder that holds train-*.parquet and test-*.parquet"
            )
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{str(path)!r} is neither a file nor a folder")
        super().__init__(path, reading)
        self._columns: dict[Path, Columns] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the metadata, the labels, or the file of classes."""
        return self._classes.names

    def has(self, split: Split) -> bool:
        """Whether there are files of it."""
        return split in self._found[0]

    def labels(self, split: Split) -> Sequence[int]:
        """From the column of labels alone."""
        labels = []
        for file in self._files(split):
            column, places = self._columns_of(file).label, self._classes.labels.get(file)
            for start, batch in _batches(file, [column]):
                stored = enumerate(batch[column].to_pylist(), start)
                labels += [_label(each, places, _where(file, row)) for row, each in stored]
        return labels

    def images(self, split: Split, rows: Sequence[int] | None = None) -> Iterator[EncodedImage]:
        """Its files in the order of their names, rows as stored, read in batches."""
        before = 0
        for file in self._files(split):
            columns, count = self._columns_of(file), _rows_of(file)
            wanted = range(count) if rows is None else _between(rows, before, before + count)
            labels, before = self._classes.labels.get(file), before + count
            for start, batch in _batches(file, [columns.image, columns.label], wanted):
                within = _between(wanted, start, start + len(batch))
                if not within:
                    continue
                some = batch.take(within)
                images, stored = (some[c].to_pylist() for c in (columns.image, columns.label))
                for row, image, label in zip(within, images, stored, strict=True):
                    where = _where(file, start + row)
                    yield EncodedImage(where, _bytes(image, where), _label(label, labels, where))

    def digest(self, split: Split) -> str:
        """SHA-256 over the number of classes, the images as stored, and their labels."""
        digest = self.begin_digest(f"parquet {len(self.class_names)}")
        for image in self.images(split):
            digest.update(f"{image.label} {len(image.data)}\n".encode())
            digest.update(image.data)
        return digest.hexdigest()

    def said(self, split: Split) -> Sequence[str]:
        """On splits, columns and classes."""
        columns = [note for file in self._files(split) for note in self._columns_of(file).notes]
        return [*self._found[1], *dict.fromkeys(columns), *self._classes.notes]

    @functools.cached_property
    def _found(self) -> tuple[Mapping[Split, Sequence[Path]], list[str]]:
        return files_of(self.path, self.reading.split)

    def _files(self, split: Split) -> Sequence[Path]:
        """The files of a split, in order and all of them.

        Raises:
            NoSuchSplitError: there are none.
            DataError: some are missing.
        """
        files = self._found[0].get(split)
        if files:
            check_complete(files)
            return files
        if not self.path.is_dir():
            raise NoSuchSplitError(
                f"{self.path.name} is one file and holds no {split} split; give a folder with "
                "train-*.parquet and test-*.parquet, or name a file of the train split train-…"
            )
        names = sorted(file.name for file in self.path.glob("*.parquet"))
        hint = f": it holds {shown(names)}" if names else ""
        raise NoSuchSplitError(
            f"{self.name} has no {split} split: no {split}-*.parquet in {str(self.path)!r}{hint}"
        )

    def _columns_of(self, file: Path) -> Columns:
        if file not in self._columns:
            self._columns[file] = columns_of(file, self.reading)
        return self._columns[file]

    @functools.cached_property
    def _classes(self) -> ParquetClasses:
        """Of both splits: from the file of classes, the metadata, or the labels themselves."""
        files = [
            file for split in ("train", "test") if self.has(split) for file in self._files(split)
        ]
        known = {file: self._columns_of(file) for file in files}
        if self.reading.classes:
            given = read_classes(Path(self.reading.classes))
            return _mapped(known, given, Path(self.reading.classes).name)
        named = next(((f, c.class_names) for f, c in known.items() if c.class_names), None)
        if named is not None:
            file, given_names = named
            return _mapped(known, [(name,) for name in given_names or ()], file.name)
        text = [column.text for column in known.values()]
        if any(text) and not all(text):
            raise DataError(
                f"{self.name} has labels that are numbers in some files, text in others"
            )
        if any(text):
            called, sentence = ordered(
                label for file, column in known.items() for label in _stored(file, column.label)
            )
            places = {name: place for place, name in enumerate(called)}
            said = sentence or f"text labels are classes in the alphabet's order ({shown(called)})"
            return ParquetClasses(called, dict.fromkeys(files, places), (said,))
        numbers = {n for file, column in known.items() for n in _stored(file, column.label)}
        names, notes = numbered(numbers)
        return ParquetClasses(names, {}, notes)


def _mapped(
    known: Mapping[Path, Columns], given: Sequence[tuple[str, ...]], source: str
) -> ParquetClasses:
    """Labels by name, in the order of the names that a source has.

    Raises:
        DataError: a file has names that the source does not have.
    """
    names, notes = tuple(called[0] for called in given), []
    labels: dict[Path, Mapping[Any, int]] = {}
    for file, columns in known.items():
        if columns.text:
            stored = sorted(_stored(file, columns.label))
            labels[file] = indices_of(stored, given, file.name, source)
        elif columns.class_names is None:
            notes.append(f"{file.name} names no classes: its labels are places in {source}")
        elif columns.class_names != names:
            places = indices_of(columns.class_names, given, file.name, source)
            labels[file] = dict(enumerate(places[name] for name in columns.class_names))
            if len(places) < len(names):
                notes.append(
                    f"{file.name} has {len(places)} of the {len(names)} classes of {source}"
                )
                continue
            notes.append(
                f"{file.name} has its classes in another order ({shown(columns.class_names)}) than "
                f"{source} ({shown(names)}), whose order is taken; labels follow the names"
            )
    return ParquetClasses(names, labels, tuple(notes))


def _stored(file: Path, column: str) -> set[Any]:
    """The labels in a file, each once."""
    return {
        label
        for _, batch in _batches(file, [column])
        for label in batch[column].unique().to_pylist()
        if label is not None
    }


def _batches(
    file: Path, columns: Sequence[str], wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, Any]]:
    """The batches of a file that hold wanted rows, or all, each with the number of its first."""
    with reading(file) as parquet:
        stop = 0
        for group in range(parquet.num_row_groups):
            start, stop = stop, stop + parquet.metadata.row_group(group).num_rows
            if wanted is not None and not _between(wanted, start, stop):
                continue
            for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[*columns]):
                yield start, batch
                start += len(batch)


def _between(rows: Sequence[int], start: int, stop: int) -> Sequence[int]:
    """Those of ascending rows in a range, counted from its first."""
    return [row - start for row in rows[bisect_left(rows, start) : bisect_left(rows, stop)]]


def _rows_of(file: Path) -> int:
    with reading(file) as parquet:
        return int(parquet.metadata.num_rows)


def _where(file: Path, row: int) -> str:
    return f"row {row} of {file.name}"


def _bytes(image: Any, where: str) -> bytes:
    """The bytes of an image.

    Raises:
        DataError: there are none.
    """
    data = image.get("bytes") if isinstance(image, dict) else image
    if not data:
        path = image.get("path") if isinstance(image, dict) else None
        instead = f" but the path {path!r}, which is not followed" if path else ""
        raise DataError(
            f"{where} holds no image bytes{instead}; images have to be embedded in the file (in "
            "`datasets` by embed_table_storage), or lie in one folder per class (folder:PATH)"
        )
    return bytes(data)


def _label(label: Any, places: Mapping[Any, int] | None, where: str) -> int:
    """The place among all classes of what is stored.

    Raises:
        DataError: there is no label, or it is negative, or without a name.
    """
    if label is None or (isinstance(label, int) and label < 0):
        got = "no label" if label is None else f"the label {label}"
        hint = "; -1 hides it: evaluate another split, such as [split=validation]"
        raise DataError(
            f"{where} has {got}; every image has to have a label of 0 or more"
            f"{hint if label == -1 else ''}"
        )
    if places is None:
        return int(label)
    if label not in places:
        raise DataError(
            f"{where} has the label {label}; labels have to be in 0 … {len(places) - 1}, for its "
            f"file names {len(places)} classes"
        )
    return places[label]
