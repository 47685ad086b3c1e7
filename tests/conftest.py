"""What tests of several packages share."""

from __future__ import annotations

import pytest

from bench.trust import asked


@pytest.fixture
def gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examination measures gradients and nothing else: enough for a sweep, and quick."""
    monkeypatch.setattr(
        "bench.run.inquiry.requests",
        lambda case, menu: [asked("probe-gradients", case.headline.text)],
    )
