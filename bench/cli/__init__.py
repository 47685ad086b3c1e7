"""The command line: one module per verb, and the only place that prints or sets an exit code."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import platform
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from bench.cli import options
from bench.cli.corruptions import corruptions
from bench.cli.exchange import compare, export, import_adversarial
from bench.cli.figure import app as figure
from bench.cli.listing import list_plugins
from bench.cli.options import CLOSED, FAILED, MISTAKE, Verb, notes
from bench.cli.plugins import check, new_attack, new_defense
from bench.cli.prepare_data import prepare_data
from bench.cli.processor import spare_zen_4
from bench.cli.run import run
from bench.cli.runs import app as runs
from bench.cli.runs import report, verify
from bench.cli.selftest import selftest
from bench.cli.train import train
from bench.errors import (
    InputNotice,
    ModelError,
    PluginNotice,
    UsageError,
    WinnowError,
    in_one_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


class _Verbs(TyperGroup):
    """The verbs; none ends the command but by what it returns or raises."""

    def make_context(self, *words: Any, **settings: Any) -> Any:
        """Read the words of a command, and print its help where that is asked for."""
        with _told_output():
            return super().make_context(*words, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Do a verb.

        Raises:
            ModelError: a plugin asked Python to end, or raised what is no error.
        """
        try:
            with _told_output():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise ModelError(f"a plugin ended the command: {in_one_line(error)}") from error


app = typer.Typer(
    name="winnow",
    cls=_Verbs,
    help="Is this defense really robust, or has the attack merely failed?\n\n"
    "Evaluate a defense with every attack: python -m bench run --defense kwta --attacks all",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    """Print what a report of a fault has to name, and end."""
    if wanted:
        from bench.record.provenance import NOTED, version_of

        first, *others = NOTED
        beside = ", ".join(f"{name} {version_of(name)}" for name in others)
        options.echo(f"{first} {version_of(first)} (Python {platform.python_version()}, {beside})")
        raise typer.Exit


@app.callback()
def _begin(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print versions and end.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What every command has before its verb.

    Raises:
        UsageError: the working directory was removed, where plugins, runs and paths are looked for.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory was removed; change to one that is there") from None


app.command("run", cls=Verb)(run)
app.command("train", cls=Verb)(train)
app.command("prepare-data", cls=Verb)(prepare_data)
app.command("corruptions", cls=Verb)(corruptions)
app.command("list", cls=Verb)(list_plugins)
app.command("report", cls=Verb)(report)
app.command("verify", cls=Verb)(verify)
app.command("compare", cls=Verb)(compare)
app.command("export", cls=Verb)(export)
app.command("import-adversarial", cls=Verb)(import_adversarial)
app.command("selftest", cls=Verb)(selftest)
app.command("check", cls=Verb)(check)
app.command("new-defense", cls=Verb)(new_defense)
app.command("new-attack", cls=Verb)(new_attack)
app.add_typer(figure, name="figure")
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command line and exit.

    0: done; 1: some cell failed, or something does not hold; 2: the user's mistake, told in one
    line; 130: interrupted, what was finished is stored; 141: standard output was closed.
    """
    _open_streams()
    errors = notes()
    spare_zen_4()
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a crash says in which file

    def show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        word = "note" if issubclass(category, (InputNotice, PluginNotice)) else "warning"
        errors.print(f"{word}: {message}")

    warnings.showwarning = show_warning
    logging.getLogger().addHandler(logging.NullHandler())  # libraries talk through their flags
    try:
        with _told_exits():
            sys.exit(app(standalone_mode=False))
    except UsageError as error:
        errors.print(f"error: {_one_line(str(error))}")
        sys.exit(MISTAKE)
    except WinnowError as error:
        errors.print(f"error: {_one_line(str(error))}")
        sys.exit(FAILED)
    except typer.Abort:
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        errors.print(f"error: cannot use {error.filename}: {error.strerror or error}")
        sys.exit(MISTAKE)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _tell_misuse(error, errors)
        sys.exit(MISTAKE)
    finally:
        _give_up()


def _open_streams() -> None:
    """Have standard streams that were closed before this process began lead nowhere.

    Files that are opened would take their numbers, and be written to by whatever is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere, number)  # for what this process starts as well
        setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))


def _tell_misuse(error: Any, errors: Console) -> None:
    """What typer found in the words of a command, in one line; help where there were none."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    verbs: list[str] = []
    context = error.ctx
    while context is not None and context.parent is not None:
        verbs.insert(0, context.info_name)
        context = context.parent
    words = " ".join(["python -m bench", *verbs, "--help"])
    errors.print(f"error: {_one_line(error.format_message()).rstrip('.')} (see {words})")


def _give_up() -> None:
    """Have what cannot be written go nowhere: Python tries again at the end, and exits with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _told_output() -> Iterator[None]:
    """End the command where standard output takes no more: of a closed pipe nothing is said.

    Raises:
        typer.Exit: with the exit code of that.
    """
    try:
        yield
    except OSError as error:
        frames = traceback.walk_tb(error.__traceback__)
        if all(frame.f_code is not typer.echo.__code__ for frame, _ in frames):
            raise  # something else cannot be written, or is closed
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(CLOSED) from None
        notes().print(f"error: cannot write the output: {error.strerror}")
        raise typer.Exit(FAILED) from None


@contextlib.contextmanager
def _told_exits() -> Iterator[None]:
    """Have a plugin that calls `os._exit` in the process of the command fail it, and be named.

    Nothing would be said otherwise, and 0 would be taken for success. What is copied from this
    process leaves as ever.
    """
    command, leave = os.getpid(), os._exit

    def leave_told(status: int) -> NoReturn:
        if os.getpid() != command:
            leave(status)
        frame = traceback.extract_stack(limit=2)[0]
        where = f"{frame.filename}, line {frame.lineno}"
        said = f"error: a plugin ended the command: os._exit({status}) in {where}\n"
        with contextlib.suppress(OSError):  # standard error may be closed
            os.write(2, said.encode())
        leave(status or FAILED)

    vars(os)["_exit"] = leave_told
    try:
        yield
    finally:
        vars(os)["_exit"] = leave
