"""`list`, and what the schemes offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer

from bench.api import Defense, Offer
from bench.cli.listing import list_plugins
from bench.errors import ModelError, UnknownNameError
from bench.registry import defenses

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
