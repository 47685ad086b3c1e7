"""Every attack of a suite, the examination and escalation, on a pretended GPU, in any norm.

    python -m tests.suite_on_a_gpu --norm L2 --eps 0.25,0.5

It takes minutes, and is therefore no test: of two digits `all` in L2 took 205 s of a processor.
Prints what came of each defense and the lines that waited most often; the exit code is 1 where a
cell failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.threat import Norm
from tests.pretended import pretended_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Lines that waited which are printed.
LINES = 20


def told(name: str, defense: dict[str, Any]) -> str:
    """What came of a defense, a line for each kind of thing."""
    cells = [cell for each in defense["attacks"].values() for cell in each.values()]
    worst = {
        epsilon: f"{at['robust_accuracy']:.2f} ({at['verdict']})"
        for epsilon, at in defense["worst_case"].items()
    }
    return "\n".join(
        [
            f"{name}: {len(defense['failed'])} failed {defense['failed']}",
            f"  worst case: {worst}",
            f"  attacks: {', '.join(sorted(defense['attacks']))}",
            f"  cells: {dict(Counter(cell['status'] for cell in cells))}, "
            f"{sum(bool(cell['escalated']) for cell in cells)} of them escalated",
            f"  evidence: {dict(Counter(item['status'] for item in defense['evidence']))}",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--defense", default="relu,kwta")
    parser.add_argument("--attacks", default="all")
    parser.add_argument("--norm", type=Norm, default=Norm.LINF, choices=list(Norm))
    parser.add_argument("--eps", default="", help="the usual ones where empty")
    parser.add_argument("--headline", default="")
    parser.add_argument("--n", type=int, default=2)
    given = parser.parse_args(argv)
    with pretended_gpu() as waits, tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            defenses=tuple(given.defense.split(",")), attacks=given.attacks, norm=given.norm,
            epsilons=tuple(filter(None, given.eps.split(","))), headline=given.headline,
            n=given.n, device="cuda", workers=0, twins=False, out=Path(folder),
        )  # fmt: skip
        found = run(prepare(config)).summary["defenses"]
    lines = [told(name, defense) for name, defense in found.items()]
    lines.append(f"{sum(waits.values()):,} waits, of them")
    lines += [f"  {count:6,} {line}" for line, count in waits.most_common(LINES)]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(defense["failed"] for defense in found.values()))


if __name__ == "__main__":
    sys.exit(main())
