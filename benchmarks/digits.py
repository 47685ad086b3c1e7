"""k-WTA and its controls on digits, over training seeds: PGD, AutoAttack, adaptive, verdict.

    python benchmarks/digits.py --n 200 --seeds 0,1,2

Trains what is missing into `results/checkpoints/`, evaluates each (continuing stored runs under
`results/runs/`), and prints one Markdown table with the machine and versions below it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import registry
from bench.data import open_dataset
from bench.run import run
from bench.run.prepare import RunConfig, prepare
from bench.train import TrainConfig, train

if TYPE_CHECKING:
    from bench.run import Result

DEFENSES = ("relu", "kwta", "kwta[gamma=0.05]", "relu-at", "kwta-at")
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
ATTACKS = "pgd,standard,fd-pgd,surrogate"
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


def together(result: Result, name: str, attacks: tuple[str, ...]) -> float:
    """Robust accuracy by the per-example AND over some rows, in percent."""
    frame = result.outcomes.query("defense == @name and attack in @attacks and epsilon == @EPSILON")
    broken = frame.groupby("index")["broken"].any()
    return 100 * float(1 - broken.mean())


def row(name: str, seed: int, n: int) -> str:
    """One line of the table."""
    result = evaluate(name, seed, n)
    defense = result.summary["defenses"][name]
    worst = defense["worst_case"][EPSILON]
    cells = [
        name,
        str(seed),
        f"{100 * defense['clean_accuracy']:.1f}",
        f"{together(result, name, ('pgd',)):.1f}",
        f"{together(result, name, AUTOATTACK):.1f}",
        f"{together(result, name, ('fd-pgd',)):.1f}",
        f"{100 * worst['robust_accuracy']:.1f} "
        f"({100 * worst['low']:.1f}–{100 * worst['high']:.1f})",
        worst["verdict"],
        defense["weights_digest"][:8],
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seeds", default="0,1,2", help="training seeds")
    parser.add_argument("--defenses", default=",".join(DEFENSES))
    arguments = parser.parse_args()
    header = ["defense", "training seed", "clean", "PGD", "AutoAttack", "finite differences"]
    header += ["worst case (95 %)", "verdict", "weights"]
    say("| " + " | ".join(header) + " |")
    say("| :-- |" + " --: |" * 6 + " :-- | :-- |")
    for name in arguments.defenses.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            say(row(name, seed, arguments.n))
    from bench.record.schema import device_name, version_of

    versions = ", ".join(f"{d} {version_of(d)}" for d in ("torch", "foolbox", "pyautoattack"))
    say(f"\nn = {arguments.n}, Linf {EPSILON}, CPU {device_name('cpu')}, {versions}, ")
    say(f"numpy {np.__version__}. Robust accuracy in percent.")


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
