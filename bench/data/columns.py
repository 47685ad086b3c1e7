"""Which columns of a Parquet file hold images and labels, and what its classes are called."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data.foreign import what_is
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.data.reading import Reading

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
#: Columns that may say which split a row is of.
_SPLIT_NAMES = ("split", "subset", "fold", "partition", "set")


@dataclass(frozen=True)
class Columns:
    """Where a file keeps images and labels."""

    image: str
    label: str
    class_names: tuple[str, ...] | None
    """From the schema metadata; None where it names no classes."""
    text: bool
    """Whether labels are class names rather than their numbers."""
    notes: tuple[str, ...]
    """On columns that could have been meant as well."""


@contextlib.contextmanager
def reading(file: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`, whose errors come out as one line."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        found = what_is(file)
        if found and not found.startswith(("it is a Parquet file", "it is empty")):
            raise DataError(f"{str(file)!r} is no Parquet file: {found}") from error
        raise DataError(
            f"{str(file)!r} cannot be read as a Parquet file ({reason}); "
            "it may be of another kind, damaged or incomplete: fetch or write it again"
        ) from error


def columns_of(file: Path, asked: Reading) -> Columns:
    """Find the image and the label column of a file.

    A name that the user gave comes first, then the usual ones, then whatever Hugging Face's
    description in the schema metadata says is such a column.

    Raises:
        DataError: there is none, there are several, or it is of the wrong type.
    """
    with reading(file) as parquet:
        schema = parquet.schema_arrow
    features = _features(schema.metadata or {})
    notes: list[str] = []
    serves = {"image": _is_bytes, "label": _is_label}

    def pick(key: str, what: str, usual: tuple[str, ...]) -> str:
        wanted = getattr(asked, key)
        if wanted and wanted not in schema.names:
            raise DataError(f"{file.name} has no column {wanted!r}: it has {_all(schema)}")
        marked = [
            n for n, kind in features.items() if kind.get("_type") == what and n in schema.names
        ]
        named = [name for name in usual if name in schema.names]
        if marked:  # of what is not marked, only what could be read as well
            named = [
                n for n in named if n in marked or serves[key](schema.types[schema.names.index(n)])
            ]
        able = [*dict.fromkeys([*marked, *named])]
        likely = [name for name in marked if name in usual] or named
        if not able and not wanted:
            raise DataError(
                f"{file.name} has no column of {key}s: it has {_all(schema)}; call it "
                f"{' or '.join(usual)}, or say which it is: parquet:PATH[{key}=NAME]"
            )
        if not wanted and len(able) > 1 and len(likely) != 1:
            raise DataError(
                f"{file.name} has several columns of {key}s ({', '.join(able)}); say which is "
                f"meant: parquet:PATH[{key}={able[0]}]"
            )
        found = wanted or (likely or able)[0]
        if schema.names.count(found) > 1:
            raise DataError(f"{file.name} has several columns called {found!r}; rename all but one")
        if others := [name for name in able if name != found and not wanted]:
            notes.append(
                f"the {key}s are those of the column {found!r}, not of {', '.join(others)}; "
                f"another is taken by [{key}={others[0]}]"
            )
        return found

    if sorting := [name for name in schema.names if name.lower() in _SPLIT_NAMES]:
        notes.append(
            f"{file.name} has a column {sorting[0]!r}, which is not followed: all its rows are read"
        )
    image, label = pick("image", "Image", _IMAGE_NAMES), pick("label", "ClassLabel", _LABEL_NAMES)
    _check_images(file, image, schema.field(image).type)
    text = _is_text(file, label, schema.field(label).type)
    names = features.get(label, {}).get("names")
    called = tuple(map(str, names)) if isinstance(names, list) else None
    return Columns(image, label, called, text, tuple(notes))


def _check_images(file: Path, column: str, kind: Any) -> None:
    import pyarrow.types as types

    if _is_bytes(kind):
        return
    bytes_ = kind.field("bytes").type if _has_bytes(kind) else kind
    paths = types.is_null(bytes_) and kind.get_field_index("path") >= 0
    if paths or types.is_string(kind) or types.is_large_string(kind):
        advice = (
            "paths are not followed: write the images' bytes into the file (in `datasets` by "
            "embed_table_storage), or into one folder per class (folder:PATH)"
        )
    elif types.is_nested(kind):
        advice = "encode each array as a PNG, or pass arrays to bench.evaluate(model, x, y)"
    else:
        advice = "say which column holds images: parquet:PATH[image=NAME]"
    raise DataError(
        f"the column {column!r} of {file.name} has to hold bytes, or structs with bytes; "
        f"got {str(kind)[:80]} ({advice})"
    )


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    bytes_ = kind.field("bytes").type if _has_bytes(kind) else kind
    return bool(types.is_binary(bytes_) or types.is_large_binary(bytes_))


def _is_label(kind: Any) -> bool:
    import pyarrow.types as types

    return _is_name(kind) or bool(types.is_integer(kind))


def _is_name(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _has_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _is_text(file: Path, column: str, kind: Any) -> bool:
    """Whether labels are class names.

    Raises:
        DataError: they are neither names nor whole numbers.
    """
    import pyarrow.types as types

    if _is_label(kind):
        return _is_name(kind)
    advice = "say which column it is: parquet:PATH[label=NAME]"
    if types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        advice = f"cast it to int64, or {advice}"
    elif types.is_nested(kind):
        advice = "one label per image; of one-hot rows take the place of the 1"
    raise DataError(
        f"the column {column!r} of {file.name} has to hold whole numbers or class names; "
        f"got {str(kind)[:80]} ({advice})"
    )


def _all(schema: Any) -> str:
    return ", ".join(schema.names)


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of each column, or nothing."""
    try:
        described = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in described.items() if isinstance(kind, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
