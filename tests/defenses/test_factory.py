"""`file:PATH.py:FUNCTION`: anybody's module, and what keeps its record honest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench.errors import CheckpointError, UsageError
from bench.registry import defenses
from bench.run.verification import verify_run
from tests.defenses.borrowed import evaluated, image_folder

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import torch
from torch import nn
from beside import seed

def load():
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

def draw():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

def fail():
    raise KeyError("lost")

def other():
    return 7

def both():
    return draw(), other

def function():
    return lambda x: draw()(x)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A user's file, which imports another beside it."""
    (tmp_path / "beside.py").write_text("seed = 3\n")
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Ten images in colour."""
    return image_folder(tmp_path / "data")


def test_a_run_of_a_file_is_recorded_and_verified(file: Path, data: str, tmp_path: Path) -> None:
    """Its weights have a digest; verification executes what its own command names, alone."""
    name = f"file:{file}:load"
    result = evaluated(name, data, tmp_path / "runs")

    assert result.folder is not None
    found = result.summary["defenses"][name]
    assert (found["checkpoint"], found["network"]) == ("made by mine.py:load", "load")
    assert len(found["weights_digest"]) == 64
    with pytest.raises(UsageError, match="--model FILE:FACTORY"):
        verify_run(result.folder, device="cpu")
    assert verify_run(result.folder, model=f"{file}:load", device="cpu").faults == []
    with pytest.raises(CheckpointError, match="other weights"):
        verify_run(result.folder, model=f"{file}:draw", device="cpu")


def test_another_text_is_another_run(file: Path, data: str, tmp_path: Path) -> None:
    """The same weights in a file that computes otherwise share no outcomes."""
    name = f"file:{file}:load"
    first = evaluated(name, data, tmp_path / "runs")
    file.write_text(SOURCE + "\n# changed\n")
    second = evaluated(name, data, tmp_path / "runs")

    digests = [r.summary["defenses"][name]["weights_digest"] for r in (first, second)]
    assert digests[0] == digests[1]
    assert first.folder != second.folder


def test_weights_drawn_anew_are_refused(file: Path, data: str, tmp_path: Path) -> None:
    """A model that differs each time it is loaded cannot be measured."""
    with pytest.raises(UsageError, match="weights are others each time they are loaded"):
        evaluated(f"file:{file}:draw", data, tmp_path / "runs")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fail", r"mine\.py: fail\(\) failed: KeyError: 'lost'"),
        ("other", r"other\(\) made int, not an nn\.Module"),
        (
            "both",
            r"made tuple, not an nn\.Module: return the model alone, what prepares its inputs",
        ),
        ("function", r"made function, not an nn\.Module: return one that has the network as a sub"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_what_makes_no_module_is_told(file: Path, function: str, said: str) -> None:
    """One line, that names file and function."""
    with pytest.raises(UsageError, match=said):
        defenses.create(f"file:{file}:{function}").build(network="", shape=(3, 1, 1), classes=2)


@pytest.mark.parametrize("place", ["mine.py", "mine.py:", ":load", "mine.py:a-b"])
def test_the_form_is_told(place: str) -> None:
    """Nothing is looked for, and nothing executed."""
    with pytest.raises(UsageError, match=r"write file:PATH\.py:FUNCTION"):
        defenses.create(f"file:{place}")


def test_a_missing_file_is_told() -> None:
    """By its name."""
    with pytest.raises(UsageError, match=r"no file nowhere\.py"):
        defenses.create("file:nowhere.py:load").dependencies()


@pytest.mark.parametrize("beside", ["helper.py", "helper/__init__.py", "helper/part.py"])
def test_each_file_has_the_modules_of_its_own_folder(tmp_path: Path, beside: str) -> None:
    """Two folders have a helper of one name, as copies of a project do; in any order, again."""
    name = "helper.part" if beside.endswith("part.py") else "helper"
    text = f"from {name} import seed\nimport torch\n\ndef load():\n"
    text += "    module = torch.nn.Identity()\n    module.seed = seed\n    return module\n"
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder / beside).parent.mkdir(parents=True)
        (tmp_path / folder / beside).write_text(f"seed = {seed}\n")
        (tmp_path / folder / "m.py").write_text(text)
    paths, before = {*sys.path}, {*sys.modules}

    made = [
        defenses.create(f"file:{tmp_path}/{folder}/m.py:load")
        .build(network="load", shape=(1, 2, 2), classes=2)
        .seed
        for folder in "abab"
    ]

    assert made == [1, 2, 1, 2]
    assert {*sys.path} == paths
    assert not {n for n in {*sys.modules} - before if n.partition(".")[0] == "helper"}
