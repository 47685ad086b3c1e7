"""A curve over eight epsilons at AutoAttack's strength: pyautoattack at each, against a sweep.

    python benchmarks/curve.py --defenses relu-at,relu --n 30

Both get the same weights, examples, epsilons and seeds, all examples in one batch. One side calls
AutoAttack's standard version once for each epsilon, as a user of it does. The other is
`--attacks autoattack --sweep bracket`: its cascade, what it attacks after all to check its
inferences, the judge, and the measurement of gradients that the inferences are trusted by. What
the rest of the examination takes stands in a line of its own.

The floor is one whole cascade for each example that survives some epsilon: nobody can vouch for a
curve with less. It is counted from the first such example, attacked alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from measuring import say, surroundings, timed

from bench.config import RunConfig
from bench.matrix.tasks import shard_seed
from bench.matrix.work import one_thread
from bench.preparation import prepare
from bench.record.results import read_cells
from bench.record.store import open_run
from bench.report.markdown import table
from bench.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.preparation import Prepared

EPSILONS = {
    "digits": "0.02,0.04,0.06,0.08,0.1,0.12,0.15,0.2",
    "mnist": "0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4",
}
#: The parts of a run that a curve needs: predictions, cascade with its checks, gradients.
SWEEP = ("clean", "autoattack", "probe-gradients")
HEADER = ["defense", "by", "forwards", "backwards", "seconds", "fewer passes", "of the floor"]


class Side(NamedTuple):
    """What one way to the curve took."""

    forwards: int
    """Of all examples together."""
    backwards: int
    """Of all examples together."""
    seconds: float

    @property
    def passes(self) -> int:
        """Forwards and backwards."""
        return self.forwards + self.backwards


class Curves(NamedTuple):
    """Both ways, and what they found at each epsilon as fractions."""

    each: Side
    sweep: Side
    examination: Side
    floor: Side
    peer: list[float]
    ours: list[float]
    report: str


def cascade(prepared: Prepared, place: int, only: slice) -> tuple[Side, list[bool]]:
    """AutoAttack by itself at one of the epsilons: what it took, and which examples it left."""
    from peers import Counting, by_autoattack

    setting, examples = prepared.setting, prepared.examples
    epsilon = setting.epsilons[place]
    model = Counting(prepared.contenders[0].loader())
    robust, spent = timed(
        lambda: by_autoattack(
            model,
            examples.inputs[only],
            examples.labels[only],
            epsilon=float(epsilon),
            seed=shard_seed(setting.seed, "autoattack", setting.norm, epsilon, 0),
        )
    )
    return Side(model.forwards, model.backwards, spent.seconds), robust.tolist()


def measure(defense: str, dataset: str, n: int, seed: int) -> Curves:
    """Both curves of one defense."""
    family = dataset.rpartition("/")[2].rpartition(":")[2]
    with tempfile.TemporaryDirectory() as folder, one_thread("cpu"):
        config = RunConfig(
            defenses=(defense,),
            attacks="autoattack",
            dataset=dataset,
            epsilons=tuple(EPSILONS[family].split(",")),
            n=n,
            seed=seed,
            device="cpu",
            shard_size=n,
            workers=1,
            out=Path(folder),
            twins=False,
            escalate=False,
        )
        prepared = prepare(config)
        result = run(prepared)
        store, record = open_run(prepared.folder)
        cells = read_cells(store, record)[defense]
        part = result.summary["defenses"][defense]
        singly = [cascade(prepared, e, slice(n)) for e in range(len(EPSILONS[family].split(",")))]
        lines = [robust for _, robust in singly]
        survivors = [i for i in range(n) if any(robust[i] for robust in lines)]
        one = Side(0, 0, 0.0)
        if survivors:
            first = survivors[0]
            last = max(e for e, robust in enumerate(lines) if robust[first])
            one, _ = cascade(prepared, last, slice(first, first + 1))
    needed = [c.totals for c in cells if c.cell.attack.partition("#")[0] in SWEEP]
    others = [c.totals for c in cells if c.cell.attack.partition("#")[0] not in SWEEP]
    sweep = part["sweep"] or {"inferred": 0, "checked": 0, "differed": 0}
    return Curves(
        each=_sum(side for side, _ in singly),
        sweep=_sum(Side(t.forwards, t.backwards, t.seconds) for t in needed),
        examination=_sum(Side(t.forwards, t.backwards, t.seconds) for t in others),
        floor=_sum([one] * len(survivors)),
        peer=[sum(robust) / n for robust in lines],
        ours=[w["robust_accuracy"] for w in part["worst_case"].values()],
        report=f"{sweep['inferred']} survivals inferred, {sweep['checked']} attacked after all, "
        f"{sweep['differed']} of them broke",
    )


def _sum(sides: Iterable[Side]) -> Side:
    known = list(sides)
    return Side(
        sum(side.forwards for side in known),
        sum(side.backwards for side in known),
        sum(side.seconds for side in known),
    )


def rows(defense: str, curves: Curves) -> list[list[str]]:
    """The lines of the table on one defense."""
    sides = {
        "pyautoattack, each epsilon": curves.each,
        "Winnow, sweep": curves.sweep,
        "the rest of its examination": curves.examination,
        "floor": curves.floor,
    }
    return [
        [
            defense,
            name,
            f"{side.forwards:,}",
            f"{side.backwards:,}",
            "–" if name == "floor" else f"{side.seconds:.0f}",
            f"{curves.each.passes / side.passes:.1f}×" if name.startswith("Winnow") else "",
            f"{side.passes / curves.floor.passes:.2f}" if curves.floor.passes else "–",
        ]
        for name, side in sides.items()
    ]


def words(defense: str, curves: Curves) -> str:
    """How the curves compare, and whether the aims are met."""
    apart = max(abs(a - b) for a, b in zip(curves.peer, curves.ours, strict=True))
    fewer = curves.each.passes / curves.sweep.passes
    over = curves.sweep.passes / curves.floor.passes if curves.floor.passes else float("inf")
    shown = [
        " ".join(f"{100 * value:.0f}" for value in line) for line in (curves.peer, curves.ours)
    ]
    return (
        f"{defense}: {'MISSES' if fewer < 3 else 'meets'} the aim of 3 times fewer passes "
        f"({fewer:.1f}) and {'MISSES' if over > 1.3 else 'meets'} that of 1.3 times the floor "
        f"({over:.2f}). {curves.report}. Robust accuracy in percent at each epsilon: {shown[0]} by "
        f"pyautoattack, {shown[1]} by Winnow, {100 * apart:.1f} points apart at most."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, help="examples (default: 30)")
    parser.add_argument("--full", action="store_true", help="100 examples")
    parser.add_argument("--defenses", default="relu-at,relu")
    parser.add_argument("--dataset", default="digits", help="digits, or parquet:…/mnist")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    n = arguments.n or (100 if arguments.full else 30)
    measured = {
        defense: measure(defense, arguments.dataset, n, arguments.seed)
        for defense in arguments.defenses.split(",")
    }
    lines = [row for defense, curves in measured.items() for row in rows(defense, curves)]
    say(table(HEADER, lines, text=frozenset({"defense", "by"})) + "\n")
    for defense, curves in measured.items():
        say(words(defense, curves))
    say("\n" + surroundings(n=n, seed=arguments.seed, data=arguments.dataset))


if __name__ == "__main__":
    main()
