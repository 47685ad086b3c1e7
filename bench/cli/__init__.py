"""The command line: one module per verb, and the only place that prints or sets an exit code."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import typer

from bench.cli.exchange import compare, export, import_adversarial
from bench.cli.figure import app as figure
from bench.cli.options import FAILED, MISTAKE, notes
from bench.cli.plugins import check, list_plugins, new_attack, new_defense
from bench.cli.run import run
from bench.cli.runs import app as runs
from bench.cli.runs import report, verify
from bench.cli.selftest import selftest
from bench.cli.train import train
from bench.errors import UsageError, WinnowError

app = typer.Typer(
    name="winnow",
    help="Is this defense really robust, or has the attack merely failed?\n\n"
    "Evaluate a defense with every attack: python -m bench run --defense kwta --attacks all",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("train")(train)
app.command("list")(list_plugins)
app.command("report")(report)
app.command("verify")(verify)
app.command("compare")(compare)
app.command("export")(export)
app.command("import-adversarial")(import_adversarial)
app.command("selftest")(selftest)
app.command("check")(check)
app.command("new-defense")(new_defense)
app.command("new-attack")(new_attack)
app.add_typer(figure, name="figure")
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command line and exit.

    0: done; 1: some cell failed, or something does not hold; 2: the user's mistake, told in one
    line; 130: interrupted, what was finished is stored.
    """
    errors = notes()

    def show_warning(message: Any, *_: Any, **__: Any) -> None:
        errors.print(f"warning: {message}")

    warnings.showwarning = show_warning
    logging.getLogger().addHandler(logging.NullHandler())  # libraries talk through their flags
    try:
        app()
    except UsageError as error:
        errors.print(f"error: {error}")
        sys.exit(MISTAKE)
    except WinnowError as error:
        errors.print(f"error: {error}")
        sys.exit(FAILED)
