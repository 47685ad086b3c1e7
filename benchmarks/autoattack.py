"""AutoAttack's standard cascade: through Winnow's run against pyautoattack called by itself.

    python benchmarks/autoattack.py --n 30
    python benchmarks/autoattack.py --curve --n 100

Both get the same weights, examples, epsilons and seeds, and all examples in one batch. The passes
of pyautoattack are counted at the model's logits.

At one epsilon Winnow's side is a whole run without examination: clean predictions, the cascade, the
judge's own passes, storing, summary. The other side is one call of `run_standard_evaluation`, whose
passes are then made again alone: below that nobody gets who makes them in the same batches. What
Winnow pays beyond is for judging again what the library claims. Both sides keep the memory that
they free, as the workers of a run do: in batches of this size getting it anew takes longer than
the network.

With `--curve` it is eight epsilons, or those named, each a call of pyautoattack, as a user of it
does, against `--attacks autoattack --sweep bracket`: its cascade, what it attacks after all to
check its inferences, the judge, and the measurement of gradients that the inferences are trusted
by. What the rest of the examination takes stands in a line of its own. The floor is one whole
cascade for each example that survives some epsilon: nobody can vouch for a curve with less. It is
counted from the first such example, attacked alone. Each defense has a process of its own, as many
at a time as there are cores; on a GPU they take turns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from measuring import (
    COMPARED,
    Curve,
    Side,
    asking,
    compared,
    many,
    say,
    surroundings,
    timed,
    verdict,
)
from peers import alone, cascade

from bench.matrix.processes import hold_memory
from bench.models.ambient import plain_torch
from bench.record.results import read_cells
from bench.record.store import open_run
from bench.registry.grammar import split_names
from bench.report.writing import table
from bench.run import run
from bench.run.devices import resolve_device

if TYPE_CHECKING:
    from collections.abc import Sequence

WINNOW, PEER, BARE = "Winnow", "pyautoattack", "its passes alone"
EACH, SWEPT, FLOOR = "pyautoattack, each epsilon", "Winnow, sweep", "floor"
EPSILONS = {
    "digits": "0.02,0.04,0.06,0.08,0.1,0.12,0.15,0.2",
    "mnist": "0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4",
}
#: Half of the box: nothing survives it.
BREAKS = "0.5"
#: The parts of a run that a curve needs: predictions, cascade with its checks, gradients.
SWEEP = ("clean", "autoattack", "probe-gradients")


class Swept(NamedTuple):
    """Both ways to a curve."""

    sides: dict[str, Side]
    """The lines of the table."""
    curves: dict[str, list[float]]
    """Robust accuracy by epsilon, fractions, by `PEER` and `WINNOW`."""
    report: str
    """What was inferred, in words."""


def compare(defense: str, shared: dict[str, Any], *, bare: bool = True) -> dict[str, Curve]:
    """Both sides on one defense at one epsilon.

    Args:
        defense: its name.
        shared: data set, epsilons, n, seed and device of the run.
        bare: make the library's passes once more, alone.
    """
    hold_memory()
    device = shared["device"]
    with tempfile.TemporaryDirectory() as folder, plain_torch(device):
        prepared = alone(defense, "autoattack", out=Path(folder), examine=False, **shared)
        took, robust, again = cascade(prepared)
        passes = timed(again)[1].on(device) if bare else float("nan")
        result, spent = timed(lambda: run(prepared))
    (found,) = result.summary["defenses"].values()
    (worst,) = found["worst_case"].values()
    cost = found["cost"]
    return {
        PEER: Curve(took, [sum(robust) / len(robust)]),
        BARE: Curve(Side(took.forwards, took.backwards, passes), []),
        WINNOW: Curve(
            Side(cost["forwards"], cost["backwards"], spent.on(device)), [worst["robust_accuracy"]]
        ),
    }


def words(defense: str, ways: dict[str, Curve]) -> str:
    """What the two lines of one epsilon say."""
    winnow, peer = ways[WINNOW], ways[PEER]
    more = winnow.took.passes - peer.took.passes
    passes = f"{defense}: Winnow makes {abs(more):,} passes {'fewer' if more < 0 else 'more'}"
    found = "the same" if winnow.robust == peer.robust else "ANOTHER"
    time = verdict("in seconds Winnow", winnow.took.seconds / peer.took.seconds, "pyautoattack's")
    return f"{passes} and reports {found} robust accuracy; {time}"


def sweep(defense: str, shared: dict[str, Any]) -> Swept:
    """Both curves of one defense; arguments as of `compare`."""
    hold_memory()
    n, epsilons = shared["n"], shared["epsilons"]
    with tempfile.TemporaryDirectory() as folder, plain_torch(shared["device"]):
        prepared = alone(defense, "autoattack", out=Path(folder), escalate=False, **shared)
        part = run(prepared).summary["defenses"][defense]
        cells = read_cells(*open_run(prepared.folder))[defense]
        singly = [cascade(prepared, place)[:2] for place in range(len(epsilons))]
        lines = [robust for _, robust in singly]
        survivors = [i for i in range(n) if any(robust[i] for robust in lines)]
        floor: list[Side] = []
        if survivors:
            first = survivors[0]
            last = max(e for e, robust in enumerate(lines) if robust[first])
            one = cascade(prepared, last, slice(first, first + 1))
            floor = [one.took] * len(survivors)
    took: dict[bool, list[Side]] = {True: [], False: []}
    for cell in cells:
        needed = cell.cell.attack in SWEEP
        total = cell.totals
        took[needed].append(Side(total.forwards, total.backwards, total.seconds))
    done = part["sweep"] or {"inferred": 0, "checked": 0, "differed": 0}
    return Swept(
        {
            EACH: Side.sum(side for side, _ in singly),
            SWEPT: Side.sum(took[True]),
            "the rest of its examination": Side.sum(took[False]),
            FLOOR: Side.sum(floor),
        },
        {
            PEER: [sum(robust) / n for robust in lines],
            WINNOW: [worst["robust_accuracy"] for worst in part["worst_case"].values()],
        },
        f"{done['inferred']} survivals inferred, {done['checked']} attacked after all, "
        f"{done['differed']} of them broke",
    )


def swept_rows(defense: str, swept: Swept) -> list[list[str]]:
    """The lines of the table on one defense's curve."""
    each, floor = swept.sides[EACH], swept.sides[FLOOR]
    return [
        [
            defense,
            name,
            f"{side.forwards:,}",
            f"{side.backwards:,}",
            "–" if name == FLOOR else f"{side.seconds:.1f}",
            f"{each.passes / side.passes:.1f}×" if name == SWEPT else "",
            f"{side.passes / floor.passes:.2f}" if floor.passes else "–",
        ]
        for name, side in swept.sides.items()
    ]


