"""What all tests of training share."""

import io
from typing import Any

import pytest

from bench.train import history


class Undrawn:
    """Stands for a figure."""

    def savefig(self, target: io.BytesIO, **_: Any) -> None:
        """Nothing to see."""
        target.write(b"undrawn")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not drawn: that takes longer than the trainings here."""
    monkeypatch.setattr(history, "draw", lambda history, title: Undrawn())
