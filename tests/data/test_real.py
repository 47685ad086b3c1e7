"""Real images, from the folder that WINNOW_DATA names; skipped where it is not set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bench.data import Dataset, open_dataset, subset

DIGITS = tuple("0123456789")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def data() -> Path:
    """The folder of real data sets."""
    if not os.environ.get("WINNOW_DATA"):
        pytest.skip("needs real images: set WINNOW_DATA to a folder with mnist and cifar10-jpeg")
    return Path(os.environ["WINNOW_DATA"])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "family", "shape", "class_names"),
    [
        ("mnist", "mnist", (1, 28, 28), DIGITS),
        ("cifar10-jpeg", "cifar10", (3, 32, 32), CIFAR),
    ],
)
def test_real_test_split_is_whole(
    data: Path, name: str, family: str, shape: tuple[int, int, int], class_names: tuple[str, ...]
) -> None:
    """All 10,000 examples, of all ten classes, and the same ones each time."""

    def opened() -> Dataset:
        return open_dataset(f"parquet:{data / name}")

    examples = opened().load("test")

    assert (10_000, shape, class_names) == (len(examples), examples.shape, examples.class_names)
    assert (name, family) == (opened().name, opened().family)
    assert torch.bincount(subset(examples, 1000).labels).tolist() == [100] * 10
    assert opened().digest("test") == opened().digest("test")
    assert examples.digest == opened().load("test").digest
