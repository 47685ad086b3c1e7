"""Which shards of a run are computed again: drawn uniformly, by a seed that no forger could know.

Beyond those that are drawn, every defense gets one.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.record.files import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Sampling:
    """How much of a run is computed again, and how.

    Raises:
        UsageError: a share that is none, a negative seed, or no worker.
    """

    share: Fraction
    """Of the stored shards, in [0, 1]."""
    seed: int
    """Which of them: it has to be unknown to whoever made the run."""
    workers: int = 1
    """Processes; a program's own model is computed in this one."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(_share_refused(str(self.share)))
        if self.seed < 0:
            raise UsageError(f"--recompute-seed has to be from 0 up (got {self.seed})")
        if self.workers < 1:
            raise UsageError(f"--workers has to be from 1 up (got {self.workers})")

    @classmethod
    def parse(cls, share: str, seed: int | None = None, workers: int = 1) -> Sampling:
        """As the command line has it: a fraction in (0, 1], `all`, or 0; a fresh seed where None.

        Raises:
            UsageError: see the class.
        """
        seed = secrets.randbits(32) if seed is None else seed
        if share == "all":
            return cls(Fraction(1), seed, workers)
        with contextlib.suppress(ValueError, ZeroDivisionError):
            return cls(Fraction(share), seed, workers)
        raise UsageError(_share_refused(share))


def _share_refused(share: str) -> str:
    return (
        f"--recompute has to be a fraction of the stored shards in (0, 1], such as 0.02, or all, "
        f"or 0 for none (got {share!r})"
    )


def draw(
    shards: Mapping[tuple[str, int], str], sampling: Sampling, stored: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The shards that are computed again: drawn uniformly, and the first of each other defense.

    Args:
        shards: (cell key, number) of those that can be, and their defense.
        sampling: the share, of all that are stored, and the seed that alone decides which.
        stored: how many are.
    """
    count = min(len(shards), math.ceil(sampling.share * stored))
    order = sorted(shards, key=lambda shard: digest_of([sampling.seed, *shard]))
    drawn = order[:count]
    if not drawn:
        return [], []
    further = {shards[shard]: shard for shard in reversed(order)}
    for shard in drawn:
        further.pop(shards[shard], None)
    return drawn, list(further.values())
