"""`list`, and what the schemes offer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import typer

from bench.api import Defense, Offer
from bench.cli.listing import list_plugins
from bench.errors import ModelError, UnknownNameError, UsageError
from bench.registry import attacks, defenses
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class Shelf(Defense):
    """Three models: one that builds anywhere, one that needs numbers, one that cannot be built."""

    summary = "for tests"
    argument = "NAME"

    def __init__(self, name: str) -> None:
        self.model = name

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """Its name."""
        return self.model

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A linear model, or an error."""
        import torch
        from torch import nn

        if self.model == "broken":
            raise ModelError("broken: a wheel is missing")
        if self.model == "counting":
            torch.ones(1).item()  # which a meta tensor has not
        return nn.Linear(shape[0], classes)

    @classmethod
    def models(cls) -> Iterator[Offer]:
        """All three."""
        for name in ("plain", "counting", "broken"):
            yield Offer(f"shelf:{name}", (3, 8, 8), 10)


@pytest.fixture(autouse=True)
def _shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme `shelf`, for one test."""
    defenses.schemes()
    monkeypatch.setattr(defenses, "_classes", {**defenses._classes, "shelf": Shelf})


def test_schemes_are_listed_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """With what stands behind their colon; they are no plain names, which `all` stands for."""
    list_plugins()

    assert "shelf:NAME\n      for tests" in capsys.readouterr().out
    assert "shelf" in defenses.schemes()
    assert "shelf" not in defenses.names()
    assert "robustbench" not in defenses.names()


def test_models_of_a_scheme_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line with what it takes."""
    list_plugins(models="shelf")

    assert capsys.readouterr().out.splitlines()[0] == "shelf:plain  3x8x8, 10 classes"


def test_building_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that only needs numbers builds; exit code 1 where one does not."""
    with pytest.raises(typer.Exit) as raised:
        list_plugins(models="shelf", build=True)

    assert raised.value.exit_code == 1
    assert capsys.readouterr().out.splitlines() == [
        "shelf:plain  builds",
        "shelf:counting  builds",
        "shelf:broken  does not build: broken: a wheel is missing",
        "2 of 3 build without weights",
    ]


def test_unknown_scheme_gets_a_suggestion() -> None:
    """A plain defense is none."""
    with pytest.raises(UnknownNameError, match="unknown scheme 'robustbnch'; did you mean 'robust"):
        list_plugins(models="robustbnch")
    with pytest.raises(UnknownNameError, match="unknown scheme 'kwta'"):
        list_plugins(models="kwta")


def test_a_scheme_without_a_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can count the files."""
    list_plugins(models="file")

    assert "file:PATH.py:FUNCTION has no list of models" in capsys.readouterr().out


def names(text: str) -> set[str]:
    """What is listed, without options."""
    lines = [line for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    return {line.strip().partition("[")[0] for line in lines}


@pytest.mark.parametrize("norm", list(Norm))
def test_attacks_are_listed_by_norm(norm: Norm, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that search in it, by its name in any case, and nothing else."""
    list_plugins("attacks", norm=norm.value.lower())

    searching = {
        name if not attacks.get(name).argument else f"{name}:{attacks.get(name).argument}"
        for name in [*attacks.names(), *attacks.schemes()]
        if norm in attacks.get(name).norms
    }
    assert names(capsys.readouterr().out) == searching


def test_attacks_are_grouped_by_what_they_go_by(capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, with its aliases, and no line is wider than a terminal but for options."""
    list_plugins("attacks")

    text = capsys.readouterr().out
    groups = dict(re.findall(r"^Attacks that ([^:]+):\n((?:  .+\n)+)", text, re.MULTILINE))
    assert "  fgsm\n" in groups["follow the model's own gradient"]
    assert "  square[" in groups["go by outputs or decisions alone"]
    assert re.search(r"hop-skip-jump[^\n]*\n(?:      .*\n)*?.*also: hsja", text)
    assert all(len(line) <= 80 for line in text.splitlines() if line.startswith("      "))


def test_each_kind_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A suite with its members where the norm is known; JSON has the same."""
    list_plugins("suites", norm="L2")
    text = " ".join(capsys.readouterr().out.split())
    assert "apgd-ce, apgd-t, fab-t, square" in text
    assert "Defenses" not in text
    list_plugins("data", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in found["Data sets"]][:2] == ["digits", "mnist"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "data", "norm": "L2"}, "--norm is about attacks and suites; data have none"),
        ({"norm": "L3"}, "unknown norm 'L3'"),
        ({"models": "shelf", "norm": "L2"}, "--models lists a scheme by itself"),
    ],
)
def test_filters_that_filter_nothing_are_refused(words: dict[str, Any], message: str) -> None:
    """With what would be done."""
    with pytest.raises(UsageError, match=message):
        list_plugins(**words)
