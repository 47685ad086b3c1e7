"""What an attack finds for its passes: the adaptive attack beside the others, each alone.

    python benchmarks/adaptive.py --n 100 --seeds 0,1,2

For each defense and seed every attack starts from nothing, at one epsilon, and is charged what the
model counted, the judge's passes included. One Markdown table, fewest passes first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import say, surroundings, together

from bench.report.markdown import escape, percent, table
from bench.run import run
from bench.run.prepare import RunConfig, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFENSES = ("kwta", "kwta-at", "relu", "relu-at")
EPSILON = "0.1"
ADAPTIVE = ("adaptive[preset=light]", "adaptive", "adaptive[preset=full]", "adaptive[smooth=false]")
OTHERS = ("pgd", "margin-pgd", "surrogate", "fd-pgd", "square")
#: AutoAttack's standard version, its attacks over all examples each.
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
#: One line each: its name, and the attacks that it puts together.
LINES = {**{name: (name,) for name in (*ADAPTIVE, *OTHERS)}, "AutoAttack": AUTOATTACK}


def measured(defense: str, n: int, seed: int, workers: int = 1) -> dict[str, tuple[float, int]]:
    """Of each line the robust accuracy, a fraction, and the passes that it took."""
    attacks = ",".join(dict.fromkeys(name for names in LINES.values() for name in names))
    with tempfile.TemporaryDirectory() as out:
        config = RunConfig(
            (defense,),
            attacks,
            n=n,
            seed=seed,
            epsilons=(EPSILON,),
            examine=False,
            twins=False,
            workers=workers,
            out=Path(out),
        )
        result = run(prepare(config))
    rows = result.summary["defenses"][defense]["attacks"]
    cells = {name: row[EPSILON] for name, row in rows.items()}
    lines = {
        line: names
        for line, names in LINES.items()
        if all(cells[name]["cause"] != "inapplicable" for name in names)
    }
    asked = {name for names in lines.values() for name in names}
    if missing := sorted(name for name in asked if cells[name]["status"] != "ok"):
        raise SystemExit(f"{defense}: nothing measured of {', '.join(missing)}")
    return {
        line: (
            together(result, defense, names, EPSILON),
            sum(cells[name]["forwards"] + cells[name]["backwards"] for name in names),
        )
        for line, names in lines.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each defense."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seeds", default="0,1,2", help="of the attacks")
    parser.add_argument("--defenses", default=",".join(DEFENSES))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args(argv)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    header = ["attack", *(f"seed {seed}" for seed in seeds), "passes"]
    for defense in arguments.defenses.split(","):
        found: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for seed in seeds:
            for line, figures in measured(defense, arguments.n, seed, arguments.workers).items():
                found[line].append(figures)
        passes = {line: statistics.mean(p for _, p in each) for line, each in found.items()}
        rows = [
            [escape(line), *(percent(robust) for robust, _ in found[line]), f"{passes[line]:,.0f}"]
            for line in sorted(found, key=lambda line: passes[line])
        ]
        say(f"{defense}, robust accuracy in percent at Linf {EPSILON}:\n")
        say(table(header, rows, text=frozenset({"attack"})) + "\n")
    say(f"{surroundings(n=arguments.n, Linf=EPSILON)} Passes: mean over the seeds.")


if __name__ == "__main__":
    main()
