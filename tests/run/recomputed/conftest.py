"""An honest run, a copy of it to be spoilt, and how shares of runs are computed again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.run.rebuild import Source
from bench.run.recompute import Recomputed, recompute
from bench.run.sampling import Sampling
from tests.run.recomputed.runs import FACTORIES, evaluated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest run of `Sum`."""
    return evaluated(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(finished, tmp_path / finished.name)


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that makes the models."""
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(FACTORIES)
    return path


@pytest.fixture
def again(factories: Path) -> Callable[..., Recomputed]:
    """Computes a share of a run again."""

    def computed(folder: Path, share: str = "all", seed: int = 0, model: str = "Sum") -> Recomputed:
        source = Source("cpu", model=f"{factories}:{model}")
        return recompute(folder, Sampling.parse(share, seed), source)

    return computed
