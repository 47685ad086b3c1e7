"""What tests of several packages share."""

from __future__ import annotations

import pytest

from bench.trust import Request


@pytest.fixture
def gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examination measures gradients and nothing else: enough for a sweep, and quick."""
    asked = "bench.run.inquiry.requests"
    monkeypatch.setattr(asked, lambda case: [Request("probe-gradients", case.headline.text)])
