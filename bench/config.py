"""`RunConfig`: what a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.record.schema import Sweep

#: How many examples a run takes where nothing is said.
DEFAULT_N = 100
#: Examples of a shard where nothing is said: on the CPU, where they are shared by workers, and on
#: a GPU, which smaller batches leave idle. A network that does not fit gets them in parts.
SHARD_SIZE, GPU_SHARD_SIZE = 50, 500
#: Passes per example that escalation may spend on a defense where nothing is said.
ESCALATION = 15_000


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do, as the command line or a program says it.

    Raises:
        UsageError: a number of something is below 1.
    """

    defenses: tuple[str, ...]
    attacks: str = "standard"
    """Attack and suite names, separated by commas."""
    dataset: str = "digits"
    norm: Norm = Norm.LINF
    epsilons: tuple[str, ...] = ()
    """As written; where empty the suite's, if `attacks` is one that has some, or the data set's."""
    n: int | None = None
    """`DEFAULT_N`, or all there are of fewer, where None."""
    seed: int = 0
    device: str = "auto"
    batch_size: int | None = None
    """Of one forward pass; results do not depend on it."""
    shard_size: int | None = None
    """Part of every cell's key: attacks draw random numbers for the whole shard. `SHARD_SIZE` or
    `GPU_SHARD_SIZE` where None."""
    workers: int | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    out: Path = Path("results/runs")
    fresh: bool = False
    twins: bool = True
    """Whether each defense's twin is evaluated beside it, at the headline epsilon."""
    examine: bool = True
    """Whether each defense is examined as well as attacked."""
    escalate: bool = True
    """Whether failed evidence asks for stronger attacks."""
    budget: int | None = None
    """Passes that the run may spend; what does not fit stays incomplete."""
    escalation_budget: int | None = None
    """Passes that escalation may spend on each defense; `ESCALATION` per example where None."""
    sweep: Sweep = "bracket"
    """How epsilons are gone over (`bench.matrix.sweeps`); `each` where nothing is examined, since
    what a sweep infers could not be trusted."""
    command: str = ""

    def __post_init__(self) -> None:
        for name, value in (
            ("n", self.n),
            ("batch-size", self.batch_size),
            ("shard-size", self.shard_size),
            ("workers", self.workers),
            ("budget", self.budget),
        ):
            if value is not None and value < 1:
                raise UsageError(f"--{name} has to be at least 1 (got {value})")
