"""Parquet files in Hugging Face's image-classification layout: encoded images and labels.

The image column holds bytes, alone or in a struct `{bytes, path}`; a path is never followed. The
schema metadata `huggingface` says which column holds images and which the labels, and what the
classes are called; where it is missing, the usual names of columns are tried and the classes are
called by their numbers.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data.base import Dataset, Split
from bench.data.images import EncodedImage, collect, family_of
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.api import Examples

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_BATCH_ROWS = 512
_SHARD = re.compile(r".*-\d+-of-(?P<total>\d+)\.parquet")


@dataclass(frozen=True)
class Columns:
    """Where a file keeps images and labels."""

    image: str
    label: str
    class_names: tuple[str, ...] | None
    """From the schema metadata; None where it names no classes."""


class ParquetDataset(Dataset):
    """`parquet:PATH`: a file, or a folder of `train-*.parquet` and `test-*.parquet` files.

    `validation-*` stands in for a missing `test-*`. A single file is the test split, or the train
    split when its name begins with `train`. The set is called by the last part of PATH without
    `.parquet`.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DataError(
                f"there is no file or folder {str(path)!r}; give the path of a Parquet file, or "
                "of a folder that holds train-*.parquet and test-*.parquet"
            )
        self.path = path
        self.name = path.resolve().name.removesuffix(".parquet")

    @functools.cached_property
    def family(self) -> str | None:
        """By the shape of the first image."""
        with contextlib.suppress(_NoSuchSplitError):
            return family_of(self._images("test"))
        return family_of(self._images("train"))

    def load(self, split: Split) -> Examples:
        """All examples of a split: its files in the order of their names, rows as stored."""
        count = sum(self._rows_of(file) for file in self._files(split))
        names = self._class_names
        return collect(self._images(split), count=count, class_names=names, name=self.name)

    def digest(self, split: Split) -> str:
        """SHA-256 over the number of classes, the images as stored, and their labels."""
        digest = hashlib.sha256(f"parquet {len(self._class_names)}\n".encode())
        for image in self._images(split):
            digest.update(f"{image.label} {len(image.data)}\n".encode())
            digest.update(image.data)
        return digest.hexdigest()

    def _files(self, split: Split) -> list[Path]:
        """The files of a split, sorted."""
        if not self.path.is_dir():
            if (split == "train") == self.path.name.startswith("train"):
                return [self.path]
            raise _NoSuchSplitError(
                f"{self.path.name} is one file and holds no {split} split; give a folder with "
                "train-*.parquet and test-*.parquet, or name a file of the train split train-…"
            )
        for stem in ("train",) if split == "train" else ("test", "validation"):
            pattern = re.compile(rf"{stem}(-.*)?\.parquet")
            files = sorted(file for file in self.path.iterdir() if pattern.fullmatch(file.name))
            if files:
                _check_complete(files)
                return files
        raise _NoSuchSplitError(
            f"{self.name} has no {split} split: no {split}-*.parquet in {str(self.path)!r}"
        )

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        """From the metadata, else the numbers up to the largest label of both splits."""
        files: list[Path] = []
        for split in ("train", "test"):
            with contextlib.suppress(_NoSuchSplitError):
                files += self._files(split)
        known = [_columns(file).class_names for file in files]
        named = next((names for names in known if names), None)
        if named:
            return named
        largest = -1
        for file in files:
            with _reading(file) as parquet:
                column = _columns(file).label
                for batch in parquet.iter_batches(columns=[column]):
                    values = [label for label in batch[column].to_pylist() if label is not None]
                    largest = max([largest, *values])
        return tuple(str(label) for label in range(largest + 1))

    def _rows_of(self, file: Path) -> int:
        with _reading(file) as parquet:
            return int(parquet.metadata.num_rows)

    def _images(self, split: Split) -> Iterator[EncodedImage]:
        """All rows of a split, read in batches."""
        for file in self._files(split):
            columns = _columns(file)
            row = 0
            with _reading(file) as parquet:
                wanted = [columns.image, columns.label]
                for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                    images = batch[columns.image].to_pylist()
                    for image, label in zip(images, batch[columns.label].to_pylist(), strict=True):
                        yield _checked(image, label, f"row {row} of {file.name}")
                        row += 1


class _NoSuchSplitError(DataError):
    """The split that was asked for is not there; the other one may be."""


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`, whose errors come out as one line."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{str(file)!r} cannot be read as a Parquet file ({reason}); "
            "it may be damaged or incomplete: fetch or write it again"
        ) from error


def _checked(image: Any, label: Any, where: str) -> EncodedImage:
    """One row, checked.

    Raises:
        DataError: the image or the label is missing, or the label is negative.
    """
    data = image.get("bytes") if isinstance(image, dict) else image
    if not data:
        raise DataError(f"{where} holds no image bytes; images have to be embedded in the file")
    if label is None or label < 0:
        got = "no label" if label is None else f"the label {label}"
        raise DataError(f"{where} has {got}; every image has to have a label of 0 or more")
    return EncodedImage(where, data, label)


def _columns(file: Path) -> Columns:
    """Find the image and the label column of a file.

    Raises:
        DataError: there is none, or it is of the wrong type.
    """
    import pyarrow.types

    with _reading(file) as parquet:
        schema = parquet.schema_arrow
    features = _features(schema.metadata or {})

    def pick(what: str, usual: tuple[str, ...]) -> str:
        marked = [name for name, kind in features.items() if kind.get("_type") == what]
        for name in (*[name for name in usual if name in marked], *marked, *usual):
            if name in schema.names:
                return name
        raise DataError(
            f"{file.name} has no column of {'images' if what == 'Image' else 'labels'}: it has "
            f"{', '.join(schema.names)}; call it {' or '.join(usual)}"
        )

    columns = pick("Image", _IMAGE_NAMES), pick("ClassLabel", _LABEL_NAMES)
    image, label = (schema.field(column).type for column in columns)
    if pyarrow.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pyarrow.types.is_binary(image) or pyarrow.types.is_large_binary(image)):
        raise DataError(
            f"the column {columns[0]!r} of {file.name} has to hold bytes, or structs with bytes; "
            f"got {image}"
        )
    if not pyarrow.types.is_integer(label):
        raise DataError(
            f"the column {columns[1]!r} of {file.name} has to hold whole numbers; got {label}"
        )
    names = features.get(columns[1], {}).get("names")
    return Columns(*columns, tuple(map(str, names)) if isinstance(names, list) else None)


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of each column, or nothing."""
    try:
        described = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in described.items() if isinstance(kind, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _check_complete(files: list[Path]) -> None:
    """Refuse a split of which some files are missing, by their names `…-00000-of-00004`."""
    totals = {int(match["total"]) for file in files if (match := _SHARD.fullmatch(file.name))}
    if totals and totals != {len(files)}:
        raise DataError(
            f"{files[0].parent.name} holds {len(files)} of the {max(totals)} files that "
            f"{files[0].name} belongs to; fetch the others"
        )
