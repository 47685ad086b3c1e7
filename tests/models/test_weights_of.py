"""Which weights a defense stands on, and that it is said where they are not its own or not anew."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING

import pytest

from bench import registry
from bench.data import open_dataset
from bench.defenses.activated import ReLU
from bench.errors import CheckpointError, PluginWarning
from bench.models import checkpoints
from bench.models.contenders import Lineup

if TYPE_CHECKING:
    from pathlib import Path

NAME = "test-borrowing"
EXAMPLES = open_dataset("digits").load("test").take(range(4))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A defense that borrows from `relu`, and a working directory without weights."""
    monkeypatch.chdir(tmp_path)
    registry.defenses.names()
    monkeypatch.setattr(registry.defenses, "_classes", dict(registry.defenses._classes))
    body = {"weights_of": "relu", "version": 3, "summary": "for tests"}
    registry.defenses.register(NAME)(type("Borrowing", (ReLU,), body))


def relu_checkpoint() -> Path:
    """The committed one."""
    path = checkpoints.find_checkpoint("relu", "cnn", open_dataset("digits").digest("train"))
    assert path is not None
    return path


def test_a_file_of_another_defense_s_weights_is_said() -> None:
    """By the record beside it, where it was named; its own file says nothing."""
    path = relu_checkpoint()

    with pytest.warns(PluginWarning, match=rf"weights of relu, .*{NAME} is evaluated with them"):
        Lineup("digits", EXAMPLES, {NAME: path}).asked([NAME])
    with warnings.catch_warnings(action="error"):
        Lineup("digits", EXAMPLES, {"relu": path}).asked(["relu"])


def own_checkpoint(version: int | None) -> None:
    """Weights that a training of this version of the defense left."""
    source = relu_checkpoint()
    folder = checkpoints.USER_FOLDER
    folder.mkdir(parents=True)
    shutil.copy(source, folder / "own.safetensors")
    record = json.loads(source.with_suffix(".json").read_text())
    record |= {"defense": NAME, "version": version}
    (folder / "own.json").write_text(json.dumps(record))


def test_it_takes_the_other_s_weights_and_says_so() -> None:
    """The digest is that of `relu`, and the record names its file."""
    with pytest.warns(PluginWarning, match=r"no weights of its own .* those of relu .*train it"):
        (borrowing,) = Lineup("digits", EXAMPLES).asked([NAME])
    (relu,) = Lineup("digits", EXAMPLES).asked(["relu"])

    assert borrowing.record.weights_digest == relu.record.weights_digest
    assert borrowing.record.checkpoint == relu_checkpoint().name


def test_without_the_other_s_weights_the_error_is_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It names the command that trains the defense itself."""
    monkeypatch.setattr(checkpoints, "find_checkpoint", lambda *wanted: None)
    with pytest.raises(CheckpointError, match=f"train --defense {NAME}"):
        Lineup("digits", EXAMPLES).asked([NAME])


@pytest.mark.parametrize(("version", "warned"), [(3, False), (None, False), (2, True)])
def test_its_own_weights_win_and_a_change_since_is_said(
    version: int | None, *, warned: bool
) -> None:
    """Records from before versions were kept say nothing."""
    own_checkpoint(version)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (found,) = Lineup("digits", EXAMPLES).asked([NAME])

    assert found.record.checkpoint == "own.safetensors"
    assert ["has changed since its weights were trained" in str(w.message) for w in said] == (
        [True] if warned else []
    )
