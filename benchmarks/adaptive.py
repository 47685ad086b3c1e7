"""What an attack finds for its passes: the adaptive attack beside the others, each alone.

    python benchmarks/adaptive.py --n 100 --seeds 0,1,2

For each defense and seed every attack starts from nothing, at one epsilon, and is charged what the
model counted, the judge's passes included. One Markdown table, fewest passes first;
`--figure PATH` draws them, passes against robust accuracy. `--also fd-pgd[preset=tramer]` adds the
published schedule of Tramèr et al. (2020), which takes most of an hour for each seed and defense.
`--undeclared` gives the bare module to `bench.evaluate`, and the adaptive attack alone.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import parser_of, say, surroundings, together

from bench import evaluate
from bench.data import open_dataset, subset
from bench.figures.canvas import canvas, colour, to_bytes
from bench.models.contenders import Lineup
from bench.report.writing import escape, percent, table
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

DEFENSES = ("kwta", "kwta-at", "relu", "relu-at")
EPSILON = "0.1"
ADAPTIVE = ("adaptive[preset=light]", "adaptive", "adaptive[preset=full]", "adaptive[smooth=false]")
UNDECLARED = ("adaptive", "adaptive[smooth=false]")
OTHERS = ("pgd", "margin-pgd", "surrogate", "fd-pgd", "square")
#: AutoAttack's standard version, its attacks over all examples each.
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
#: One line each: its name, and the attacks that it puts together.
LINES = {**{name: (name,) for name in (*ADAPTIVE, *OTHERS)}, "AutoAttack": AUTOATTACK}


Figures = dict[str, tuple[float, int]]


def measured(
    defense: str, lines: Mapping[str, tuple[str, ...]], n: int, seed: int, workers: int = 1
) -> Figures:
    """Of each line the robust accuracy, a fraction, and the passes that it took."""
    attacks = ",".join(dict.fromkeys(name for names in lines.values() for name in names))
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
        for line, names in lines.items()
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


def undeclared(defense: str, n: int, seed: int) -> Figures:
    """As `measured`, of a module that declares nothing, by what the adaptive attack finds in it."""
    examples = subset(open_dataset("digits").load("test"), n)
    (contender,) = Lineup("digits", examples).asked([defense])
    result = evaluate(
        contender.load(), examples.inputs, examples.labels,
        epsilons=(EPSILON,), attacks=",".join(UNDECLARED), seed=seed, device="cpu", examine=False,
    )  # fmt: skip
    rows = result.summary["defenses"]["model"]["attacks"]
    return {
        name: (cell["robust_accuracy"], cell["forwards"] + cell["backwards"])
        for name in UNDECLARED
        for cell in [rows[name][EPSILON]]
    }


def draw(found: Mapping[str, Sequence[Figures]], caption: str) -> Figure:
    """Passes against robust accuracy in percent, a panel for each defense; bars span the seeds."""
    figure = canvas(4.2 * len(found), 4.6, caption)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    names = sorted({line for each in found.values() for line in each[0]})
    drawn = {}
    for panel, (defense, seeds) in zip(panels, found.items(), strict=True):
        for line in seeds[0]:
            robust = [100 * figures[line][0] for figures in seeds]
            passes = statistics.mean(figures[line][1] for figures in seeds)
            middle = statistics.mean(robust)
            drawn[line] = panel.errorbar(
                [passes], [middle], [[middle - min(robust)], [max(robust) - middle]],
                marker="os^Dv"[names.index(line) % 5], color=colour(names.index(line)), label=line,
                linestyle="none",
            )  # fmt: skip
        panel.set(title=defense, xscale="log", xlabel="passes of all examples")
    panels[0].set_ylabel(f"robust accuracy, %, Linf {EPSILON}")
    figure.legend(list(drawn.values()), list(drawn), loc="outside right upper", fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each defense."""
    parser = parser_of(__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seeds", default="0,1,2", help="of the attacks")
    parser.add_argument("--defenses", default=",".join(DEFENSES))
    parser.add_argument("--also", default="", help="further attacks, separated by commas")
    parser.add_argument("--undeclared", action="store_true", help="modules that declare nothing")
    parser.add_argument("--figure", type=Path, help="draw the table: a path that ends in .svg")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args(argv)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    header = ["attack", *(f"seed {seed}" for seed in seeds), "passes"]
    lines = LINES | {name: (name,) for name in arguments.also.split(",") if name}
    found: dict[str, list[Figures]] = {}
    for defense in arguments.defenses.split(","):
        found[defense] = [
            undeclared(defense, arguments.n, seed)
            if arguments.undeclared
            else measured(defense, lines, arguments.n, seed, arguments.workers)
            for seed in seeds
        ]
        each = found[defense]
        passes = {line: statistics.mean(f[line][1] for f in each) for line in each[0]}
        rows = [
            [escape(line), *(percent(f[line][0]) for f in each), f"{passes[line]:,.0f}"]
            for line in sorted(passes, key=lambda line: passes[line])
        ]
        say(f"{defense}, robust accuracy in percent at Linf {EPSILON}:\n")
        say(table(header, rows, text=frozenset({"attack"})) + "\n")
    below = f"{surroundings(n=arguments.n, Linf=EPSILON)} Passes: mean over the seeds."
    say(below)
    if arguments.figure:
        arguments.figure.write_bytes(to_bytes(draw(found, below), below, arguments.figure.suffix))


if __name__ == "__main__":
    main()
