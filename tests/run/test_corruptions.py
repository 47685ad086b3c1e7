"""The report on corruptions: figures that follow from what was answered, and no attack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from scipy.stats import t

from bench.data.corrupted import SEVERITIES
from bench.errors import UsageError
from bench.run import run
from bench.run.config import RunConfig
from bench.run.corruptions import CorruptionConfig, evaluate_corruptions, mean_accuracy
from bench.run.prepare import prepare
from tests.commands import call
from tests.data.test_corrupted import COUNT, cifar10_c, level

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """
import torch

def load():
    class Brightness(torch.nn.Module):  # class 1 from gray 75 on, else class 0
        def forward(self, x):
            z = x.mean(dim=(1, 2, 3)) * 255 - 74.5
            return torch.stack([-z, z, *[z * 0 - 1000] * 8], dim=1)
    return Brightness()
"""


def truth(kind: str, severity: int) -> float:
    """The model's accuracy on a part of `cifar10_c`, from how it was made."""
    right = [
        int(level(kind, severity, place) >= 75) == place % 10 for place in range(COUNT)
    ]  # fmt: skip
    return sum(right) / COUNT


def test_figures_are_those_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind and severity, their mean over the common kinds, and every answer in a file.

    Beside them stands the worst case of the same weights in a stored run, which stays as it was.
    """
    folder = cifar10_c(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    data = f"cifar10-c:{folder}"
    attacked = run(
        prepare(
            RunConfig(
                defenses=("file:m.py:load",), attacks="fgsm", epsilons=("1/255",), n=COUNT,
                dataset=f"{data}[kind=fog,severity=2]", workers=0, examine=False,
            )
        )
    )  # fmt: skip
    config = CorruptionConfig(("file:m.py:load",), data, COUNT)
    report, place = evaluate_corruptions(config)

    entry = report["defenses"]["file:m.py:load"]
    assert entry["accuracy"] == {
        kind: {str(s): truth(kind, s) for s in SEVERITIES} for kind in ("snow", "fog", "saturate")
    }
    common = [truth(kind, s) for kind in ("snow", "fog") for s in SEVERITIES]
    assert entry["mean"]["accuracy"] == pytest.approx(sum(common) / len(common))
    assert entry["mean_of"] == ["snow", "fog"]
    assert entry["clean_accuracy"] is None
    worst = attacked.summary["defenses"]["file:m.py:load"]["worst_case"]["1/255"]
    (beside,) = entry["adversarial"]
    assert (beside["robust_accuracy"], beside["epsilon"]) == (worst["robust_accuracy"], "1/255")
    answers = pd.read_parquet(place / "answers.parquet")
    assert len(answers) == 3 * 5 * COUNT
    assert json.loads((place / "corruptions.json").read_text()) == report
    page = (place / "corruptions.md").read_text()
    assert "2 of the 15 common kinds" in page
    assert "| saturate (in no mean) |" in page
    assert evaluate_corruptions(config)[1] == place


def test_the_interval_is_over_images() -> None:
    """Student's, of each image's own mean; one image or none has none of its kind."""
    rows = [("fog", s, index, 0, int(index >= s)) for s in SEVERITIES for index in range(8)]
    frame = pd.DataFrame(rows, columns=["kind", "severity", "index", "label", "prediction"])
    own = [sum(index < s for s in SEVERITIES) / 5 for index in range(8)]
    mean = sum(own) / 8
    half = t.ppf(0.975, 7) * pd.Series(own).std() / 8**0.5

    found = mean_accuracy(frame, ["fog"])
    assert found is not None
    assert found["accuracy"] == pytest.approx(mean)
    assert found["low"] == pytest.approx(max(0, mean - half))
    assert found["high"] == pytest.approx(min(1, mean + half))
    assert mean_accuracy(frame, ["snow"]) is None
    alone = mean_accuracy(frame[frame["index"] == 0], ["fog"])
    assert alone is not None
    assert 0 < alone["low"] < alone["accuracy"] == alone["high"] == 1


@pytest.mark.whole
def test_the_command_prints_the_page(tmp_path: Path) -> None:
    """Or JSON; a data set that cannot be corrupted is one line and exit code 2."""
    folder = cifar10_c(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    words = ("corruptions", "--defense", "file:m.py:load")

    done = call(*words, "--dataset", f"cifar10-c:{folder}", "--n", 10, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| kind | severity 1 |" in done.stdout
    refused = call(*words, "--dataset", "digits", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "at least 32x32" in refused.stderr
    with pytest.raises(UsageError, match="no defense given"):
        evaluate_corruptions(CorruptionConfig((), "digits", 1))
