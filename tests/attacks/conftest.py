"""One thread, since on contended cores several are many times slower; and batches kept whole."""

from collections.abc import Iterator

import pytest
import torch

from bench.attacks.blocks import catch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nobody_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example is asked about to the end, whatever is broken already."""
    monkeypatch.setattr(catch, "SOLID", float("inf"))
