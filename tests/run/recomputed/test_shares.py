"""Which shards of a run are computed again: a share, drawn by a seed."""

from __future__ import annotations

import collections
import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import UsageError
from bench.run.sampling import Sampling, draw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.run.recompute import Recomputed


SHARDS = {(f"cell{number // 4}", number % 4): f"defense{number // 16}" for number in range(48)}


def test_shards_are_drawn_uniformly_by_the_seed_alone() -> None:
    """Of 48, twelve in each of 400 draws: every one about as often, and another seed others."""
    share = Fraction(1, 4)
    draws = [draw(SHARDS, Sampling(share, seed), 48)[0] for seed in range(400)]
    counts = collections.Counter(shard for drawn in draws for shard in drawn)
    assert all(len(set(drawn)) == 12 for drawn in draws)
    # Chi-square with 47 degrees of freedom, of draws without replacement: 47 on average.
    expected = 400 / 4
    statistic = sum((counts[shard] - expected) ** 2 for shard in SHARDS) / (expected * 3 / 4)
    assert 20 < statistic < 47 + 5 * (2 * 47) ** 0.5
    assert draws[0] == draw(dict(reversed(SHARDS.items())), Sampling(share, 0), 48)[0]
    assert len({frozenset(drawn) for drawn in draws}) == 400


@pytest.mark.parametrize("share", ["1/100000", "0.02", "0.5", "all"])
def test_every_defense_gets_a_shard(share: str) -> None:
    """Beyond those that are drawn, as many of which as the share says, rounded up."""
    sampling = Sampling.parse(share, 3)
    drawn, further = draw(SHARDS, sampling, 48)
    assert len(drawn) == {"1/100000": 1, "0.02": 1, "0.5": 24, "all": 48}[share]
    assert not set(drawn) & set(further)
    met = collections.Counter(SHARDS[shard] for shard in (*drawn, *further))
    assert met.keys() == {"defense0", "defense1", "defense2"}
    assert all(met[SHARDS[shard]] == 1 for shard in further)
    assert draw(SHARDS, Sampling(Fraction(0), 3), 48) == ([], [])


def test_a_fresh_seed_is_drawn_each_time_and_the_same_one_does_the_same_again(
    finished: Path, again: Callable[..., Recomputed]
) -> None:
    """Nobody who made the run can know it; who has it gets the same shards."""
    assert Sampling.parse("all").seed != Sampling.parse("all").seed
    first, second = (dataclasses.replace(again(finished, "0.1", 11), seconds=0) for _ in range(2))
    assert first == second
    assert "--recompute-seed 11" in first.text
    assert 0 < first.drawn < first.stored


@pytest.mark.parametrize("share", ["", "2%", "-0.1", "1.1", "nan", "inf", "1/0", "ALL", "5"])
def test_what_is_no_share_is_refused(share: str) -> None:
    """In one line, with what is allowed."""
    with pytest.raises(UsageError, match=r"--recompute has to be a fraction .* or all, or 0"):
        Sampling.parse(share)


@pytest.mark.parametrize(("seed", "workers"), [(-1, 1), (0, 0)])
def test_what_is_no_seed_and_no_worker_is_refused(seed: int, workers: int) -> None:
    """By the option's name."""
    with pytest.raises(UsageError, match="has to be from"):
        Sampling(Fraction(1), seed, workers)
