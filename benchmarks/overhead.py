"""What the harness itself costs: a shard through Winnow against the attack library by itself.

    python benchmarks/overhead.py --n 50 --rounds 3

Of one shard, in turns, medians of wall seconds:

- bare: the passes that the library makes, at its batch sizes, and nothing else;
- library: the library called plainly; what it takes beyond the bare passes is its own arithmetic;
- proposal: Winnow's attack, which calls the library and watches it (counts, checks, best iterate);
- shard: `bench.matrix.work.Bench.run`, the proposal judged and made into a table;
- storing: the shard's Parquet file and adversarial examples, written and synced.

The harness's overhead is (shard + storing) / library - 1; its aim is under 5 %. All sides get the
same frozen weights, the examples that the model gets right, and the same seed. The last column is
the same overhead by the time of this process on the processor, which other work disturbs less.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Spent, asking, interleaved, say, surroundings

from bench import registry
from bench.api import Problem
from bench.grammar import split_names
from bench.matrix.tasks import Clean, tasks_for
from bench.matrix.work import Bench, one_thread
from bench.record.store import RunStore
from bench.report.markdown import table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from bench.api import Attack
    from bench.matrix.tasks import Task
    from bench.preparation import Prepared

HEADER = ["attack", "defense", "forwards", "backwards", "bare (s)", "library (s)", "proposal (s)"]
HEADER += ["shard (s)", "storing (s)", "watching (%)", "judging (%)", "storing (%)"]
HEADER += ["overhead (%)", "overhead, processor (%)"]
AIM = 5.0
FOOLBOX = ("fgsm", "pgd")


@dataclass(frozen=True)
class Measured:
    """One attack on one defense."""

    attack: str
    defense: str
    forwards: int
    """That the library makes, of all examples together."""
    backwards: int
    """That the library makes, of all examples together."""
    spent: dict[str, Spent]
    """Medians of `bare`, `library`, `proposal`, `shard` and `storing`."""

    def overhead(self, clock: str = "seconds") -> float:
        """Of the harness, in percent of the library."""
        time = {name: getattr(spent, clock) for name, spent in self.spent.items()}
        return 100 * float((time["shard"] + time["storing"]) / time["library"] - 1)

    @property
    def row(self) -> list[str]:
        """One line of the table."""
        time = {name: spent.seconds for name, spent in self.spent.items()}
        parts = [
            time["proposal"] - time["library"],
            time["shard"] - time["proposal"],
            time["storing"],
        ]
        return [
            self.attack,
            self.defense,
            f"{self.forwards:,}",
            f"{self.backwards:,}",
            *(f"{seconds:.3f}" for seconds in time.values()),
            *(f"{100 * part / time['library']:.1f}" for part in parts),
            f"{self.overhead():.1f}",
            f"{self.overhead('processor'):.1f}",
        ]


def plan(prepared: Prepared) -> tuple[Bench, Task]:
    """A bench and the one task that attacks its only shard.

    Raises:
        ValueError: the attack cannot run here.
    """
    bench, setting = prepared.executor().bench, prepared.setting
    first, cell = prepared.cells
    if cell.skipped:
        raise ValueError(f"{cell.attack_name}: {cell.skipped}")
    (predict,) = tasks_for([first], setting, clean={}, active={})
    frame = bench.run(predict).outcomes[0].frame
    clean = Clean(
        frame["clean_prediction"].tolist(),
        frame["broken"].tolist(),
        int(frame["draws"].max()),
        frame["wrong_draws"].tolist(),
    )
    target = cell.target.name
    (task,) = tasks_for([cell], setting, clean={target: clean}, active={cell.key: clean.right})
    return bench, task


def plain(attack: Attack, module: nn.Module, problem: Problem) -> object:
    """The library that the attack drives, without Winnow."""
    import peers

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
    queries = attack.parameters.get("queries")
    return peers.by_autoattack(
        module,
        problem.inputs,
        problem.labels,
        epsilon=problem.epsilon,
        seed=problem.seed,
        members=[attack.name.partition("[")[0]],
        queries=None if queries is None else int(queries),
    )


def measure(prepared: Prepared, rounds: int) -> Measured:
    """Everything about one attack on one defense; the run has one of each and one epsilon."""
    import peers

    from bench.matrix.isolation import isolated_generators

    bench, task = plan(prepared)
    attack, model = registry.attacks.create(task.attack), bench.model(task.target)
    examples, rows = bench.examples, list(task.active)
    problem = Problem(
        model=model,
        inputs=examples.inputs[rows].contiguous(),
        labels=examples.labels[rows],
        norm=task.norm,
        epsilon=float(task.cells[0][1]),
        classes=examples.classes,
        seed=task.seed,
    )
    counting = peers.Counting(model.module)
    plain(attack, counting, problem)
    done = bench.run(task)
    if done.error:
        raise RuntimeError(done.error)

    def propose() -> None:
        with isolated_generators(task.seed):
            attack.run(problem)

    def store() -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = RunStore(Path(folder))
            place.smallest("defense").add(done.found)
            place.put(task.cells[0][0], task.shard, done.outcomes[0])

    store()  # the first of each also imports
    works: dict[str, Callable[[], object]] = {
        "bare": functools.partial(peers.replay, model.module, problem.inputs, counting.batches),
        "library": functools.partial(plain, attack, model.module, problem),
        "proposal": propose,
        "shard": functools.partial(bench.run, task),
        "storing": store,
    }
    spent = interleaved(works, rounds)
    return Measured(attack.name, task.target, counting.forwards, counting.backwards, spent)


def words(measured: Measured) -> str:
    """What one line says."""
    overhead = measured.overhead()
    outcome = "keeps" if overhead < AIM else "LOSES: misses"
    time = measured.spent
    own = 100 * (time["library"].seconds / time["bare"].seconds - 1)
    return (
        f"{measured.attack} on {measured.defense} {outcome} the aim of {AIM:.0f} %: the harness "
        f"adds {overhead:.1f} % to the library, which adds {own:.1f} % to its bare passes."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    from peers import alone

    parser = asking(__doc__, n=50, full=200)
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken")
    parser.add_argument("--attacks", default="fgsm,pgd,square[queries=100]")
    parser.add_argument("--defenses", default="relu,relu-at")
    parser.add_argument("--dataset", default="digits", help="digits, or parquet:…")
    parser.add_argument("--epsilon", default="0.1", help="in Linf")
    arguments = parser.parse_args(argv)
    measured = []
    with tempfile.TemporaryDirectory() as folder, one_thread("cpu"):
        for attack in split_names(arguments.attacks):
            for defense in split_names(arguments.defenses):
                prepared = alone(
                    defense,
                    attack,
                    n=arguments.n,
                    dataset=arguments.dataset,
                    epsilons=(arguments.epsilon,),
                    seed=arguments.seed,
                    out=Path(folder),
                    examine=False,
                )
                measured.append(measure(prepared, arguments.rounds))
    text = frozenset({"attack", "defense"})
    say(table(HEADER, [line.row for line in measured], text=text) + "\n")
    for line in measured:
        say(words(line))
    facts = {"rounds": arguments.rounds, "data": arguments.dataset, "Linf": arguments.epsilon}
    say("\n" + surroundings(n=arguments.n, seed=arguments.seed, **facts))


if __name__ == "__main__":
    main()
