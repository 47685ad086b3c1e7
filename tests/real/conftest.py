from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def real_subset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, int], str]:
    """A function that names a small part of a real data set, as `--dataset` takes it.

    It is given the set's folder in WINNOW_DATA and the numbers of training and of test images: the
    first of each class, classes taking turns, with the schema and its metadata as they are.
    """
    if not os.environ.get("WINNOW_DATA"):
        pytest.skip("needs real images: set WINNOW_DATA to a folder with mnist and cifar10-jpeg")
    source = Path(os.environ["WINNOW_DATA"])
    target = tmp_path_factory.mktemp("real")

    def write(name: str, train: int, test: int) -> str:
        folder = target / f"{train}-{test}" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            for split, count in (("train", train), ("test", test)):
                file = f"{split}-00000-of-00001.parquet"
                table = pq.read_table(source / name / file)
                pq.write_table(
                    table.take(_in_turns(table["label"].to_numpy(), count)), folder / file
                )
        return f"parquet:{folder}"

    return write


def _in_turns(labels: np.ndarray[tuple[int], np.dtype[np.int64]], count: int) -> list[int]:
    """The first `count` rows where each class gives one row in its turn."""
    rank = np.empty_like(labels)
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    rows: list[int] = np.lexsort((labels, rank))[:count].tolist()
    return rows


@pytest.fixture(scope="session")
def mnist(real_subset: Callable[[str, int, int], str]) -> str:
    """100 training and 20 test images of MNIST."""
    return real_subset("mnist", 100, 20)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; its checkpoints, up to 250 MB each, are deleted afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path / "results" / "checkpoints", ignore_errors=True)
