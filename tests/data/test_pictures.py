"""Some examples of a data set, read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.data import open_dataset
from tests.data.conftest import Pixels, WriteParquet, fill, png

if TYPE_CHECKING:
    from pathlib import Path

PLACES = [4, 0, 3]


def check(written: str, n: int) -> None:
    """They are those of `choose`, bit for bit."""
    found = open_dataset(written).pictures("test", n, PLACES)
    chosen = open_dataset(written).choose("test", n)

    assert found is not None
    np.testing.assert_array_equal(found, chosen.take(PLACES).inputs.numpy())
    assert found.dtype == np.float32


def test_pictures_of_the_digits_are_those_that_are_chosen() -> None:
    """Of 20 examples three, in another order."""
    check("digits", 20)


@pytest.mark.filterwarnings("ignore::bench.errors.InputNotice")
def test_pictures_from_files_are_those_that_are_chosen(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Gray ones among colour as well, from Parquet and from folders."""
    images = [*map(png, pixels[:5]), png(pixels[5][..., 0])]
    write_parquet(tmp_path / "pets.parquet", images, [0, 1, 2, 2, 1, 0])
    check(f"parquet:{tmp_path / 'pets.parquet'}", 5)
    check(
        f"folder:{fill(tmp_path / 'f', {f'{i % 2}/{i}.png': d for i, d in enumerate(images)})}", 5
    )
