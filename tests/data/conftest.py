from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Pixels = Any
"""uint8 array of shape (H, W) or (H, W, 3)."""
WriteParquet = Any
"""See `write_parquet` below."""


def png(pixels: Pixels) -> bytes:
    """Encode pixels without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def fill(root: Path, images: dict[str, bytes]) -> Path:
    """Write files by their relative paths."""
    for name, data in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """A function that writes images and labels as Hugging Face's datasets library does."""

    def write(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[Any],
        *,
        columns: tuple[str, str] = ("image", "label"),
        class_names: Sequence[str] | None = None,
        described: bool = True,
        label_type: Any = None,
        further: dict[str, Any] | None = None,
    ) -> Path:
        table = pa.table(
            {
                columns[0]: pa.array(
                    [{"bytes": data, "path": None} for data in images],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                columns[1]: pa.array(labels, label_type or pa.int64()),
                **(further or {}),
            }
        )
        if described:
            kind: dict[str, Any] = {"_type": "Value", "dtype": "int64"}
            if class_names is not None:
                kind = {"_type": "ClassLabel", "names": list(class_names)}
            features = {columns[0]: {"_type": "Image"}, columns[1]: kind}
            features |= {name: {"_type": "ClassLabel", "names": ["x"]} for name in further or {}}
            metadata = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": metadata})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=2)
        return path

    return write


@pytest.fixture
def pixels() -> Pixels:
    """Random colour images, uint8 of shape (6, 5, 4, 3): height 5, width 4."""
    return np.random.RandomState(0).randint(0, 256, (6, 5, 4, 3), dtype=np.uint8)
