"""Peak memory of a run, by its number of examples.

    python benchmarks/memory.py --n 50,200,599

Each line is a process of its own that runs pgd and Square on digits with one worker and without
examination, and then asks the system for its largest resident size. The first line imports the same
libraries and runs nothing. A run works shard by shard, so its peak should hardly depend on n: it
loses when it does.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import ROOT, say, surroundings, verdict

from bench.report.markdown import table

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = ["examples", "peak (MB)", "of the libraries alone", "of the fewest examples"]
HEADER += ["growth per example (kB)"]
ATTACKS, EPSILON, DEFENSE = "pgd,square[queries=100]", "0.1", "relu"
STATUS = Path("/proc/self/status")


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
    from bench.run.prepare import RunConfig, prepare

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
            workers=1,
            out=Path(folder),
            twins=False,
            examine=False,
        )
        if run(prepare(config)).failed:
            raise RuntimeError("a cell failed: the memory of this run means nothing")


def peak(n: int, attacks: str, seed: int) -> int:
    """Bytes, of a process of its own."""
    arguments = ["--child", str(n), "--attacks", attacks, "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def rows(peaks: dict[int, int]) -> list[list[str]]:
    """The table, from bytes by number of examples, ascending; 0 stands for the libraries alone."""
    fewest = min(n for n in peaks if n)
    return [
        [
            str(n) if n else "none",
            f"{size / 1e6:.0f}",
            f"{size / peaks[0]:.3f}",
            f"{size / peaks[fewest]:.3f}" if n else "–",
            f"{(size - peaks[fewest]) / (n - fewest) / 1e3:.1f}" if n > fewest else "–",
        ]
        for n, size in peaks.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", help="numbers of examples (default: 50,200,599)")
    parser.add_argument("--full", action="store_true", help="five numbers of examples")
    parser.add_argument("--attacks", default=ATTACKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child is not None:
        run_here(arguments.child, arguments.attacks, arguments.seed)
        say(str(own_peak()))
        return
    text = arguments.n or ("50,100,200,400,599" if arguments.full else "50,200,599")
    counts = sorted({int(n) for n in text.split(",")})
    peaks = {n: peak(n, arguments.attacks, arguments.seed) for n in [0, *counts]}
    say(table(HEADER, rows(peaks)) + "\n")
    first, last = counts[0], counts[-1]
    ratio = peaks[last] / peaks[first]
    say(verdict(f"A run of n = {last}", ratio, f"the memory of one of n = {first}"))
    say(
        "\n"
        + surroundings(n=text, seed=arguments.seed, data="digits", defense=DEFENSE)
        + f" Attacks: {arguments.attacks} at Linf {EPSILON}, in shards of 50."
    )


if __name__ == "__main__":
    main()
