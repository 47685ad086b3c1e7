"""RobustBench's published figures beside ours, from a clone of its model_info."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.errors import CheckpointError
from bench.registry import defenses
from bench.threat import Norm
from tests.defenses.borrowed import SETTLED, SMALL, built, evaluated, image_folder, save

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("timm", reason="the extra `zoo` is not installed")

INFO = {"clean_acc": "89.69", "reported": "62.5", "autoattack_acc": "59.53", "eps": "8/255"}


@pytest.mark.parametrize(
    ("norm", "family", "shown"),
    [(Norm.LINF, "cifar10", True), (Norm.L2, "cifar10", False), (Norm.LINF, "svhn", False)],
)
def test_published_figures_are_of_the_same_data_and_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: Norm, family: str, shown: bool
) -> None:
    """Fractions of 1; nothing elsewhere."""
    place = tmp_path / "clone" / "model_info" / "cifar10" / "Linf" / "Carmon2019Unlabeled.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(INFO))
    monkeypatch.setenv("WINNOW_MODEL_INFO", str(tmp_path / "clone"))
    defense = defenses.create("robustbench:Carmon2019Unlabeled[dataset=cifar10,threat=Linf]")

    found = defense.published(family=family, norm=norm)

    assert (found is not None) == shown
    if found is not None:
        assert (found.epsilon, found.best_known, found.unreliable) == ("8/255", 0.5953, False)
        assert (found.clean_accuracy, found.reported) == (0.8969, 0.625)


@pytest.mark.parametrize(
    "content", ["{", '{"clean_acc": "x"}', '{"eps": "8/255", "reported": 150}']
)
def test_damaged_model_info_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """By the name of the file."""
    place = tmp_path / "cifar10" / "Linf" / "Carmon2019Unlabeled.json"
    place.parent.mkdir(parents=True)
    place.write_text(content)
    monkeypatch.setenv("WINNOW_MODEL_INFO", str(tmp_path))
    defense = defenses.create("robustbench:Carmon2019Unlabeled[dataset=cifar10,threat=Linf]")

    with pytest.raises(CheckpointError, match=r"Carmon2019Unlabeled\.json is no model_info"):
        defense.published(family="cifar10", norm=Norm.LINF)


def test_published_figures_stand_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the summary, as a row of the matrix at their epsilon alone, and as a sentence."""
    weights = tmp_path / "models" / "cifar10" / "Linf" / "Rebuffi2021Fixing_R18_ddpm.pt"
    save(built(SETTLED).state_dict(), weights)
    monkeypatch.setenv("WINNOW_MODELS", str(tmp_path / "models"))
    place = tmp_path / "cifar10" / "Linf" / "Rebuffi2021Fixing_R18_ddpm.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({**INFO, "eps": 8 / 255, "external": "58.1"}))
    monkeypatch.setenv("WINNOW_MODEL_INFO", str(tmp_path))
    data = image_folder(tmp_path / "data")

    other = evaluated(SMALL, data, tmp_path / "runs", n=2)
    assert other.summary["defenses"][SETTLED]["published"] is None  # 8/255 rounded is another one

    place.write_text(json.dumps({**INFO, "external": "58.1"}))
    result = evaluated(SMALL, data, tmp_path / "runs", n=2, epsilons=("4/255", "8/255"))

    assert result.summary["defenses"][SETTLED]["published"]["best_known"] == pytest.approx(0.581)
    text = result.to_markdown()
    assert "| *published by RobustBench* | – | 58.1 |  |" in text
    assert "clean 89.7 %, by its authors 62.5 %, AutoAttack 59.5 %, best known 58.1 %." in text
