"""Figures of a GPU: not measured without one, and beside each what was promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.scripts import WIDE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def test_speed_on_a_gpu_is_not_measured_without_one(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and of which figures."""
    script("gpu").main(["--figures", "kwta,curve"])
    assert capsys.readouterr().out == "not measured: no GPU (kwta, curve)\n"


@pytest.mark.whole
def test_figures_of_a_gpu_say_what_was_promised(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both networks in both precisions, and both ways to AutoAttack's figures."""
    gpu = script("gpu")
    with gpu.plain_torch():
        ways = list(gpu.float32("cpu", 1, "resnet10w16", 2))
    assert len(ways) == len(gpu.WAYS)
    assert "2 images, float32, as a run makes it: forward" in ways[0]
    timings = iter([[2.0, 2.4], [2.0, 2.6]])
    monkeypatch.setattr(gpu.kwta_speed, "race", lambda steps, device, rounds: next(timings))
    found = list(map(str, gpu.kwta("cpu", 1, "resnet10w16", 2)))
    assert "float32: 1.200 (at most 1.25: kept); 2.40 and 2.00 ms" in found[0]
    assert "bfloat16: 1.300 (at most 1.25: MISSED)" in found[1]
    shared = {"dataset": "digits", "n": 4, "seed": 0, "device": "cpu"}
    monkeypatch.setattr(gpu, "EPSILON", WIDE)
    monkeypatch.setattr(gpu, "EPSILONS", (WIDE, "0.4"))
    for figure, at_most in ((gpu.cascade, 0.7), (gpu.curve, 0.25)):
        one = figure("relu", shared)
        assert (one.at_most, one.ratio > 0) == (at_most, True)
        assert "n = 4" in one.what
