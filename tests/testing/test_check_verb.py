"""`python -m bench check`: what it prints, and how it exits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.defenses.activated import ReLU
from bench.errors import UnknownNameError, UsageError
from bench.testing import attack_rules

if TYPE_CHECKING:
    from collections.abc import Callable


def test_what_holds_is_listed_and_exits_with_0() -> None:
    """Each check with its status, and counts."""
    done = CliRunner().invoke(app, ["check", "relu", "fgsm"])

    assert done.exit_code == 0
    assert "relu (defense): 15 passed, 0 failed, 3 skipped" in done.output
    assert "passed   batch-mates" in done.output
    assert "skipped  surrogates: it declares none" in done.output
    assert (
        f"fgsm (attack): {len(attack_rules.RULES) - 2} passed, 0 failed, 2 skipped" in done.output
    )
    assert "2 of 2 plugins hold" in done.output


def test_what_does_not_hold_says_how_to_mend_it_and_exits_with_1(
    register: Callable[[type], str],
) -> None:
    """Expected, seen, to mend."""
    odd = type("Odd", (ReLU,), {"twin": "test-conformance"})
    done = CliRunner().invoke(app, ["check", register(odd)])

    assert done.exit_code == 1
    lines = done.output[done.output.index("FAILED   twin") :].splitlines()[1:4]
    assert [line.split(":")[0].strip() for line in lines] == ["expected", "seen", "to mend"]
    assert lines[1].endswith("it names itself")


def test_what_a_plugin_raises_when_it_is_made_is_a_mistake(register: Callable[[type], str]) -> None:
    """An option's value that it does not take: told in one line, not as a traceback."""

    def initialise(self: ReLU, *, width: int = 1) -> None:
        if width > 1:
            raise ValueError("too wide")

    name = register(type("Picky", (ReLU,), {"__init__": initialise}))
    done = CliRunner().invoke(app, ["check", f"{name}[width=2]"])

    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == f"{name}[width=2]: ValueError: too wide"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["rleu"], UnknownNameError, "unknown defense or attack 'rleu'; did you mean 'relu'"),
        ([], UsageError, "name plugins to check"),
        (["relu", "--all"], UsageError, "name plugins to check"),
        (["kwta[gamma=7]"], UsageError, "gamma has to be"),
    ],
)
def test_a_mistake_is_refused(arguments: list[str], error: type[UsageError], words: str) -> None:
    """Which `main` tells in one line, with exit code 2."""
    done = CliRunner().invoke(app, ["check", *arguments])

    assert isinstance(done.exception, error)
    assert words in str(done.exception)
