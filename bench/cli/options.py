"""What the verbs share: options that several have, how they print, and how they are interrupted."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Exit codes beyond success.
FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
#: Where runs lie if nothing else is said.
RUNS = Path("results/runs")

Run = Annotated[str, typer.Argument(help="A run: folder, id or its beginning, or latest.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
Defense = Annotated[
    str, typer.Option(help="Defenses, comma-separated, such as 'relu,kwta[gamma=0.2]'.")
]
Dataset = Annotated[
    str, typer.Option(help="digits, mnist, cifar10, …, parquet:PATH or folder:PATH.")
]
Norm = Annotated[str, typer.Option(help="Linf, L2 or L1.")]
Seed = Annotated[int, typer.Option(help="Of all attacks.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Checkpoint = Annotated[
    list[str] | None, typer.Option(help="NAME=PATH: weights of a defense. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def parse_checkpoints(texts: list[str] | None) -> dict[str, Path]:
    """Read `NAME=PATH`, each; the name may hold `=` itself.

    Raises:
        UsageError: one is not of that form.
    """
    found = {}
    for text in texts or ():
        match = re.fullmatch(r"([^=\[\]]+(?:\[[^\]]*\])?)=(.+)", text)
        if match is None:
            raise UsageError(f"--checkpoint wants NAME=PATH (got {text!r})")
        found[match[1]] = Path(match[2])
    return found


def parse_epsilons(text: str) -> tuple[str, ...]:
    """Take `0.05,8/255` apart; nothing where nothing is given."""
    return tuple(part for part in text.split(",") if part.strip())


def parse_seeds(text: str) -> list[int]:
    """Read `0,1,2`.

    Raises:
        UsageError: not different whole numbers from 0 up.
    """
    from bench.run.seeds import check_seeds

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--seeds has to be different whole numbers from 0 up (got {text!r})")
    seeds = [int(part) for part in parts]
    check_seeds(seeds)
    return seeds


def notes() -> Console:
    """Where everything goes that is no answer: standard error."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print it with sorted keys."""
    typer.echo(json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False))


def print_markdown(text: str) -> None:
    """Print it laid out on a terminal, and as it is elsewhere."""
    from rich.markdown import Markdown

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text.removesuffix("\n"))


@contextlib.contextmanager
def interruptible(said: str = "") -> Iterator[None]:
    """Ctrl-C ends the command with exit code 130.

    Args:
        said: printed then; nothing where empty.
    """
    try:
        yield
    except KeyboardInterrupt:
        if said:
            notes().print(f"interrupted: {said}")
        raise typer.Exit(INTERRUPTED) from None
