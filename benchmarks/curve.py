"""A curve over eight epsilons at AutoAttack's strength: pyautoattack at each, against a sweep.

    python benchmarks/curve.py --defenses relu-at,relu --n 100

Each defense has a process of its own, as many at a time as there are cores; on a GPU they take
turns. Both sides get the same weights, examples, epsilons and seeds, all examples in one batch. One
side calls AutoAttack's standard version once for each epsilon, as a user of it does. The other is
`--attacks autoattack --sweep bracket`: its cascade, what it attacks after all to check its
inferences, the judge, and the measurement of gradients that the inferences are trusted by. What the
rest of the examination takes stands in a line of its own.

The floor is one whole cascade for each example that survives some epsilon: nobody can vouch for a
curve with less. It is counted from the first such example, attacked alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from measuring import Side, asking, many, say, surroundings

from bench.models.counted import one_thread
from bench.record.results import read_cells
from bench.record.store import open_run
from bench.registry.grammar import split_names
from bench.report.markdown import table
from bench.run import run
from bench.run.prepare import resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EPSILONS = {
    "digits": "0.02,0.04,0.06,0.08,0.1,0.12,0.15,0.2",
    "mnist": "0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4",
}
#: The parts of a run that a curve needs: predictions, cascade with its checks, gradients.
SWEEP = ("clean", "autoattack", "probe-gradients")
HEADER = ["defense", "by", "forwards", "backwards", "seconds", "fewer passes", "of the floor"]


class Curves(NamedTuple):
    """Both ways, and what they found at each epsilon as fractions."""

    each: Side
    sweep: Side
    examination: Side
    floor: Side
    peer: list[float]
    ours: list[float]
    report: str


def measure(defense: str, dataset: str, n: int, seed: int, device: str) -> Curves:
    """Both curves of one defense."""
    from peers import alone, cascade

    family = dataset.rpartition("/")[2].rpartition(":")[2]
    epsilons = tuple(EPSILONS[family].split(","))
    with tempfile.TemporaryDirectory() as folder, one_thread(device):
        prepared = alone(
            defense,
            "autoattack",
            n=n,
            device=device,
            dataset=dataset,
            epsilons=epsilons,
            seed=seed,
            out=Path(folder),
            escalate=False,
        )
        result = run(prepared)
        store, record = open_run(prepared.folder)
        cells = read_cells(store, record)[defense]
        part = result.summary["defenses"][defense]
        singly = [cascade(prepared, place) for place in range(len(epsilons))]
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
    parser = asking(__doc__, n=100, full=200)
    parser.add_argument("--defenses", default="relu-at,relu")
    parser.add_argument("--dataset", default="digits", help="digits, or parquet:…/mnist")
    arguments = parser.parse_args(argv)
    defenses, device = split_names(arguments.defenses), resolve_device(arguments.device)
    shared = (arguments.dataset, arguments.n, arguments.seed, device)
    rest = [[value] * len(defenses) for value in shared]
    with many(len(defenses) if device == "cpu" else 1) as each:
        measured = dict(zip(defenses, each(measure, defenses, *rest), strict=True))
    lines = [row for defense, curves in measured.items() for row in rows(defense, curves)]
    say(table(HEADER, lines, text=frozenset({"defense", "by"})) + "\n")
    for defense, curves in measured.items():
        say(words(defense, curves))
    say("\n" + surroundings(device, n=arguments.n, seed=arguments.seed, data=arguments.dataset))


if __name__ == "__main__":
    main()
