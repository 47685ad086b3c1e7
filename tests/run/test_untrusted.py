"""Folders that somebody damaged or laid traps in, and honest runs that are not plain."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from bench.errors import StoreError, WinnowError
from bench.record.files import is_held, locked
from bench.record.outcomes import Outcomes
from bench.record.runs import clean, plan_cleaning
from bench.record.store import RunStore
from bench.run import load_results
from bench.run.verification import verify_run
from tests.run.forging import Forger, small_run
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `Sum`."""
    return small_run(Sum(), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt, in a folder of runs."""
    return shutil.copytree(finished, tmp_path / "runs" / finished.name)


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], str]:
    """`--model` for one of the models of a file."""
    file = tmp_path / "models.py"
    file.write_text("from tests.toy_models import Sum\n")
    return lambda name: f"{file}:{name}"


# --- links, pipes and devices ---------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is nobody's business, with a file."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious.parquet").write_text("mine")
    return folder


def trap(kind: str, place: Path, outside: Path) -> None:
    """Put something in a place that is no file and no folder."""
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(outside if kind == "folder" else outside / "precious.parquet")


PLACES = ("run.json", "manifest.json", "summary.json", ".lock", "cells", "new", "adversarial")
TRAPS = [(kind, where) for where in PLACES for kind in ("link", "folder", "pipe")]


@pytest.mark.parametrize(("kind", "where"), TRAPS)
def test_links_and_pipes_are_named_and_never_opened(
    kind: str, where: str, run: Path, outside: Path, model: Callable[[str], str]
) -> None:
    """Opening a pipe would wait for ever."""
    trap(kind, run / where, outside)
    findings = verify_run(run, model=model("Sum"), device="cpu")
    assert [fault.split(" is ")[0] for fault in findings.faults] == [where]


@pytest.mark.parametrize(("kind", "where"), TRAPS)
def test_nothing_is_read_written_or_removed_through_a_link(
    kind: str, where: str, run: Path, outside: Path
) -> None:
    """By reading a run, continuing it, forgetting it, and cleaning up."""
    trap(kind, run / where, outside)
    with pytest.raises(StoreError):
        load_results(run)
    with pytest.raises(StoreError):
        continue_run(run.parent)
    assert isinstance(is_held(run), bool)
    for item in plan_cleaning(run.parent, unfinished=True):
        with pytest.raises(StoreError) if where == ".lock" else no_error():
            clean([item])
    if run.exists():
        RunStore(run).clear()
        assert [path.name for path in run.rglob("*")] in ([], [".lock"])
    assert (outside / "precious.parquet").read_text() == "mine"


class no_error:  # noqa: N801 - reads as `pytest.raises` does
    """Nothing is expected."""

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing."""


def continue_run(out: Path) -> None:
    """The command of `finished` again."""
    small_run(Sum(), out)


def test_a_lock_is_not_written_through_a_link(tmp_path: Path, outside: Path) -> None:
    """The file that it names stays as it is."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside / "precious.parquet")
    with pytest.raises(StoreError, match="cannot write"), locked(tmp_path / "run"):
        pass
    assert (outside / "precious.parquet").read_text() == "mine"


# --- damage ---------------------------------------------------------------------------------------


def record(**values: Any) -> Callable[[Path], None]:
    """Change keys of `run.json`."""

    def spoil(run: Path) -> None:
        with Forger(run).record() as content:
            content.update(values)

    return spoil


def inside(part: str, **values: Any) -> Callable[[Path], None]:
    """Change keys of an object in `run.json`; None takes one out."""

    def spoil(run: Path) -> None:
        with Forger(run).record() as content:
            content[part].update(values)
            for key in [key for key, value in values.items() if value is None]:
                del content[part][key]

    return spoil


def data(name: str, content: bytes) -> Callable[[Path], None]:
    """Write a file."""

    def spoil(run: Path) -> None:
        (run / name).write_bytes(content)

    return spoil


def frames(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the outcomes of one shard."""

    def spoil(run: Path) -> None:
        path = min((run / "cells").glob("*/*.parquet"))
        outcomes = Outcomes.load(path)
        outcomes.frame = change(outcomes.frame)
        outcomes.save(path)

    return spoil


def labelled(run: Path) -> None:
    """A label of a billion among the examples."""
    path = run / "examples.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["labels"][0] = 10**9
    path.write_bytes(safetensors.numpy.save(tensors))


def elsewhere(run: Path) -> None:
    """A cell's key leads out of the folder."""
    Forger(run).change_cells(lambda cell: cell["attack"] == "fgsm", key="../../outside")


def folder_for_a_file(run: Path) -> None:
    """A folder is called as a file."""
    (run / "summary.json").unlink()
    (run / "summary.json").mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "judging-without-a-device": (inside("judging", device=None), "judging.device"),
    "a-defense-that-is-not-there": (record(defenses={}), "not among the defenses"),
    "headline-outside": (record(headline="0.3"), "the headline '0.3' among"),
    "no-epsilons": (record(epsilons=[]), "no epsilon given"),
    "epsilons-twice": (record(epsilons=["0.01", "1/100"]), "have to ascend"),
    "epsilon-of-a-billion-digits": (record(epsilons=["1e999999999"]), "is not a number"),
    "norm": (record(norm="L7"), "norm: 'L7' is none of"),
    "n-of-300-million": (inside("dataset", n=300_000_000), "dataset.n is 300000000"),
    "n-of-a-googol": (inside("dataset", n=10**100), "dataset.n"),
    "shards-of-nothing": (record(shard_size=0), "shard_size"),
    "key-out-of-the-folder": (elsewhere, "key"),
    "not-utf-8": (data("run.json", b"\xff\xfe{}"), "is not JSON"),
    "nested-too-deep": (data("run.json", b"[" * 200_000), "nested too deep"),
    "not-a-number": (data("summary.json", b'{"n": NaN}'), "not a finite number"),
    "infinite": (data("summary.json", b'{"n": 1e999}'), "not a finite number"),
    "half-a-character": (data("evidence.json", b'{"a": "\\ud800"}'), "is not JSON"),
    "a-list": (data("run.json", b"[]"), "is not a run record"),
    "manifest-of-numbers": (data("manifest.json", b"[1, 2]"), "manifest.json was changed"),
    "empty": (data("run.json", b""), "is not JSON"),
    "label-of-a-billion": (labelled, "labels have to be in"),
    "examples-cut": (data("examples.safetensors", b"\xff" * 40), "cannot read"),
    "texts-for-numbers": (frames(lambda f: f.astype({"margin": str})), "has to be float64"),
    "halves-for-numbers": (frames(lambda f: f.astype({"label": float})), "has to be int64"),
    "column-missing": (frames(lambda f: f.drop(columns="draws")), "lacks the column(s) draws"),
    "column-added": (frames(lambda f: f.assign(more=1)), "a column 'more'"),
    "no-rows": (frames(lambda f: f[:0]), "0 outcomes"),
    "too-many-rows": (
        frames(lambda f: f.loc[f.index.repeat(100_000)].reset_index(drop=True)), "outcomes of 8",
    ),
    "rows-swapped": (frames(lambda f: f[::-1]), "does not hold the outcomes"),
    "label-of-a-billion-in-outcomes": (
        frames(lambda f: f.assign(label=10**9)), "label is none that it can be",
    ),
    "folder-for-a-file": (folder_for_a_file, "summary.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_in_one_line(name: str, run: Path, model: Callable[[str], str]) -> None:
    """Whatever the manifest says: no traceback, no memory that ends, no way out of the folder."""
    spoil, expected = DAMAGE[name]
    spoil(run)
    Forger(run).rewrite_manifest() if "manifest" not in name else None
    try:
        said = verify_run(run, model=model("Sum"), device="cpu").faults
    except WinnowError as error:
        said = [str(error)]
    assert any(expected in text for text in said), said
    assert not any("\n" in text for text in said)


# --- another machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "same"),
    [
        ("", "", True),
        ("device_name", "an abacus", False),
        ("instructions", "add sub", False),
        ("versions", {"torch": "0.1"}, False),
    ],
)
def test_a_flip_is_a_fault_only_on_the_same_device_by_the_same_versions(
    part: str, value: Any, same: bool, run: Path, model: Callable[[str], str]
) -> None:
    """A stored example that is right by a hair: another processor may call it wrong."""
    forger = Forger(run)
    if part:
        with forger.record() as content:
            content["provenance"][part] = value
    found = forger.found()
    first = min(found)
    tiny = np.full((1, 4, 4), 0.5, dtype=np.float32)
    examples = linear_examples(8)
    tiny[0, 0, 0] += 1e-6 if examples.labels[first] == 1 else -1e-6
    distance = float(np.abs(tiny - examples.inputs[first].numpy().astype(float)).max())
    forger.write_found(found | {first: found[first]._replace(input=tiny, distance=distance)})
    findings = verify_run(run, model=model("Sum"), device="cpu")
    faults = [text for text in findings.faults if "is judged otherwise" in text]
    notes = [text for text in findings.notes if "is judged otherwise" in text]
    assert (len(faults), len(notes)) == ((1, 0) if same else (0, 1))


def test_memory_that_ends_halves_the_batch(
    run: Path, model: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it fits: the same findings, in smaller forward passes."""
    forward, sizes = Sum.forward, []

    def hungry(self: Sum, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(Sum, "forward", hungry)
    assert verify_run(run, model=model("Sum"), device="cpu").faults == []
    assert max(sizes) > 2
