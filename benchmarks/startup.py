"""How long the command line takes to answer, against importing the libraries that it drives.

    python benchmarks/startup.py --repeats 5

Each command is a new process; rounds go through all of them in turn, and the median of each counts.
Help and lists should not pay for torch: a command that takes longer than `import torch` loses.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from measuring import ROOT, interleaved, say, surroundings, verdict

from bench.report.markdown import table

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = ["command", "seconds", "of import torch", "of import foolbox"]
OWN = {
    "python -c 'import bench'": ("-c", "import bench"),
    "python -m bench --help": ("-m", "bench", "--help"),
    "python -m bench list": ("-m", "bench", "list"),
}
TORCH, FOOLBOX = "python -c 'import torch'", "python -c 'import foolbox'"
PEERS = {
    "python -c pass": ("-c", "pass"),
    TORCH: ("-c", "import torch"),
    FOOLBOX: ("-c", "import foolbox"),
}


def start(arguments: Sequence[str]) -> None:
    """Run this interpreter to its end.

    Raises:
        CalledProcessError: it failed, and its time would mean nothing.
    """
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, help="of each command (default: 5)")
    parser.add_argument("--full", action="store_true", help="15 repeats")
    arguments = parser.parse_args(argv)
    repeats = arguments.repeats or (15 if arguments.full else 5)
    works = {name: partial(start, words) for name, words in (OWN | PEERS).items()}
    spent = {name: time.seconds for name, time in interleaved(works, repeats).items()}
    lines = [
        [
            f"`{name}`",
            f"{seconds:.2f}",
            f"{seconds / spent[TORCH]:.2f}",
            f"{seconds / spent[FOOLBOX]:.2f}",
        ]
        for name, seconds in spent.items()
    ]
    say(table(HEADER, lines, text=frozenset({"command"})) + "\n")
    for name in OWN:
        say(verdict(f"`{name}`", spent[name] / spent[TORCH], "`import torch`"))
    say("\n" + surroundings(n="no examples", seed="none", repeats=repeats, figure="median"))


if __name__ == "__main__":
    main()
