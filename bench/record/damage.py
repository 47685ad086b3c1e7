"""What a damaged or foreign file may raise, and the form that what is read has to have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

#: What reading a damaged file raises, beside what libraries have of their own.
DAMAGE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError,
          RecursionError, MemoryError)  # fmt: skip


def first_line(error: BaseException) -> str:
    """What an error says, short enough for one line."""
    return " ".join(str(error).split())[:200]


def check_columns(table: Any, columns: Mapping[str, str]) -> None:
    """Check a table of Arrow's: each column there once, of its type, nothing missing in it.

    Args:
        table: as read.
        columns: by name `int64`, `bool`, `float64` or `str`; `extra_…` may stand beside them.

    Raises:
        ValueError: naming the column.
    """
    import pyarrow as pa

    names = table.column_names
    lacking = [column for column in columns if column not in names]
    if lacking:
        raise ValueError(f"it lacks the column(s) {', '.join(lacking)}")
    is_type = {
        "int64": pa.types.is_int64,
        "bool": pa.types.is_boolean,
        "float64": pa.types.is_float64,
        "str": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    }
    for name in names:
        wanted = columns.get(name) or ("float64" if name.startswith("extra_") else "none")
        if names.count(name) > 1 or wanted == "none":
            raise ValueError(f"it has a column {name[:40]!r} that it cannot have")
        column = table.column(name)
        if not is_type[wanted](column.type):
            raise ValueError(f"{name[:40]} has to be {wanted} (got {column.type})")
        if wanted != "float64" and column.null_count:  # NaN is stored as null
            raise ValueError(f"{name} is missing {column.null_count} values")


def header_of(data: bytes) -> dict[str, Any]:
    """The JSON that a safetensors file begins with, after its length in eight bytes."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def check_block(
    tensors: tuple[np.ndarray, np.ndarray], origins: object, number: int, size: int
) -> None:
    """Check which adversarial examples are in a block, each there once.

    Args:
        tensors: of the examples int64, (N,); distances, float64, (N,).
        origins: N texts.
        number: of the block.
        size: the examples of a block.

    Raises:
        ValueError: saying what they are not.
    """
    import numpy as np

    index, distance = tensors
    kinds = [(array.dtype.str, array.ndim) for array in tensors]
    if kinds != [("<i8", 1), ("<f8", 1)]:
        raise ValueError(f"its tensors are {kinds}")
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise ValueError("its origins are no texts")
    if len(set(index.tolist())) != len(index):
        raise ValueError("an example is there twice")
    if any(example // size != number for example in index.tolist()):
        raise ValueError("an example is not of this block")
    if not np.isfinite(distance).all():
        raise ValueError("a number is not finite")


def check_inputs(inputs: np.ndarray, count: int) -> None:
    """Check adversarial inputs: finite float32, (count, C, H, W).

    Raises:
        ValueError: saying what they are not.
    """
    import numpy as np

    if (inputs.dtype.str, inputs.ndim, len(inputs)) != ("<f4", 4, count):
        raise ValueError(f"{count} inputs are {inputs.dtype} {inputs.shape}")
    if not np.isfinite(inputs).all():
        raise ValueError("a number is not finite")


def check_packed(tensors: tuple[np.ndarray, np.ndarray, np.ndarray], count: int) -> None:
    """Check compressed inputs, but for what each holds.

    Args:
        tensors: their bytes one after the other, uint8; the length of each, int64, (count,); the
            shape of all, int64, (3,).
        count: of inputs.

    Raises:
        ValueError: saying what they are not.
    """
    data, lengths, shape = tensors
    kinds = [(array.dtype.str, array.ndim) for array in tensors]
    if kinds != [("|u1", 1), ("<i8", 1), ("<i8", 1)]:
        raise ValueError(f"its tensors are {kinds}")
    if len(lengths) != count or len(shape) != 3 or min(shape.tolist()) < 1:
        raise ValueError(f"{len(lengths)} inputs of the shape {shape.tolist()} for {count}")
    if min(lengths.tolist(), default=1) < 1 or sum(lengths.tolist()) != len(data):
        raise ValueError("its inputs do not fill it")
