"""What the harness itself costs: a shard through Winnow against the attack library by itself.

    python benchmarks/overhead.py --n 50 --rounds 3

Of one shard, in turns, medians of wall seconds, and of the shares that each round gives:

- library: the library called plainly;
- its passes: those that the library makes, at its batch sizes, and nothing else;
- shard: `bench.matrix.work.Bench.run`: the library watched, its candidates judged and put in a
  table; and storing: the table and the adversarial examples, written and synced;
- the shard's passes: those that it makes, the judge's among them, and nothing else.

What is no pass is the library's arithmetic on one side, and the same and the harness on the other:
the harness's own share is what the second has more of, in parts of bare passes. Its aim is under
5 %. The whole is what a user sees: shard and storing against the library; a shard makes fewer
passes, since what is broken leaves, and more, since what is broken is judged alone as well. All
sides get the same frozen weights, the examples that the model gets right, and the same seed, and
keep the memory that they free, as a run's workers do. The last two columns are by the time of this
process on the processor, which other work disturbs less.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import peers
from measuring import Spent, asking, interleaved, medians, say, surroundings

from bench import registry
from bench.api import Problem
from bench.matrix.processes import hold_memory
from bench.matrix.tasks import Clean, tasks_for
from bench.models.ambient import plain_torch
from bench.models.manner import Manner
from bench.record.store import RunStore
from bench.registry.grammar import split_names
from bench.report.writing import table
from bench.run.devices import resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from bench.api import Attack
    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench
    from bench.run.prepare import Prepared

HEADER = ["attack", "defense", "library: passes", "library: passes (s)", "library: whole (s)"]
HEADER += ["shard: passes", "shard: passes (s)", "shard: whole (s)", "storing (s)"]
HEADER += ["own share (%)", "more than the library (%)"]
HEADER += ["own share, processor (%)", "more, processor (%)"]
AIM = 5.0
FOOLBOX = ("fgsm", "pgd")


@dataclass(frozen=True)
class Measured:
    """One attack on one defense."""

    attack: str
    defense: str
    library: int
    """Forwards and backwards that the library makes, of all examples together."""
    shard: int
    """Forwards and backwards of the shard, the judge's included."""
    rounds: list[dict[str, Spent]]
    """Of each `library passes`, `library`, `shard passes`, `shard` and `storing`."""

    def _times(self, clock: str) -> list[dict[str, float]]:
        return [
            {name: float(getattr(spent, clock)) for name, spent in each.items()}
            for each in self.rounds
        ]

    def own(self, clock: str = "seconds") -> float:
        """What the harness takes that is no pass and not the library's, in percent of passes."""
        return 100 * statistics.median(
            (time["shard"] + time["storing"]) / time["shard passes"]
            - time["library"] / time["library passes"]
            for time in self._times(clock)
        )

    def more(self, clock: str = "seconds") -> float:
        """The whole of it, in percent of the library."""
        return 100 * statistics.median(
            (time["shard"] + time["storing"]) / time["library"] - 1 for time in self._times(clock)
        )

    @property
    def row(self) -> list[str]:
        """One line of the table."""
        time = {name: spent.seconds for name, spent in medians(self.rounds).items()}
        return [
            self.attack,
            self.defense,
            f"{self.library:,}",
            f"{time['library passes']:.3f}",
            f"{time['library']:.3f}",
            f"{self.shard:,}",
            f"{time['shard passes']:.3f}",
            f"{time['shard']:.3f}",
            f"{time['storing']:.3f}",
            f"{self.own():.1f}",
            f"{self.more():.1f}",
            f"{self.own('processor'):.1f}",
            f"{self.more('processor'):.1f}",
        ]


def plan(prepared: Prepared) -> tuple[Bench, Task]:
    """A bench and the one task that attacks its only shard.

    Raises:
        ValueError: the attack cannot run here.
    """
    bench, setting = prepared.bench, prepared.setting
    first, planned = prepared.cells
    if planned.why_not:
        raise ValueError(f"{planned.cell.attack}: {planned.why_not.reason}")
    (predict,) = tasks_for([first], setting, clean={})
    frame = bench.run(predict).outcomes[0].frame
    clean = Clean(
        tuple(frame["clean_prediction"].tolist()),
        tuple(frame["broken"].tolist()),
        int(frame["draws"].max()),
        tuple(frame["wrong_draws"].tolist()),
    )
    chosen = dataclasses.replace(planned, chosen=tuple(clean.right))
    (task,) = tasks_for([chosen], setting, clean={planned.cell.defense: clean})
    return bench, task


