"""k-WTA and its controls on digits, over training seeds: PGD, AutoAttack, adaptive, verdict.

    python benchmarks/digits.py --n 200 --seeds 0,1,2

Trains what is missing into `results/checkpoints/`, evaluates each (continuing stored runs under
`results/runs/`), and prints one Markdown table with the machine and versions below it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from measuring import parser_of, say, surroundings, together

from bench import registry
from bench.data import open_dataset
from bench.report.writing import interval, percent, table
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.train import TrainConfig, train

if TYPE_CHECKING:
    from bench.run import Result

DEFENSES = ("relu", "kwta", "kwta[gamma=0.05]", "relu-at", "kwta-at")
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
ATTACKS = "pgd,standard,adaptive"
EPSILON = "0.1"


def checkpoint(name: str, seed: int) -> Path:
    """The weights of a defense for a training seed, trained where they are missing."""
    dataset, defense = open_dataset("digits"), registry.defenses.create(name)
    return train(defense, dataset, TrainConfig(seed), out=Path("results/checkpoints")).path


def evaluate(name: str, seed: int, n: int) -> Result:
    """Attack and examine one defense with the weights of one training seed."""
    twin = registry.defenses.create(name).twin
    config = RunConfig(
        defenses=(name,),
        attacks=ATTACKS,
        n=n,
        epsilons=(EPSILON,),
        checkpoints={d: checkpoint(d, seed) for d in (name, twin) if d},
        command="python benchmarks/digits.py",
    )
    return run(prepare(config))


def row(name: str, seed: int, n: int) -> list[str]:
    """One line of the table."""
    result = evaluate(name, seed, n)
    defense = result.summary["defenses"][name]
    worst = defense["worst_case"][EPSILON]
    parts = (("pgd",), AUTOATTACK, ("adaptive",))
    figures = [together(result, name, attacks, EPSILON) for attacks in parts]
    return [
        name,
        str(seed),
        percent(defense["clean_accuracy"]),
        *map(percent, figures),
        interval(worst),
        worst["verdict"],
        defense["weights_digest"][:8],
    ]


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = parser_of(__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seeds", default="0,1,2", help="training seeds")
    parser.add_argument("--defenses", default=",".join(DEFENSES))
    arguments = parser.parse_args()
    header = ["defense", "training seed", "clean", "PGD", "AutoAttack", "adaptive"]
    header += ["worst case (95 %)", "verdict", "weights"]
    say(table(header, [], text=frozenset({"defense", "verdict", "weights"})))
    for name in arguments.defenses.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            say("| " + " | ".join(row(name, seed, arguments.n)) + " |")
    say(f"\n{surroundings(n=arguments.n, Linf=EPSILON)} Robust accuracy in percent.")


if __name__ == "__main__":
    main()
