"""Checkpoints: what is written is found again, and what is foreign is refused."""

import json
import os
import pickle
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError
from bench.models import checkpoints
from bench.models.checkpoints import (
    CheckpointRecord,
    checkpoint_folders,
    checkpoint_name,
    find_checkpoint,
    load_weights,
    missing_checkpoint_error,
    read_record,
    record_path,
    save_checkpoint,
    weights_digest,
)

DIGEST = "0123456789abcdef" * 4


def network(width: int = 3, seed: int = 0) -> nn.Module:
    """A small module with buffers and an integer among its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def record(module: nn.Module, **changes: Any) -> CheckpointRecord:
    """A record that fits a module."""
    fields: dict[str, Any] = {
        "defense": "kwta[gamma=0.2]",
        "network": "cnn",
        "shape": (1, 8, 8),
        "classes": 2,
        "dataset": "digits",
        "family": "digits",
        "train_digest": DIGEST,
        "recipe": {"recipe": "natural", "milestones": (1, 2)},
        "seed": 0,
        "epochs": 3,
        "device": "cpu",
        "precision": "float32",
        "versions": {"torch": torch.__version__},
        "clean_accuracy": 0.5,
        "n": 10,
        "weights_digest": weights_digest(module),
        "command": "python -m bench train --defense 'kwta[gamma=0.2]'",
    }
    return CheckpointRecord.model_validate({**fields, **changes})


def saved(folder: Path, name: str = "some", **changes: Any) -> Path:
    """A checkpoint in a folder."""
    path = folder / f"{name}.safetensors"
    module = network()
    save_checkpoint(path, module, record(module, **changes))
    return path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A committed folder and a user's one, both empty."""
    found = [tmp_path / "committed", tmp_path / "user"]
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(checkpoints, "checkpoint_folders", lambda: found)
    return found[0], found[1]


def test_saved_weights_and_record_come_back(tmp_path: Path) -> None:
    """Bit for bit, buffers included; nothing else is left in the folder."""
    path = saved(tmp_path)
    module = network(seed=1)

    load_weights(path, module)

    assert weights_digest(module) == weights_digest(network())
    assert read_record(path) == record(network())
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "some.json",
        "some.safetensors",
    ]


def test_digest_sees_values_names_shapes_and_dtypes() -> None:
    """It changes with each of them, and not with the layout in memory."""
    base = nn.Conv2d(2, 3, 3)
    digest = weights_digest(base)
    seen = {digest, weights_digest(nn.Sequential(base))}
    assert weights_digest(base.to(memory_format=torch.channels_last)) == digest
    base.weight = nn.Parameter(base.weight.detach().reshape(3, 3, 3, 2))
    seen.add(weights_digest(base))
    with torch.no_grad():
        base.weight[0, 0, 0, 0].add_(1e-6)
    seen.add(weights_digest(base))
    seen.add(weights_digest(base.bfloat16()))

    assert len(seen) == 5


