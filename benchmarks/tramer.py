"""Our adaptive attacks against the published schedule of Tramèr et al. (2020), on k-WTA.

    python benchmarks/tramer.py --n 50

The schedule (finite differences with sigma = epsilon, sign steps of 0.32 epsilon, up to 100 steps
with 100, 1,000 and 20,000 probes) takes most of an hour; it is continued when the same
command is given again. Prints, for each committed k-WTA checkpoint on the same examples, robust
accuracy and passes of the schedule and of all our adaptive attacks together, and their ratio.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.run import run
from bench.run.prepare import RunConfig, prepare

ADAPTIVE = ("fd-pgd", "surrogate", "margin-pgd", "averaged-pgd", "transfer")
PUBLISHED = "fd-pgd[preset=tramer]"
EPSILON = "0.1"


def figures(
    defense: str, attacks: tuple[str, ...], n: int, out: Path, *, examine: bool
) -> tuple[float, int]:
    """Robust accuracy by the per-example AND, and forwards and backwards together.

    The examination brings the twin, which a transfer attack starts from.
    """
    config = RunConfig(
        defenses=(defense,),
        attacks=",".join(attacks),
        n=n,
        epsilons=(EPSILON,),
        workers=1,
        examine=examine,
        escalate=False,
        out=out,
        command="python benchmarks/tramer.py",
    )
    result = run(prepare(config))
    # The examination attacks at wider epsilons too.
    here = "defense == @defense and attack in @attacks and epsilon == @EPSILON"
    frame = result.outcomes.query(here)
    robust = float(1 - frame.groupby("index")["broken"].any().mean())
    cells = result.summary["defenses"][defense]["attacks"]
    spent = [cells[a][EPSILON]["forwards"] + cells[a][EPSILON]["backwards"] for a in attacks]
    return robust, sum(spent)


def main() -> None:
    """Print one line for each committed k-WTA checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("results/runs"))
    arguments = parser.parse_args()
    for defense in ("kwta", "kwta-at"):
        ours, passes = figures(defense, ADAPTIVE, arguments.n, arguments.out, examine=True)
        theirs, theirs_passes = figures(
            defense, (PUBLISHED,), arguments.n, arguments.out, examine=False
        )
        sys.stdout.write(
            f"{defense}: ours {100 * ours:.0f} % in {passes:,} passes, published "
            f"{100 * theirs:.0f} % in {theirs_passes:,}: ratio of passes "
            f"{passes / theirs_passes:.4f}, {'at or below' if ours <= theirs else 'ABOVE'}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
