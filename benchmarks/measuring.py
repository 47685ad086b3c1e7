"""What the benchmarks of speed and size share: timing, who wins, and where a figure comes from.

Nothing here imports torch, so that a script can measure what importing it costs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bench.record.provenance import device_name, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bench.run import Result

ROOT = Path(__file__).resolve().parent.parent
#: Distributions whose versions stand below a table.
NOTED = ("winnow-bench", "torch", "foolbox", "pyautoattack", "numpy")
#: Ratios of times this close to 1 count as even.
EVEN = 0.05

Value = TypeVar("Value")


class Spent(NamedTuple):
    """Time that some work took."""

    seconds: float
    """By the clock on the wall."""
    processor: float
    """Of this process on all its cores; what else the machine does is not in it."""

    def on(self, device: str) -> float:
        """What counts there: by the clock on a GPU, which computes while this process waits."""
        return self.processor if device == "cpu" else self.seconds


class Side(NamedTuple):
    """What one way of doing something took."""

    forwards: int
    """Of all examples together."""
    backwards: int
    """Of all examples together."""
    seconds: float
    """By the clock on the wall."""

    @property
    def passes(self) -> int:
        """Forwards and backwards."""
        return self.forwards + self.backwards

    @classmethod
    def sum(cls, sides: Iterable[Side]) -> Side:
        """All of them together."""
        return cls(*map(sum, zip(cls(0, 0, 0.0), *sides, strict=True)))


class Curve(NamedTuple):
    """What one way to robust accuracies took and found."""

    took: Side
    robust: list[float]
    """By epsilon, fractions."""


#: The columns of `compared`.
COMPARED = ["by", "forwards", "backwards", "seconds", "passes ratio", "seconds ratio"]
COMPARED += ["robust accuracy (%), by epsilon"]


def compared(what: str, ways: Mapping[str, Curve], peer: str) -> list[list[str]]:
    """Lines of a table, one for each way to the same, as ratios of a peer's.

    Args:
        what: stands first in each line.
        ways: by name.
        peer: one of them.
    """
    own = ways[peer].took
    return [
        [
            what,
            name,
            f"{took.forwards:,}",
            f"{took.backwards:,}",
            f"{took.seconds:.1f}",
            f"{took.passes / own.passes:.3f}",
            f"{took.seconds / own.seconds:.2f}",
            " ".join(f"{100 * fraction:.3g}" for fraction in robust) or "–",
        ]
        for name, (took, robust) in ways.items()
    ]


def together(result: Result, defense: str, attacks: Sequence[str], epsilon: str) -> float:
    """Robust accuracy by the per-example AND over some rows of a run, a fraction."""
    frame = result.outcomes_full
    asked = (frame["defense"] == defense) & (frame["epsilon"] == epsilon) & (frame["repeat"] == 0)
    broken = frame[asked & frame["attack"].isin(attacks)].groupby("index")["broken"].any()
    return float(1 - broken.mean())


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A script's command line, whose `--help` shows its docstring as it is written."""
    shown = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=shown)


def asking(doc: str | None, *, n: int, full: int) -> argparse.ArgumentParser:
    """What every script asks on the command line: `--n`, `--full`, `--seed` and `--device`.

    Args:
        doc: of the script.
        n: examples where nothing is said.
        full: examples of `--full`.
    """
    parser = parser_of(doc)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--n", type=int, default=n, help="examples (default: %(default)s)")
    size.add_argument("--full", action="store_const", dest="n", const=full, help=f"{full} examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    return parser


def timed(work: Callable[[], Value]) -> tuple[Value, Spent]:
    """Do some work once."""
    wall, processor = time.perf_counter(), time.process_time()
    value = work()
    return value, Spent(time.perf_counter() - wall, time.process_time() - processor)


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int) -> list[dict[str, Spent]]:
    """Each work's times in each round, which does each once, so that they share its weather.

    Args:
        works: by name, each repeatable.
        rounds: at least 1.
    """
    return [{name: timed(work)[1] for name, work in works.items()} for _ in range(rounds)]


def medians(rounds: Sequence[Mapping[str, Spent]]) -> dict[str, Spent]:
    """Of each work's times, by name."""
    return {
        name: Spent(*map(statistics.median, zip(*(spent[name] for spent in rounds), strict=True)))
        for name in rounds[0]
    }


@contextlib.contextmanager
def many(works: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` that does works in processes of their own, as many at a time as there are cores.

    Args:
        works: how many there will be; one is done here.
    """
    workers = min(works, os.cpu_count() or 1)
    if workers == 1:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield pool.map


def verdict(who: str, ratio: float, of: str, *, even: float = EVEN) -> str:
    """One sentence on a ratio of costs: below 1 wins, above 1 loses, close to 1 is even.

    Args:
        who: is measured.
        ratio: its cost over its peer's.
        of: what the peer's cost is called, such as `Foolbox's passes`.
        even: how far from 1 still counts as even; 0 for exact counts.
    """
    outcome = "loses" if ratio > 1 + even else "wins" if ratio < 1 - even else "is even"
    return f"{who} {outcome}: {ratio:.2f} times {of}."


def surroundings(device: str = "cpu", threads: int = 1, **facts: object) -> str:
    """Machine, device, versions and what else a table's figures depend on, such as n and seed."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    machine = f"{device_name('cpu')}, {os.cpu_count()} cores{load}, {platform.system()}"
    versions = ", ".join(f"{name} {version_of(name)}" for name in NOTED)
    told = ", ".join(f"{name} = {value}" for name, value in facts.items())
    gpu = device != "cpu"
    cpu = f"cpu, {threads} thread(s); on a GPU: not measured"
    on = f"{device}, {device_name(device)}" if gpu else cpu
    return (
        f"Machine: {machine} {platform.machine()}; device: {on}.\n"
        f"Versions: Python {platform.python_version()}, {versions}.\n"
        f"Measured in one run: {told}."
    )


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
