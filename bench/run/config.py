"""`RunConfig`: what a run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from bench.errors import UsageError
from bench.matrix.patience import Patience
from bench.record.schema import Sweep
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How many examples a run takes where nothing is said.
DEFAULT_N = 100


#: Examples of a shard where nothing is said: on the CPU, where they are shared by workers, twice as
#: many of images of up to so many values, of which a call costs more than their arithmetic (as
#: measured at 64 and 784), and on a GPU, which smaller batches leave idle. What does not fit goes
#: in parts.
SHARD_SIZE, SMALL, GPU_SHARD_SIZE = 50, 256, 500


#: Passes per example that escalation may spend on a defense where nothing is said.
ESCALATION = 15_000


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do, as the command line or a program says it.

    Raises:
        UsageError: a number that is too small, or a word that is none of those allowed.
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
    executor: str = "local"
    """Where tasks are done: on this machine, or as `ray` or `ray://HOST:PORT` on a cluster."""
    batch_size: int | None = None
    """Of one forward pass; results do not depend on it."""
    shard_size: int | None = None
    """Part of every cell's key: attacks draw random numbers for the whole shard. Where None see
    `usual_shard_size`."""
    workers: int | None = None
    """Processes that guests are asked in; 0 for this one, where None see `processes`."""
    timeout: float | None = None
    """Seconds that a task may take in a process of its own; 0 for no end, and where None as
    `bench.matrix.patience` has it."""
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    out: Path = Path("results/runs")
    fresh: bool = False
    twins: bool = True
    """Whether each defense's twin is evaluated beside it, where the defense is examined."""
    headline: str = ""
    """The epsilon that ranks and is examined, as written, one of the run's; where empty the data
    set's usual one if it is among them, else the largest."""
    examine: bool | Literal["each"] = True
    """Whether each defense is examined as well as attacked: at the headline epsilon, or at `each`
    one, with a verdict of its own."""
    escalate: bool = True
    """Whether failed evidence asks for stronger attacks."""
    budget: int | None = None
    """Passes that the run may spend; what does not fit stays incomplete."""
    escalation_budget: int | None = None
    """Passes that escalation may spend on each defense at an epsilon; `ESCALATION` per example
    where None."""
    sweep: Sweep = "bracket"
    """How epsilons are gone over (`bench.matrix.schedule`); `each` where nothing is examined, since
    what a sweep infers could not be trusted, and where every epsilon is, since evidence needs whole
    rows."""
    command: str = ""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("n", self.n, 1),
            ("seed", self.seed, 0),
            ("batch-size", self.batch_size, 1),
            ("shard-size", self.shard_size, 1),
            ("budget", self.budget, 1),
            ("escalation-budget", self.escalation_budget, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"--{name} has to be at least {least} (got {value})")
        if self.workers is not None and self.workers < 0:
            raise UsageError(
                f"--workers has to be at least 1, or 0 for this process (got {self.workers})"
            )
        Patience(self.timeout)
        if not isinstance(self.examine, bool) and self.examine != "each":
            raise UsageError(f"examine has to be True, False or 'each' (got {self.examine!r})")
        if self.sweep not in get_args(Sweep):
            raise UsageError(
                f"sweep has to be one of {', '.join(get_args(Sweep))} (got {self.sweep!r})"
            )


def usual_shard_size(device_type: str, shape: tuple[int, int, int]) -> int:
    """Examples of a shard where nothing is said.

    Args:
        device_type: as torch has it.
        shape: of an example, (C, H, W).
    """
    if device_type != "cpu":
        return GPU_SHARD_SIZE
    return SHARD_SIZE * (2 if math.prod(shape) <= SMALL else 1)