def plain(attack: Attack, module: nn.Module, problem: Problem) -> object:
    """The library that the attack drives, without Winnow."""
    assert problem.epsilon is not None
    if attack.name in FOOLBOX:
        return peers.by_foolbox(
            attack,
            module,
            problem.inputs,
            problem.labels,
            epsilons=[problem.epsilon],
            seed=problem.seed,
        )
    return peers.by_autoattack(
        module,
        problem.inputs,
        problem.labels,
        epsilon=problem.epsilon,
        seed=problem.seed,
        row=attack,
    )


def measure(prepared: Prepared, rounds: int, folder: Path) -> Measured:
    """Everything about one attack on one defense; the run has one of each and one epsilon.

    Args:
        prepared: the run.
        rounds: of which medians are taken.
        folder: in which each round stores what it found anew.
    """
    bench, task = plan(prepared)
    attack, model = registry.attacks.create(task.cell.attack), bench.loaded.model(task.cell.defense)
    examples, rows = bench.examples, list(task.active)
    problem = Problem(
        model=model,
        inputs=examples.inputs[rows].to(prepared.device),
        labels=examples.labels[rows].to(prepared.device),
        norm=task.norm,
        epsilon=float(task.cells[0][1]),
        classes=examples.classes,
        seed=task.seed,
    )
    library, shard = peers.Counting(model.module), peers.Counting(model.module)
    plain(attack, library, problem)
    model.module = shard
    done = bench.run(task)
    model.module = shard.module
    if done.error:
        raise RuntimeError(done.error)

    def store() -> None:
        place = RunStore(Path(tempfile.mkdtemp(dir=folder)))
        place.smallest("defense").add(done.found)
        place.put(task.cells[0][0], task.shard.number, done.outcomes[0])

    store()  # the first of each also imports
    again = functools.partial(peers.replay, model.module)
    # The bare passes of a shard are of images as a shard's lie.
    layout = Manner.at_first(model.module, model.device).layout
    lying = problem.inputs.to(problem.inputs.dtype, copy=True, memory_format=layout)
    works: dict[str, Callable[[], object]] = {
        "library passes": functools.partial(again, problem.inputs, library.batches),
        "library": functools.partial(plain, attack, model.module, problem),
        "shard passes": functools.partial(again, lying, shard.batches),
        "shard": functools.partial(bench.run, task),
        "storing": store,
    }
    times = interleaved(works, rounds)
    return Measured(attack.name, task.cell.defense, library.passes, shard.passes, times)


def words(measured: Measured) -> str:
    """What one line says."""
    own = measured.own()
    outcome = "keeps" if own < AIM else "MISSES"
    return (
        f"{measured.attack} on {measured.defense} {outcome} the aim of {AIM:.0f} %: the harness's "
        f"own share is {own:.1f} % of its bare passes, and the whole takes {measured.more():+.1f} "
        "% of the library's time more."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = asking(__doc__, n=50, full=200)
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken")
    parser.add_argument("--attacks", default="fgsm,pgd,square[queries=100]")
    parser.add_argument("--defenses", default="relu,relu-at")
    parser.add_argument("--dataset", default="digits", help="digits, or parquet:…")
    parser.add_argument("--epsilon", default="0.1", help="in Linf")
    arguments = parser.parse_args(argv)
    measured, device = [], resolve_device(arguments.device)
    hold_memory()
    with tempfile.TemporaryDirectory() as folder, plain_torch(device):
        for attack in split_names(arguments.attacks):
            for defense in split_names(arguments.defenses):
                prepared = peers.alone(
                    defense,
                    attack,
                    n=arguments.n,
                    device=device,
                    dataset=arguments.dataset,
                    epsilons=(arguments.epsilon,),
                    seed=arguments.seed,
                    out=Path(folder),
                    examine=False,
                )
                measured.append(measure(prepared, arguments.rounds, Path(folder)))
    text = frozenset({"attack", "defense"})
    say(table(HEADER, [line.row for line in measured], text=text) + "\n")
    for line in measured:
        say(words(line))
    facts = {"rounds": arguments.rounds, "data": arguments.dataset, "Linf": arguments.epsilon}
    say("\n" + surroundings(device, n=arguments.n, seed=arguments.seed, **facts))


if __name__ == "__main__":
    main()
