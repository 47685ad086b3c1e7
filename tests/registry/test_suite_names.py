"""Suites: a name for several attacks, and the epsilons that it brings."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bench.errors import PluginError, UnknownNameError, UsageError
from bench.registry import attacks, create_attacks, register_suite, suite_epsilons, suites
from bench.threat import Norm
from tests.commands import ROOT


def test_suites_expand_once() -> None:
    """An attack that several names stand for is run once, in the order of the first."""
    first, second, *_ = attacks.names()
    register_suite("pair", "two attacks")(lambda norm: [first, second])

    try:
        chosen = create_attacks(f"{second},pair,{first}", Norm.LINF)
    finally:
        del suites["pair"]

    assert [attack.name for attack in chosen] == [second, first]


@pytest.mark.parametrize(
    ("text", "family", "norm", "expected"),
    [
        ("own", "digits", Norm.LINF, ("0.1", "0.2")),
        (" own ", "digits", Norm.LINF, ("0.1", "0.2")),
        ("own", "digits", Norm.L2, ()),
        ("own", "mnist", Norm.LINF, ()),
        ("own", None, Norm.LINF, ()),
        ("own,still", "digits", Norm.LINF, ()),
        ("still", "digits", Norm.LINF, ()),
        ("quick", "digits", Norm.LINF, ()),
    ],
)
def test_a_suite_brings_its_epsilons_where_it_stands_alone(
    text: str, family: str | None, norm: Norm, expected: tuple[str, ...]
) -> None:
    """For the families and norms it names; beside anything else it brings none."""
    epsilons = {("digits", Norm.LINF): "0.1 0.2"}
    register_suite("own", "with epsilons", epsilons=epsilons)(lambda norm: ["fgsm"])

    try:
        assert suite_epsilons(text, family, norm) == expected
    finally:
        del suites["own"]


def test_suite_names_are_guarded() -> None:
    """A taken name and an empty or unknown list are refused."""
    with pytest.raises(PluginError, match="suite 'quick': the name is taken"):
        register_suite("quick", "another")(lambda norm: [])
    with pytest.raises(UsageError, match=r"no attack given; .*--attacks standard"):
        create_attacks(" , ", Norm.LINF)
    with pytest.raises(UnknownNameError, match="attack or suite 'quik'; did you mean 'quick'"):
        create_attacks("quik", Norm.LINF)


@pytest.mark.parametrize("written", ["Standard", "STANDARD", "standard"])
def test_suites_are_meant_in_any_case(written: str) -> None:
    """The same attacks, and the same epsilons where it stands alone."""
    plain = [attack.name for attack in create_attacks("standard", Norm.LINF)]
    assert [attack.name for attack in create_attacks(written, Norm.LINF)] == plain
    assert suite_epsilons(written, "mnist", Norm.LINF) == suite_epsilons(
        "standard", "mnist", Norm.LINF
    )


def test_suites_are_found_by_whoever_asks_for_them_first() -> None:
    """In an interpreter that has asked for no attack: all that the package's text registers."""
    ask = "import sys; from bench.cli import main; sys.argv[1:] = ['list', 'suites']; main()"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=True
    )

    text = (ROOT / "attacks" / "__init__.py").read_text(encoding="utf-8")
    registered = re.findall(r"^@register_suite\(\s*\"([a-z-]+)\"", text, re.MULTILINE)
    assert len(registered) > 2
    assert re.findall(r"^  ([a-z-]+)$", done.stdout, re.MULTILINE) == registered
