"""What the verbs share: options that several have, how they print, and how they are interrupted."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from bench.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Exit codes beyond success.
FAILED, MISTAKE, INTERRUPTED, CLOSED = 1, 2, 130, 141
#: Where runs lie if nothing else is said.
RUNS = Path("results/runs")

Run = Annotated[str, typer.Argument(help="A run: folder, id or its beginning, or latest.")]


def _folder(out: Path) -> Path:
    """Refuse a file, by whatever verb, as `runs list` does."""
    if out.is_file():
        from bench.record.runs import stored_runs

        stored_runs(out)  # says so
    return out


Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.", callback=_folder)]
Defense = Annotated[
    str, typer.Option(help="Defenses, comma-separated, such as 'relu,kwta[gamma=0.2]'.")
]
Dataset = Annotated[
    str,
    typer.Option(
        help="digits, mnist, cifar10, …, parquet:PATH, folder:PATH, npz:PATH, webdataset:PATH."
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        help="FILE: the model's classes in the order of its logits, where the data have some of "
        "them; or imagenet. The same as --dataset 'folder:PATH[classes=FILE]'."
    ),
]
Norm = Annotated[str, typer.Option(help="Linf, L2 or L1.")]
Seed = Annotated[int, typer.Option(help="Of all attacks.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Devices = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:1; several: cuda:0,cuda:1, cuda:all."),
]
Checkpoint = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=PATH: weights of a defense; PATH#KEY of several in a file. Repeatable."
    ),
]
Html = Annotated[
    bool, typer.Option("--html", help="Write a page, too: one file that opens in any browser.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


class Verb(TyperCommand):
    """A command that takes every option once, and none that is empty.

    Of an option given twice the last would count in silence, and an empty one would mean its
    default, though it is most often a variable of the shell that is not set.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Check what was written before it is converted.

        Raises:
            UsageError: an option twice, an empty one, or a character that no argument has.
        """
        if not any(word in ctx.help_option_names for word in args):
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param in order:
                _check_written(param, given.get(param.name), order.count(param))
        return super().parse_args(ctx, args)


def _check_written(param: Any, value: Any, times: int) -> None:
    """Check one option or argument as it was written."""
    option = param.param_type_name == "option"
    name = max(param.opts, key=len) if option else f"the argument {param.name}"
    if option and times > 1 and not param.multiple:
        raise UsageError(f"{name} is given {times} times; give it once")
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(text, str) and not text.strip(", \t\n"):
            raise UsageError(f"{name} is empty (got {text!r}); leave it out, or give a value")
        if isinstance(text, str) and "\0" in text:
            raise UsageError(f"{name} holds a null character, which no name or path has")


def parse_checkpoints(texts: list[str] | None) -> dict[str, Path]:
    """Read `NAME=PATH`, each; the name may hold `=` itself.

    Raises:
        UsageError: one is not of that form, or a name is there twice.
    """
    from bench.data.reading import expanded

    found: dict[str, Path] = {}
    for text in texts or ():
        match = re.fullmatch(r"([^=\[\]]+(?:\[[^\]]*\])?)=(.+)", text)
        if match is None:
            raise UsageError(f"--checkpoint wants NAME=PATH (got {text!r})")
        if match[1] in found:
            raise UsageError(
                f"--checkpoint names two files for {match[1]}, {found[match[1]]} and {match[2]}; "
                "a defense is evaluated with one: run it twice"
            )
        found[match[1]] = expanded(match[2])
    return found


def parse_epsilons(text: str) -> tuple[str, ...]:
    """Take `0.05,8/255` apart; nothing where nothing is given.

    Raises:
        UsageError: commas alone.
    """
    parts = tuple(part for part in text.split(",") if part.strip())
    if text and not parts:
        raise UsageError(f"--eps has to name epsilons, such as 0.05,8/255 (got {text!r})")
    return parts


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


class _Screen(Console):
    """Ends the command where nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Instead of what a plugin does that ends the command.

        Raises:
            typer.Exit: always.
        """
        raise typer.Exit(CLOSED)


class _Notes(_Screen):
    """Prints text as it is, but for what would steer the terminal."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """As `Console.print`."""
        clean = [printable(each) if isinstance(each, str) else each for each in objects]
        super().print(*clean, **settings)


def notes() -> Console:
    """Where everything goes that is no answer: standard error, as it is now."""
    return _Notes(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line of an answer, without what would steer the terminal."""
    typer.echo(printable(str(text)), err=err)


def verification_of(folder: Path) -> str:
    """The command that checks a run, as a shell takes it."""
    return f"python -m bench verify {shlex.quote(str(folder))}"


def print_json(value: Any) -> None:
    """Print it with sorted keys."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False)
    typer.echo("".join(c if printable(c) else json.dumps(c)[1:-1] for c in text))


def print_markdown(text: str) -> None:
    """Print it laid out on a terminal, and as it is elsewhere."""
    from bench.cli.screen import show_markdown

    console = _Screen(highlight=False)
    if console.is_terminal:
        show_markdown(text, console)
    else:
        echo(text.removesuffix("\n"))


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
