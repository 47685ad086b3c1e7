"""AutoAttack's standard cascade: through Winnow's run against pyautoattack called by itself.

    python benchmarks/autoattack.py --n 30

Both get the same weights, examples, epsilon and seed, and all examples in one batch. Winnow's side
is a whole run without examination: clean predictions, the cascade, the judge's own passes, storing,
summary. The other side is one call of `run_standard_evaluation`; its passes are counted at the
model's logits. What Winnow pays beyond is for judging again what the library claims.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from measuring import Side, asking, say, surroundings, timed, verdict

from bench.models.counted import one_thread
from bench.report.markdown import table
from bench.run import run
from bench.run.prepare import resolve_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.run.prepare import Prepared

HEADER = ["defense", "by", "forwards", "backwards", "seconds", "robust accuracy (%)"]
HEADER += ["passes ratio", "seconds ratio"]
WINNOW, PEER = "Winnow", "pyautoattack"


class Found(NamedTuple):
    """What one way of running the cascade took and found."""

    took: Side
    robust: float
    """Robust accuracy, a fraction."""


def by_winnow(prepared: Prepared) -> Found:
    """A run; `prepared` has one defense, one epsilon and one shard."""
    result, spent = timed(lambda: run(prepared))
    (defense,) = result.summary["defenses"].values()
    (worst,) = defense["worst_case"].values()
    cost = defense["cost"]
    took = Side(cost["forwards"], cost["backwards"], spent.seconds)
    return Found(took, worst["robust_accuracy"])


def compare(defense: str, epsilon: str, n: int, seed: int, device: str) -> dict[str, Found]:
    """Both sides on one defense."""
    from peers import alone, cascade

    with tempfile.TemporaryDirectory() as folder, one_thread(device):
        prepared = alone(
            defense,
            "autoattack",
            n=n,
            device=device,
            epsilons=(epsilon,),
            seed=seed,
            out=Path(folder),
            examine=False,
        )
        took, robust = cascade(prepared)
        return {PEER: Found(took, sum(robust) / n), WINNOW: by_winnow(prepared)}


def rows(defense: str, sides: dict[str, Found]) -> list[list[str]]:
    """Two lines of the table."""
    peer = sides[PEER]
    return [
        [
            defense,
            name,
            f"{side.took.forwards:,}",
            f"{side.took.backwards:,}",
            f"{side.took.seconds:.1f}",
            f"{100 * side.robust:.1f}",
            f"{side.took.passes / peer.took.passes:.3f}",
            f"{side.took.seconds / peer.took.seconds:.2f}",
        ]
        for name, side in sides.items()
    ]


def words(defense: str, sides: dict[str, Found]) -> str:
    """What the two lines say."""
    winnow, peer = sides[WINNOW], sides[PEER]
    more = winnow.took.passes - peer.took.passes
    passes = f"{defense}: Winnow makes {abs(more):,} passes {'fewer' if more < 0 else 'more'}"
    found = "the same" if winnow.robust == peer.robust else "ANOTHER"
    time = verdict("in seconds Winnow", winnow.took.seconds / peer.took.seconds, "pyautoattack's")
    return f"{passes} and reports {found} robust accuracy; {time}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = asking(__doc__, n=30, full=200)
    parser.add_argument("--defenses", default="relu,relu-at")
    parser.add_argument("--epsilon", default="0.1", help="in Linf")
    arguments = parser.parse_args(argv)
    device = resolve_device(arguments.device)
    measured = {
        defense: compare(defense, arguments.epsilon, arguments.n, arguments.seed, device)
        for defense in arguments.defenses.split(",")
    }
    lines = [row for defense, sides in measured.items() for row in rows(defense, sides)]
    say(table(HEADER, lines, text=frozenset({"defense", "by"})) + "\n")
    for defense, sides in measured.items():
        say(words(defense, sides))
    facts = {"data": "digits", "Linf": arguments.epsilon}
    say("\n" + surroundings(device, n=arguments.n, seed=arguments.seed, **facts))


if __name__ == "__main__":
    main()
