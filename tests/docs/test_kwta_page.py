"""The page on the founding case says what its committed summaries say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bench
from bench.report import read_summaries

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(bench.__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`benchmarks/kwta.py`."""
    spec = importlib.util.spec_from_file_location("kwta_page", ROOT / "benchmarks" / "kwta.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_table_follows_from_the_committed_summaries(script: ModuleType) -> None:
    """Written again, the page is the same to the last byte."""
    page = script.PAGE.read_text(encoding="utf-8")
    summaries = read_summaries(ROOT / "results" / "published")

    assert script.with_table(page, script.render(summaries)) == page


def test_every_checkpoint_of_the_table_is_committed(script: ModuleType) -> None:
    """Each weights digest on the page is that of a record beside committed weights."""
    page = script.PAGE.read_text(encoding="utf-8")
    table = page.partition(script.BEGIN)[2].partition(script.END)[0]
    records = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "defenses/checkpoints").glob("*.json")
    )

    digests = re.findall(r"\| ([0-9a-f]{8}) \|", table)

    assert digests
    assert [d for d in digests if f'"weights_digest": "{d}' not in records] == []
