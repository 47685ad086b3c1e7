"""What the benchmarks share: works done in turn or in processes, and who wins, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.mark.parametrize(
    ("ratio", "even", "outcome"),
    [(1.06, 0.05, "loses"), (1.04, 0.05, "is even"), (0.94, 0.05, "wins"), (1.001, 0.0, "loses")],
)
def test_a_loser_is_told(
    script: Callable[[str], ModuleType], ratio: float, even: float, outcome: str
) -> None:
    """A cost above the peer's loses, in words."""
    assert f"it {outcome}: " in script("measuring").verdict("it", ratio, "theirs", even=even)


def test_rounds_are_interleaved(script: Callable[[str], ModuleType]) -> None:
    """Every round does each work once, in turn, and has its times."""
    done: list[str] = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    measuring = script("measuring")

    rounds = measuring.interleaved(works, 3)

    assert done == ["a", "b"] * 3
    assert [list(spent) for spent in rounds] == [["a", "b"]] * 3
    times = [{"a": measuring.Spent(t, 10 - t)} for t in (1.0, 2.0, 6.0)]
    assert measuring.medians(times) == {"a": (2.0, 8.0)}


def test_works_in_processes_of_their_own_come_back_in_order(
    script: Callable[[str], ModuleType],
) -> None:
    """A single one is done here."""
    measuring = script("measuring")

    with measuring.many(1) as each:
        assert each is map
    with measuring.many(3) as each:
        assert list(each(abs, [-3, 2, -1])) == [3, 2, 1]
