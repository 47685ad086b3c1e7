"""Every verb's help ends in something to type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bench.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer


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
