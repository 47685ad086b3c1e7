"""Runs that pages are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare

FOLDER = Path(bench.__file__).parent.parent / "results" / "published"
#: Has four defenses, several epsilons, evidence of every status, twins and suites.
PUBLISHED = FOLDER / "f33e9b0e0848c645"
#: Has two defenses and one epsilon.
SMALL = FOLDER / "3133936dc17e03df"


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on digits with a broken example or more by each of two attacks."""
    config = RunConfig(
        ("relu",),
        attacks="fgsm,pgd[steps=10]",
        epsilons=("0.1", "0.2"),
        n=20,
        examine=False,
        twins=False,
        workers=0,
        out=tmp_path_factory.mktemp("page"),
    )
    folder = run(prepare(config)).folder
    assert folder is not None
    return folder
