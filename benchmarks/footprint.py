"""What Winnow takes before it does anything, and how much memory it takes when it does.

    python benchmarks/footprint.py --repeats 5 --n 50,200,599

First how long the command line takes to answer, against importing the libraries that it drives.
Each command is a new process; rounds go through all of them in turn, and the median of each counts.
Help and lists should not pay for torch: a command that takes longer than `import torch` loses.

Then the peak memory of a run, by its number of examples. Each line is a process of its own that
runs pgd and Square on digits with one worker and without examination, and then asks the system for
its largest resident size. The first line imports the same libraries and runs nothing. A run works
shard by shard, so its peak should hardly depend on n: it loses when it does.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import ROOT, interleaved, medians, parser_of, say, surroundings, verdict

from bench.report.writing import table

if TYPE_CHECKING:
    from collections.abc import Sequence

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
MEMORY = ["examples", "peak (MB)", "of the libraries alone", "of the fewest examples"]
MEMORY += ["growth per example (kB)"]
ATTACKS, EPSILON, DEFENSE = "pgd,square[queries=100]", "0.1", "relu"
STATUS = Path("/proc/self/status")


def start(arguments: Sequence[str]) -> str:
    """Run this interpreter to its end, on one thread, and return what it printed.

    Raises:
        CalledProcessError: it failed, and its figures would mean nothing.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def startup(repeats: int) -> None:
    """Print the table of commands and what it says."""
    works = {name: partial(start, words) for name, words in (OWN | PEERS).items()}
    spent = {name: time.seconds for name, time in medians(interleaved(works, repeats)).items()}
    header = ["command", "seconds", "of import torch", "of import foolbox"]
    lines = [
        [f"`{name}`", *(f"{seconds / unit:.2f}" for unit in (1, spent[TORCH], spent[FOOLBOX]))]
        for name, seconds in spent.items()
    ]
    say(table(header, lines, text=frozenset({"command"})) + "\n")
    for name in OWN:
        say(verdict(f"`{name}`", spent[name] / spent[TORCH], "`import torch`"))


def memory(counts: Sequence[int], attacks: str, seed: int) -> None:
    """Print the table of peaks and what it says.

    Args:
        counts: numbers of examples, ascending.
        attacks: of each run.
        seed: of each run.
    """
    peaks = {n: peak(n, attacks, seed) for n in [0, *counts]}
    first, last = counts[0], counts[-1]
    lines = [
        [
            str(n) if n else "none",
            f"{size / 1e6:.0f}",
            f"{size / peaks[0]:.3f}",
            f"{size / peaks[first]:.3f}" if n else "–",
            f"{(size - peaks[first]) / (n - first) / 1e3:.1f}" if n > first else "–",
        ]
        for n, size in peaks.items()
    ]
    say(table(MEMORY, lines) + "\n")
    ratio = peaks[last] / peaks[first]
    say(verdict(f"A run of n = {last}", ratio, f"the memory of one of n = {first}"))


def peak(n: int, attacks: str, seed: int) -> int:
    """Bytes, of a process of its own."""
    child = [str(Path(__file__).resolve()), "--child", str(n), "--attacks", attacks]
    return int(start([*child, "--seed", str(seed)]).split()[-1])


def own_peak() -> int:
    """The largest resident size of this process so far, in bytes.

    Linux lets `ru_maxrss` begin at the size of the process that started this one; the high-water
    mark of its own memory is used where there is one.
    """
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run_here(n: int, attacks: str, seed: int) -> None:
    """The run whose memory is measured; with n = 0 nothing but its imports."""
    import foolbox  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pyautoattack  # noqa: F401
    import torch

    from bench.run import run
    from bench.run.config import RunConfig
    from bench.run.prepare import prepare

    torch.set_num_threads(1)
    if n == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            defenses=(DEFENSE,),
            attacks=attacks,
            epsilons=(EPSILON,),
            n=n,
            seed=seed,
            device="cpu",
            workers=0,
            out=Path(folder),
            twins=False,
            examine=False,
        )
        if run(prepare(config)).failed:
            raise RuntimeError("a cell failed: the memory of this run means nothing")


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables and what they say."""
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, help="of each command (default: 5)")
    parser.add_argument("--n", help="numbers of examples (default: 50,200,599)")
    parser.add_argument("--full", action="store_true", help="15 repeats, five numbers of examples")
    parser.add_argument("--attacks", default=ATTACKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child is not None:
        run_here(arguments.child, arguments.attacks, arguments.seed)
        say(str(own_peak()))
        return
    repeats = arguments.repeats or (15 if arguments.full else 5)
    text = arguments.n or ("50,100,200,400,599" if arguments.full else "50,200,599")
    startup(repeats)
    say("")
    memory(sorted({int(n) for n in text.split(",")}), arguments.attacks, arguments.seed)
    told = surroundings(n=text, seed=arguments.seed, repeats=repeats, data="digits")
    run_by = f"{DEFENSE} by {arguments.attacks} at Linf {EPSILON}"
    say(f"\n{told} Seconds are medians; runs are of {run_by}.")


if __name__ == "__main__":
    main()
