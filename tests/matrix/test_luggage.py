"""What goes to another machine is all that a worker needs: nothing of here is looked at there."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bench.data.cache import Mapped
from bench.data.mapped import MappedExamples
from bench.errors import CheckpointError, StoreError, UsageError
from bench.matrix.luggage import Sent, packed, unpack
from bench.models.checkpoints import find_checkpoint, record_path
from bench.run.config import RunConfig
from bench.run.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.matrix.luggage import Luggage
    from bench.matrix.work import Bench

MODEL = """
from pathlib import Path
import torch
from counted_classes import classes

def load():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))
    module.load_state_dict(torch.load(Path(__file__).parent / "weights.pt"))
    return module
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a plugin, and with a model that needs what is beside it."""
    here = tmp_path / "here"
    (here / "attacks" / "blocks").mkdir(parents=True)
    (here / "attacks" / "blocks" / "one.py").write_text("ONE = 1\n")
    (here / "attacks" / ".hidden").touch()
    (here / "model.py").write_text(MODEL)
    (here / "counted_classes.py").write_text("classes = 10\n")
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.save(module.state_dict(), here / "weights.pt")
    found = find("relu")
    shutil.copy(found, here / "own.safetensors")
    shutil.copy(record_path(found), here / "own.json")
    monkeypatch.chdir(here)
    return here


def find(name: str) -> Path:
    """The committed weights of a defense on the digits."""
    from bench.data import open_dataset

    found = find_checkpoint(name, "cnn", open_dataset("digits").digest("train"))
    assert found is not None
    return found


def bench_of(*defenses: str, **how: Any) -> Bench:
    """What a worker of a run needs."""
    return prepare(RunConfig(defenses, attacks="fgsm", n=4, workers=0, **how)).bench


@pytest.fixture
def sent(tmp_path: Path, folder: Path) -> Callable[[Luggage], Bench]:
    """Has luggage arrive in a folder elsewhere, once what it was packed from is gone."""

    def send(luggage: Luggage) -> Bench:
        blobs = {digest: path.read_bytes() for digest, path in luggage.files.items()}
        shutil.rmtree(folder)
        there = tmp_path / "there"
        there.mkdir()
        unpack(luggage.contents, there, tmp_path / "cache", blobs.__getitem__)
        folder.mkdir()  # the test's, which ends there
        bench: Bench = pickle.loads(pickle.dumps(Sent(luggage.bench, there)))
        return bench

    return send


def test_weights_are_those_of_the_sender(folder: Path, sent: Callable[[Luggage], Bench]) -> None:
    """A file of the user's with its record, loaded where neither is any more, and compared."""
    bench = bench_of("relu", checkpoints={"relu": Path("own.safetensors")}, twins=False)
    x = bench.examples.inputs
    wanted = bench.contenders["relu"].load()(x)
    arrived = sent(packed(bench))
    assert not Path("own.safetensors").exists()
    assert torch.equal(arrived.contenders["relu"].load()(arrived.examples.inputs), wanted)
    with pytest.raises(CheckpointError, match="no checkpoint at own"):
        bench.contenders["relu"].load()


def test_code_travels_with_what_is_beside_it(
    tmp_path: Path, sent: Callable[[Luggage], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module, its weights, and the plugins of the working directory, hidden files left out."""
    bench = bench_of("file:model.py:load", device="cpu")
    wanted = bench.contenders["file:model.py:load"].load()(bench.examples.inputs)
    luggage = packed(bench)
    code = {"model.py", "counted_classes.py", "weights.pt", "own.json", "own.safetensors"}
    assert luggage.contents.keys() == code | {"attacks/blocks/one.py"}
    arrived = sent(luggage)
    monkeypatch.chdir(tmp_path / "there")
    module = arrived.contenders["file:model.py:load"].load()
    assert torch.equal(module(arrived.examples.inputs), wanted)
    assert "counted_classes" not in sys.modules


def test_images_in_a_file_travel_with_it(folder: Path, sent: Callable[[Luggage], Bench]) -> None:
    """And are read there, by place."""
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8)
    (folder / "images").write_bytes(images.tobytes())
    mapped = Mapped.of(folder / "images", (4, 1, 8, 8))
    bench = bench_of("relu")
    labels, places = torch.tensor([0, 1]), torch.tensor([3, 1])
    examples = MappedExamples(mapped, places, labels, bench.examples.class_names, "some")
    arrived = sent(packed(dataclasses.replace(bench, examples=examples))).examples
    assert np.array_equal(arrived.inputs.numpy(), images[[3, 1]].astype(np.float32) / 255)


def test_a_cache_is_believed_by_its_digests_alone(tmp_path: Path) -> None:
    """What is right there is not brought again, what is damaged is; what is wrong is refused."""
    contents = {"a/b": hashlib.sha256(b"test").hexdigest()}
    asked = []

    def bring(digest: str) -> bytes:
        asked.append(digest)
        return b"test"

    for number, damage in enumerate((None, None, b"tess")):
        if damage:
            (tmp_path / "cache" / contents["a/b"]).write_bytes(damage)
        unpack(contents, tmp_path / str(number), tmp_path / "cache", bring)
        assert (tmp_path / str(number) / "a/b").read_bytes() == b"test"
    assert len(asked) == 2
    with pytest.raises(StoreError, match="is another file"):
        unpack({"a": "0" * 64}, tmp_path / "wrong", tmp_path / "cache", bring)


def test_code_elsewhere_is_refused(folder: Path) -> None:
    """A path that would mean nothing on another machine."""
    bench = bench_of(f"file:{folder / 'model.py'}:load")
    with pytest.raises(UsageError, match="name it by a path below"):
        packed(bench)
