"""The founding case in one table: writes the figures of `results/kwta.md`.

    python benchmarks/kwta.py

reads the committed summaries under `results/published/`, and puts the table that follows from them
between the two marks of the page. What made the summaries is written on the page itself.

    python benchmarks/kwta.py --tramer --n 50

sets the adaptive attack against the published schedule of Tramèr et al. (2020). The schedule
(finite differences with sigma = epsilon, sign steps of 0.32 epsilon, up to 100 steps with 100,
1,000 and 20,000 probes) takes most of an hour; it is continued when the same command is given
again. Prints, for each committed k-WTA checkpoint on the same examples, robust accuracy and passes
of the schedule and of the adaptive attack, and their ratio.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import read_summaries
from bench.report.markdown import strongest
from bench.report.writing import escape, interval, percent, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "results" / "kwta.md"
BEGIN, END = "<!-- table: python benchmarks/kwta.py -->", "<!-- end of table -->"

HEADER = [
    "data",
    "defense",
    "clean",
    "the paper's attacks",
    "AutoAttack",
    "adaptive",
    "worst case (95 %)",
    "twin",
    "verdict",
    "n",
    "weights",
]
TEXT = frozenset({"data", "defense", "adaptive", "verdict", "weights"})
#: Attacks that do without the model's own gradient, ask for a kinder one, or restart.
ADAPTIVE = ("adaptive", "fd-pgd", "surrogate", "averaged-pgd", "margin-pgd")
#: The schedule of Tramèr et al.
PUBLISHED = ("fd-pgd[preset=tramer]",)


def render(summaries: Iterable[dict[str, Any]]) -> str:
    """The table: for each data set the most robust defense first."""
    rows = []
    for summary in summaries:
        headline = summary["headline"]
        where = f"{escape(summary['dataset'])}, {summary['norm']} {escape(headline)}"
        for name, defense in summary["defenses"].items():
            worst = defense["worst_case"][headline]
            rows.append((where, -worst["robust_accuracy"], _row(summary, where, name, defense)))
    rows.sort(key=lambda row: row[:2])
    return table(HEADER, [cells for _, _, cells in rows], text=TEXT)


def _row(summary: dict[str, Any], where: str, name: str, defense: dict[str, Any]) -> list[str]:
    headline = summary["headline"]
    worst = defense["worst_case"][headline]
    adaptive = {"attacks": {a: cells for a, cells in defense["attacks"].items() if a in ADAPTIVE}}
    lowest = strongest(adaptive, headline)
    figure = defense["attacks"].get(lowest, {}).get(headline, {}).get("robust_accuracy")
    twin = summary["defenses"].get(defense["twin"]) or summary["controls"].get(defense["twin"])
    return [
        where,
        escape(name),
        percent(defense["clean_accuracy"]),
        _together(defense, "paper-published", headline),
        _together(defense, "standard", headline),
        f"{percent(figure)} ({escape(lowest)})",
        f"**{interval(worst)}**" + ("" if worst["complete"] else " †"),
        percent(twin["worst_case"][headline]["robust_accuracy"]) if twin else "–",
        escape((defense.get("verdict") or {}).get("level", "–")),
        str(summary["n"]),
        defense["weights_digest"][:8],
    ]


def _together(defense: dict[str, Any], suite: str, headline: str) -> str:
    """The per-example AND over a suite's rows; a dash where it was not run whole."""
    found = defense.get("suites", {}).get(suite, {}).get(headline, {})
    return percent(found.get("robust_accuracy"))


def with_table(page: str, text: str) -> str:
    """The page with this table between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def schedule(n: int, out: Path) -> None:
    """Print a line for each committed k-WTA checkpoint: ours against the published schedule."""
    for defense in ("kwta", "kwta-at"):
        ours, passes = _by(("adaptive",), defense, n=n, out=out)
        theirs, theirs_passes = _by(PUBLISHED, defense, n=n, out=out)
        sys.stdout.write(
            f"{defense}: ours {100 * ours:.0f} % in {passes:,} passes, published "
            f"{100 * theirs:.0f} % in {theirs_passes:,}: ratio of passes "
            f"{passes / theirs_passes:.4f}, {'at or below' if ours <= theirs else 'ABOVE'}\n"
        )
        sys.stdout.flush()


def _by(attacks: tuple[str, ...], defense: str, **settings: Any) -> tuple[float, int]:
    """Robust accuracy at one epsilon by all of them together, and their passes."""
    from measuring import together

    from bench.run import run
    from bench.run.config import RunConfig
    from bench.run.prepare import prepare

    epsilon = "0.1"
    config = RunConfig(
        defenses=(defense,),
        attacks=",".join(attacks),
        epsilons=(epsilon,),
        workers=0,
        examine=False,
        command="python benchmarks/kwta.py --tramer",
        **settings,
    )
    result = run(prepare(config))
    cells = [result.summary["defenses"][defense]["attacks"][a][epsilon] for a in attacks]
    passes = sum(cell["forwards"] + cell["backwards"] for cell in cells)
    return together(result, defense, attacks, epsilon), passes


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page, or print the comparison."""
    from measuring import parser_of

    parser = parser_of(__doc__)
    parser.add_argument("--tramer", action="store_true", help="against the published schedule")
    parser.add_argument("--n", type=int, default=50, help="examples of --tramer")
    parser.add_argument("--out", type=Path, default=Path("results/runs"), help="runs of --tramer")
    arguments = parser.parse_args(argv)
    if arguments.tramer:
        schedule(arguments.n, arguments.out)
        return
    page = PAGE.read_text(encoding="utf-8")
    summaries = read_summaries(ROOT / "results" / "published")
    PAGE.write_text(with_table(page, render(summaries)), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
