"""What transfer attacks start from: found, named by the target's network, or missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.errors import UnknownNameError, UsageError
from bench.models import checkpoints
from bench.models.contenders import start_name
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = "transfer[source=relu],transfer[source=relu-at]"
CONFIG = RunConfig(defenses=("kwta",), attacks=BOTH, epsilons=("0.1",), n=10, workers=0)


def skipped(prepared: Prepared) -> dict[tuple[str, str], str]:
    """The reason beside each cell, empty where it can run."""
    return {
        (c.cell.defense, c.cell.attack): c.why_not.reason if c.why_not else ""
        for c in prepared.cells
        if c.attack
    }


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hides the weights of a defense."""
    found = checkpoints.find_checkpoint

    def hide(hidden: str) -> None:
        def find(name: str, network: str, digest: str) -> Path | None:
            return None if name == hidden else found(name, network, digest)

        monkeypatch.setattr(checkpoints, "find_checkpoint", find)

    return hide


def test_a_named_source_is_loaded_and_not_attacked() -> None:
    """The twin has rows of its own, which every comparison needs; another source has none."""
    prepared = prepare(CONFIG)
    assert [c.name for c in prepared.contenders] == ["kwta", "relu"]
    assert [c.name for c in prepared.starts] == ["relu-at"]
    assert {planned.cell.defense for planned in prepared.cells} == {"kwta", "relu"}
    reasons = skipped(prepared)
    assert reasons["kwta", "transfer[source=relu]"] == ""
    assert reasons["kwta", "transfer[source=relu-at]"] == ""
    assert reasons["relu", "transfer[source=relu-at]"] == ""
    assert "it is the source itself" in reasons["relu", "transfer[source=relu]"]


@pytest.mark.parametrize("missing", ["relu", "relu-at"])
def test_a_source_without_weights_is_a_skipped_cell(
    missing: str, without: Callable[[str], None]
) -> None:
    """With its reason, whether or not it is the twin; the other source still serves."""
    without(missing)
    reasons = skipped(prepare(CONFIG))
    other = {"relu": "relu-at", "relu-at": "relu"}[missing]
    assert f"no weights of its {missing}" in reasons["kwta", f"transfer[source={missing}]"]
    assert reasons["kwta", f"transfer[source={other}]"] == ""


def test_named_sources_serve_without_twins() -> None:
    """A run that evaluates no twin can still transfer from a defense that it names."""
    prepared = prepare(replace(CONFIG, twins=False))
    assert [c.name for c in prepared.contenders] == ["kwta"]
    assert [c.name for c in prepared.starts] == ["relu", "relu-at"]
    assert set(skipped(prepared).values()) == {""}


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("relu-at", "kwta", "relu-at"),
        ("relu-at", "kwta[gamma=0.2]", "relu-at"),
        ("relu", "kwta[gamma=0.2,network=resnet10w16]", "relu[network=resnet10w16]"),
        ("relu-at", "kwta-at[network=resnet34]", "relu-at[network=resnet34]"),
    ],
)
def test_a_source_is_on_the_network_that_the_target_names(
    name: str, target: str, expected: str
) -> None:
    """So that one row of a suite fits every network."""
    assert start_name(name, target) == expected


def test_a_source_that_is_no_defense_is_an_error() -> None:
    """A slip is not a gap."""
    with pytest.raises(UnknownNameError, match="'rleu'; did you mean 'relu'"):
        prepare(replace(CONFIG, attacks="transfer[source=rleu]"))


def test_a_sources_weights_can_be_given(tmp_path: Path, without: Callable[[str], None]) -> None:
    """By `--checkpoint`; a file that cannot be used is an error, not a gap."""
    path = checkpoints.find_checkpoint("relu-at", "cnn", train_digest())
    assert path is not None
    without("relu-at")
    given = replace(CONFIG, checkpoints={"relu-at": path})
    assert [c.name for c in prepare(given).starts] == ["relu-at"]
    with pytest.raises(UsageError, match="no checkpoint at"):
        prepare(replace(CONFIG, checkpoints={"relu-at": tmp_path / "none.safetensors"}))


def train_digest() -> str:
    """What identifies weights trained on digits."""
    from bench.data import open_dataset

    return open_dataset("digits").digest("train")


def test_transfer_from_a_source_runs_and_says_which_weights(tmp_path: Path) -> None:
    """The outcomes are there; the source stands in the provenance and in no table."""
    config = replace(CONFIG, attacks="transfer[source=relu-at]", examine=False, out=tmp_path)
    summary = run(prepare(config)).summary
    assert list(summary["defenses"]) == ["kwta"]
    assert summary["controls"] == {}
    cell = summary["defenses"]["kwta"]["attacks"]["transfer[source=relu-at]"]["0.1"]
    assert (cell["status"], cell["attacked"]) == ("ok", 10)
    (source,) = prepare(config).starts
    assert summary["provenance"]["sources"] == {"relu-at": source.record.weights_digest}
