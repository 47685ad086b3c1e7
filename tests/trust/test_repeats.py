"""Failures are repeated with another seed, the strongest first, until the verdict is settled."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bench.trust import asked, evidence_of, pending
from bench.trust.evidence import Check
from tests.trust.frames import N, case, honest
from tests.trust.situations import MASKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.trust import Evidence


def failing(family: str, excess: float, *, final: bool = False, item: str = "") -> Evidence:
    """A failure that is so many times its threshold, and can be repeated where it is not final."""
    check = Check(item or f"{family}-{excess:g}", family, "A title", "A source")
    limit = 4
    found = check.counted(range(int(limit * excess)), N, "Words.", threshold=limit)
    again = () if final else (asked(f"{family}-{excess:g}", "0.1", 1),)
    return dataclasses.replace(found, recheck=again)


def next_ones(*evidence: Evidence, known: Sequence[str] = ()) -> list[str]:
    """The attacks of what is repeated next."""
    return [c.attack for c in pending(evidence, {asked(name, "0.1", 1) for name in known})]


def test_the_strongest_families_are_repeated_until_the_verdict_is_settled() -> None:
    """Two families set it: once both are final, what is left would change nothing."""
    a, b, c = failing("a", 2), failing("b", 9), failing("c", 5)
    weaker = failing("b", 8)
    assert next_ones(a, b, c, weaker) == ["b-9", "c-5"]
    settled = failing("b", 9, final=True)
    assert next_ones(a, settled, weaker, c) == ["c-5"]
    assert next_ones(a, settled, failing("c", 5, final=True), weaker) == []
    assert next_ones(a) == ["a-2"]


def test_what_cannot_be_repeated_leaves_its_place_to_the_next() -> None:
    """A cell that ran or failed is asked for once; the next strongest of its family follows."""
    evidence = failing("b", 9), failing("b", 8), failing("a", 2)
    assert next_ones(*evidence, known=["b-9"]) == ["b-8", "a-2"]
    assert next_ones(*evidence, known=["b-9", "b-8", "a-2"]) == []


def test_randomness_settles_nothing() -> None:
    """That a model is random is put aside where it was attacked over its draws."""
    random = failing("answers", 50, final=True, item="randomised")
    fault = failing("output", 1, final=True)
    assert next_ones(random, failing("a", 2), failing("b", 1)) == ["a-2", "b-1"]
    assert next_ones(fault, failing("a", 2), failing("b", 1)) == ["a-2"]


def test_what_was_seen_with_one_seed_says_so() -> None:
    """Every failure that can be repeated and was not, in its own words."""
    counting = [i for i in evidence_of(case({**honest(), **MASKED})) if i.counts]
    once = [item for item in counting if item.recheck]
    assert once
    assert [i for i in counting if i.sentence.endswith("Seen with one seed.")] == once
