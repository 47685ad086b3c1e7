"""What the harness itself costs, per shard and per task: whatever is no pass of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.scripts import count, printed, right

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def test_overhead(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """The passes that are made again are the library's, and the shard's with the judge's."""
    arguments = ["--n", "4", "--rounds", "1", "--attacks", "pgd", "--defenses", "relu"]
    script("overhead").main([*arguments, "--epsilon", "0.001"])

    (line,), below = printed(capsys)
    active = right("relu", 4)
    assert count(line["library: passes"]) == (41 + 40) * active
    # Nothing breaks at such an epsilon: nobody leaves, and nobody is judged alone.
    assert count(line["shard: passes"]) == (41 + 40 + 1) * active
    assert "the aim of 5 %" in below


def test_the_harness_s_own_share(script: Callable[[str], ModuleType]) -> None:
    """What is no pass, in parts of passes, beyond what the library has of it."""
    overhead = script("overhead")
    seconds = {"library passes": 2.0, "library": 2.2, "shard passes": 1.0, "shard": 1.2}
    spent = {name: overhead.Spent(t, 10 * t) for name, t in {**seconds, "storing": 0.05}.items()}
    # A round in which the machine was slow all along says the same; one odd round says nothing.
    slow = {name: overhead.Spent(3 * t.seconds, 3 * t.processor) for name, t in spent.items()}
    odd = spent | {"shard passes": overhead.Spent(5.0, 50.0), "library": overhead.Spent(9.0, 90.0)}

    measured = overhead.Measured("pgd", "relu", 81, 40, [spent, odd, slow])

    # The library: 2.2 / 2.0, a tenth of its passes; here 1.25 / 1.0, a quarter.
    assert [measured.own(), measured.own("processor")] == pytest.approx([15, 15])
    assert measured.more() == pytest.approx(100 * (1.25 / 2.2 - 1))
    assert "MISSES the aim" in overhead.words(measured)


def test_driver(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """Every task is answered and paid for; what is written and what is not are the whole."""
    script("driver").main(["--n", "20", "--tasks", "4", "--shard", "10", "--hands", "2"])

    (whole, *parts), below = printed(capsys)
    assert whole["of a task"] == "all (4 tasks of 10 examples, 2 hands)"
    for column in ("processor (ms)", "clock (ms)"):
        together = sum(float(part[column]) for part in parts)
        assert float(whole[column]) == pytest.approx(together, abs=0.02)
    assert "n = 20, shard = 10" in below