@pytest.mark.parametrize("wrapper", [None, "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files_are_read(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    """A state_dict as authors publish it: bare or wrapped, from DataParallel or not."""
    weights: Any = {prefix + key: value for key, value in network().state_dict().items()}
    torch.save({wrapper: weights, "epoch": 3} if wrapper else weights, tmp_path / "theirs.pt")
    module = network(seed=1)

    load_weights(tmp_path / "theirs.pt", module)

    assert weights_digest(module) == weights_digest(network())


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    """The error shows some missing, unexpected and misshapen weights; the module is unchanged."""
    weights = network(width=5).state_dict()
    weights["extra"] = weights.pop("2.bias")
    save_file(weights, tmp_path / "other.safetensors")
    module = network(seed=1)
    before = weights_digest(module)

    with pytest.raises(CheckpointError) as caught:
        load_weights(tmp_path / "other.safetensors", module)

    text = str(caught.value)
    assert "missing: 2.bias;" in text
    assert "unexpected: extra;" in text
    assert "of another shape: 0.weight (5, 4) instead of (3, 4), 0.bias" in text
    assert "and 4 more" in text
    assert weights_digest(module) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    """The error names the weights."""
    weights = network().state_dict()
    weights["2.weight"][1, 1] = value
    save_file(weights, tmp_path / "broken.safetensors")

    with pytest.raises(CheckpointError, match=r"'2\.weight' contain NaN or infinity"):
        load_weights(tmp_path / "broken.safetensors", network())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"\x08\0\0\0\0\0\0\0{broken}",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        b"PK\x03\x04 cut off",
    ],
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, content: bytes) -> None:
    """Text, an empty file, and damaged safetensors and torch files."""
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_weights(path, network())


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    """Half of a file."""
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_weights(path, network())


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, form: str) -> None:
    """A file that would run code is refused, and the code did not run."""
    target, path = tmp_path / "executed", tmp_path / "evil.pt"
    if form == "torch":
        torch.save({"0.weight": Payload(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(target)))

    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_weights(path, network())

    assert not target.exists()
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists()  # it would have been seen


def test_a_torch_file_without_weights_is_refused(tmp_path: Path) -> None:
    """A list is no state_dict."""
    torch.save([1, 2], tmp_path / "list.pt")

    with pytest.raises(CheckpointError, match="has to hold a state_dict"):
        load_weights(tmp_path / "list.pt", network())


def test_a_missing_file_is_named() -> None:
    """The error says which."""
    with pytest.raises(CheckpointError, match=r"cannot read nowhere\.safetensors"):
        load_weights(Path("nowhere.safetensors"), network())


def test_weights_other_than_the_records_are_refused(tmp_path: Path) -> None:
    """A file exchanged behind its record is found."""
    path = saved(tmp_path)
    save_file(network(seed=1).state_dict(), path)

    with pytest.raises(CheckpointError, match=r"is not the file that some\.json describes"):
        load_weights(path, network())


def test_user_trained_weights_win_and_the_lowest_seed(folders: tuple[Path, Path]) -> None:
    """First the user's folder, then the committed one; in a folder the lowest seed."""
    committed, user = folders
    wanted = ("kwta[gamma=0.2]", "cnn", DIGEST)
    saved(user, "other-defense", defense="kwta")
    saved(user, "other-data", train_digest="f" * 64)
    saved(user, "other-network", network="resnet18")
    assert find_checkpoint(*wanted) is None

    saved(committed, "a", seed=2)
    lowest = saved(committed, "b", seed=1)
    saved(committed, "c", seed=3)
    assert find_checkpoint(*wanted) == lowest

    mine = saved(user, "mine", seed=5)
    assert find_checkpoint(*wanted) == mine


def test_unreadable_records_are_passed_over(folders: tuple[Path, Path]) -> None:
    """A damaged record warns; weights without one are ignored; the others are found."""
    good = saved(folders[0])
    (folders[1] / "alone.safetensors").write_bytes(b"")
    saved(folders[1], "damaged")
    (folders[1] / "damaged.json").write_text("{")

    with pytest.warns(UserWarning, match=r"passed over: .*damaged\.json is no record"):
        found = find_checkpoint("kwta[gamma=0.2]", "cnn", DIGEST)

    assert found == good


def test_settings_beside_weights_are_no_record(tmp_path: Path) -> None:
    """As whoever trained them keeps them; what is no JSON may have been one, and is refused."""
    path = tmp_path / "exp.safetensors"
    save_checkpoint(path, network(seed=1), record(network(seed=1)))
    record_path(path).write_text('{"lr": 0.1}')

    load_weights(path, module := network(seed=2))

    assert weights_digest(module) == weights_digest(network(seed=1))
    record_path(path).write_text("lr: 0.1")
    with pytest.raises(CheckpointError, match=r"exp\.json is no record.*; restore it, or move it"):
        load_weights(path, network())


def test_a_newer_record_is_refused_and_unknown_keys_are_not(tmp_path: Path) -> None:
    """Readers ignore what they do not know, but not another schema."""
    path = saved(tmp_path)
    place = path.with_suffix(".json")
    content = json.loads(place.read_text())
    place.write_text(json.dumps({**content, "new key": 1}))
    assert read_record(path) == record(network())

    place.write_text(json.dumps({**content, "schema_version": 2}))
    with pytest.raises(CheckpointError, match="schema version 2"):
        read_record(path)


def test_names_never_become_paths() -> None:
    """Whatever a defense is called, the file lies in the folder and is not hidden."""
    assert checkpoint_name("kwta[gamma=0.2]", "cnn", DIGEST) == "kwta-gamma-0.2-cnn-01234567"
    assert checkpoint_name("relu", "cnn", DIGEST, seed=3) == "relu-cnn-01234567-seed3"
    for evil in ("../../etc/passwd", "/abs", "..", "a\\b", "a\0b", "x" * 1000):
        name = checkpoint_name(evil, "../n", "../" + DIGEST)
        assert Path(name).name == name
        assert not name.startswith(".")
        assert len(name) < 200


def test_missing_checkpoint_names_the_command() -> None:
    """A shell reads the command as it is meant."""
    text = str(missing_checkpoint_error("kwta[gamma=0.2]", "resnet18", "parquet:my data"))
    command = text.split("make them with: ")[1].split(" (or")[0]

    assert shlex.split(command)[:4] == ["python", "-m", "bench", "train"]
    assert shlex.split(command)[4:] == [
        "--defense",
        "kwta[gamma=0.2]",
        "--dataset",
        "parquet:my data",
    ]


@pytest.mark.parametrize("name", ["relu", "kwta", "relu-at", "kwta-at"])
def test_committed_checkpoints_keep_their_accuracy(name: str) -> None:
    """Each is found by its data, loads, and is as accurate on the test split as its record says."""
    dataset, defense = open_dataset("digits"), registry.defenses.create(name)
    test = dataset.load("test")
    path = find_checkpoint(name, "cnn", dataset.digest("train"))
    assert path is not None
    assert path.parent == checkpoint_folders()[0]
    kept = read_record(path)
    assert kept is not None
    model = defense.build(network="cnn", shape=test.shape, classes=test.classes).eval()

    load_weights(path, model)
    with torch.no_grad():
        right = int((model(test.inputs).argmax(dim=1) == test.labels).sum())

    assert right / len(test) == pytest.approx(kept.clean_accuracy, abs=1.5 / len(test))
    assert kept.clean_accuracy >= 0.95
    assert kept.n == len(test)