def swept_words(defense: str, swept: Swept) -> str:
    """How the curves compare, and whether the aims are met."""
    passes, (peer, ours) = swept.sides[SWEPT].passes, swept.curves.values()
    floor = swept.sides[FLOOR].passes
    fewer, over = swept.sides[EACH].passes / passes, passes / floor if floor else float("inf")
    apart = max(abs(a - b) for a, b in zip(peer, ours, strict=True))
    shown = ", ".join(
        f"{' '.join(f'{100 * value:.0f}' for value in curve)} by {name}"
        for name, curve in swept.curves.items()
    )
    return (
        f"{defense}: {'MISSES' if fewer < 3 else 'meets'} the aim of 3 times fewer passes "
        f"({fewer:.1f}) and {'MISSES' if over > 1.3 else 'meets'} that of 1.3 times the floor "
        f"({over:.2f}). {swept.report}. Robust accuracy in percent at each epsilon: {shown}, "
        f"{100 * apart:.1f} points apart at most."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = asking(__doc__, n=30, full=200)
    parser.add_argument("--curve", action="store_true", help="over several epsilons")
    parser.add_argument("--defenses", default="relu,relu-at")
    parser.add_argument("--dataset", default="digits", help="digits, or parquet:…/mnist")
    parser.add_argument(
        "--epsilon", help="in Linf (default: 0.1); with --curve several (default: eight)"
    )
    arguments = parser.parse_args(argv)
    defenses, device = split_names(arguments.defenses), resolve_device(arguments.device)
    family = arguments.dataset.rpartition("/")[2].rpartition(":")[2]
    epsilons = arguments.epsilon or (EPSILONS[family] if arguments.curve else "0.1")
    shared = {
        "dataset": arguments.dataset,
        "epsilons": tuple(epsilons.split(",")),
        "n": arguments.n,
        "seed": arguments.seed,
        "device": device,
    }
    if arguments.curve:
        with many(len(defenses) if device == "cpu" else 1) as each:
            curves = zip(defenses, each(sweep, defenses, [shared] * len(defenses)), strict=True)
            swept = dict(curves)
        header = ["defense", "by", "forwards", "backwards", "seconds", "fewer passes"]
        header += ["of the floor"]
        lines = [row for defense, found in swept.items() for row in swept_rows(defense, found)]
        told = [swept_words(defense, found) for defense, found in swept.items()]
    else:
        # What is loaded at first use is loaded on either side, as everything breaks at once.
        compare(defenses[0], {**shared, "n": 2, "epsilons": (BREAKS,)})
        measured = {defense: compare(defense, shared) for defense in defenses}
        header = ["defense", *COMPARED]
        lines = [row for name, ways in measured.items() for row in compared(name, ways, PEER)]
        told = [words(defense, ways) for defense, ways in measured.items()]
    say(table(header, lines, text=frozenset({"defense", "by"})) + "\n")
    say("\n".join(told))
    facts = {"data": arguments.dataset, "Linf": epsilons}
    say("\n" + surroundings(device, n=arguments.n, seed=arguments.seed, **facts))


if __name__ == "__main__":
    main()
