"""Every verb's help ends in something to type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from bench.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator


def verbs(tree: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, groups included."""
    for command in tree.registered_commands:
        assert command.name is not None
        yield (*before, command.name)
    for group in tree.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        yield (*before, group.name)
        yield from verbs(group.typer_instance, (*before, group.name))


@pytest.mark.parametrize("words", list(verbs(app)), ids=" ".join)
def test_help_carries_an_example_of_its_own(words: tuple[str, ...]) -> None:
    """`Example: python -m bench VERB …`."""
    shown = CliRunner().invoke(app, [*words, "--help"])

    assert shown.exit_code == 0
    example = re.search(r"Example: python -m bench (.+)", shown.output)
    assert example is not None, shown.output
    assert example[1].split()[: len(words)] == list(words)


def options_of(words: tuple[str, ...]) -> list[str]:
    """The long options of a command, in the order of its help."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return [max(p.opts, key=len) for p in command.params if p.param_type_name == "option"]


@pytest.mark.parametrize("words", list(verbs(app)), ids=" ".join)
def test_every_verb_has_the_options_that_run_has_in_its_order(words: tuple[str, ...]) -> None:
    """What is about the data comes first, where it lies and how it is printed last."""
    order = [*options_of(("run",)), "--json"]
    own = options_of(words)
    if words == ("export",):
        own.remove("--json")  # one of its forms
    shared = [option for option in own if option in order]
    assert shared == sorted(shared, key=order.index)


def test_versions_are_printed() -> None:
    """What a report of a fault has to name, on one line."""
    shown = CliRunner().invoke(app, ["--version"])

    assert shown.exit_code == 0
    (line,) = shown.output.splitlines()
    assert re.match(r"winnow-bench \d+\.\d+\.\d+.* \(Python 3\.\d+\.\d+.*, torch \d", line)
