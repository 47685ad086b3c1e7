from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.data import DATASETS, open_dataset
from bench.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", [name for name in DATASETS if ":" not in name])
def test_every_listed_name_opens(name: str) -> None:
    """A set with a name of its own is called by it, and is its own family."""
    dataset = open_dataset(name)

    assert (name, name) == (dataset.name, dataset.family)


@pytest.mark.parametrize(
    ("written", "name"),
    [("CIFAR-10", "cifar10"), ("Fashion_MNIST", "fashion-mnist"), (" Digits ", "digits")],
)
def test_names_are_taken_in_any_case(written: str, name: str) -> None:
    """And kept as they are listed, so that a run has one name for its data."""
    dataset = open_dataset(written)

    assert (name, name) == (dataset.name, dataset.written)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("digit", "did you mean 'digits'"),
        ("cifar-11", "did you mean 'cifar10'"),
        ("fashion_mnits", "did you mean 'fashion-mnist'"),
        ("imagenet", "known: .*folder:PATH.*parquet:PATH"),
        ("parket:images", "unknown data set 'parket:images'"),
        ("digits:0", "did you mean 'digits'"),
    ],
)
def test_unknown_names_get_a_hint(written: str, hint: str) -> None:
    """A slip of the pen gets the right name, anything else the list."""
    with pytest.raises(UnknownNameError, match=hint):
        open_dataset(written)


@pytest.mark.parametrize("scheme", ["parquet", "folder"])
def test_schemes_need_a_path(scheme: str, tmp_path: Path) -> None:
    """No path, and a path to nothing, are told apart."""
    with pytest.raises(DataError, match=f"write {scheme}:PATH"):
        open_dataset(f"{scheme}:")
    with pytest.raises(DataError, match=r"there is no .*nothing-here"):
        open_dataset(f"{scheme}:{tmp_path / 'nothing-here'}")
