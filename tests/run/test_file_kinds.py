"""Files of adversarial examples as other tools save them: told for what they are, with a way in."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from bench.api import Examples
from bench.errors import DataError
from bench.run.candidates import CandidateFile
from bench.run.imports import attack_for, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = np.full((2, 1, 3, 3), 0.25, np.float32)
TENSOR = torch.from_numpy(IMAGES)


class Hostile:
    """What a pickle must not be able to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def tar(path: Path) -> None:
    """A webdataset."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("0.png"), io.BytesIO())


def zipped(path: Path) -> None:
    """Pictures in an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/0.png", b"")


#: How others save them, and what the error has to say.
FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "x_adv.npz": (
        lambda p: np.savez(p, x_adv=IMAGES, y=np.zeros(2)),
        r"it holds x_adv \(2, 1, 3, 3\), y \(2,\): write",
    ),
    "unnamed.npz": (lambda p: np.savez(p, IMAGES), r"it holds arr_0 \(2, 1, 3, 3\)"),
    "other.npz": (lambda p: np.savez(p, mine=IMAGES), r"it holds mine \(2, 1, 3, 3\)"),
    "two.npz": (lambda p: np.savez(p, a=IMAGES, b=IMAGES), r"a \(2, .*, b \(2, 1, 3, 3\)$"),
    "labels.npz": (lambda p: np.savez(p, y=np.zeros(2)), r"it holds y \(2,\)$"),
    "empty.npz": (
        lambda p: np.savez(p),
        "is an empty archive",
    ),
    "attacks.pt": (
        lambda p: torch.save({"adv_inputs": TENSOR, "labels": torch.zeros(2)}, p),
        r"is a torch file; it holds adv_inputs \(2, 1, 3, 3\), labels \(2,\): write",
    ),
    "autoattack.pth": (lambda p: torch.save({"adv_complete": TENSOR}, p), r"adv_complete \(2, 1,"),
    "tuple.pt": (lambda p: torch.save((TENSOR, torch.zeros(2)), p), r"it holds 0 \(2, 1, 3, 3\)"),
    "tensor.pt": (lambda p: torch.save(TENSOR, p), r"is a torch file of one tensor \(2, 1, 3, 3\)"),
    "objects.pt": (lambda p: torch.save({"a": Hostile()}, p), "holds more than tensors, which is"),
    "old.pt": (
        lambda p: torch.save({"adv": TENSOR}, p, _use_new_zipfile_serialization=False),
        "a pickle or a torch file of an old format, which is not opened",
    ),
    "single.npy": (lambda p: np.save(p, IMAGES), "is one array without a name: write"),
    "other.safetensors": (
        lambda p: safetensors.numpy.save_file({"x": IMAGES}, p),
        r"it holds x \(2, 1, 3, 3\): write",
    ),
    "data.tar": (tar, "is a tar archive: unpack it"),
    "data.zip": (zipped, "is a zip archive of a/0.png, no npz"),
    "data.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n"), "is an HDF5 file, neither npz nor"),
    "a.png": (lambda p: p.write_bytes(b"\x89PNG\r\n"), "is a picture"),
    "data.parquet": (lambda p: p.write_bytes(b"PAR1"), "is a Parquet file"),
    "text.csv": (lambda p: p.write_text("a,b\n"), "neither a whole npz without pickles nor"),
    "half.npz": (lambda p: p.write_bytes(b"PK\x03\x04half"), "neither a whole npz"),
    "nothing.npz": (lambda p: p.write_bytes(b""), "neither a whole npz"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_tool_is_told_for_what_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and without executing anything in it."""
    monkeypatch.chdir(tmp_path)
    write, message = FILES[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(DataError, match=message) as error:
        CandidateFile.open(path)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "name",
    ["x_adv.npz", "unnamed.npz", "other.npz", "attacks.pt", "autoattack.pth", "tuple.pt",
     "tensor.pt", "single.npy", "other.safetensors"],
)  # fmt: skip
def test_the_line_that_converts_it_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executed as it is printed, it makes a file that holds the same images."""
    monkeypatch.chdir(tmp_path)
    FILES[name][0](tmp_path / name)
    with pytest.raises(DataError) as error:
        CandidateFile.open(tmp_path / name)
    line = re.search(r"write them anew by (numpy\.savez.*)$", str(error.value))
    assert line is not None
    exec(line[1], {"numpy": np, "torch": torch, "safetensors": safetensors})
    examples = Examples.of(TENSOR, torch.tensor([0, 1]), ("a", "b"), "x")
    held = CandidateFile.open(tmp_path / "adversarial.npz").read(examples)
    assert np.array_equal(held.of([0, 1]), IMAGES)


def test_channels_last_are_told_so(tmp_path: Path) -> None:
    """A file of (N, H, W, C) for examples of (C, H, W)."""
    np.savez(tmp_path / "a.npz", adversarial=np.zeros((2, 4, 5, 3), np.float32))
    examples = Examples.of(torch.rand(2, 3, 4, 5), torch.tensor([0, 1]), ("a", "b"), "x")
    with pytest.raises(DataError, match=r"transpose\(0, 3, 1, 2\) puts the channels first"):
        CandidateFile.open(tmp_path / "a.npz").read(examples)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("adversarial.npz", "adversarial"), ("My Adv_File.npz", "my-adv-file"),
        ("x_adv.npz", "x-adv"), ("v1.2.npz", "v1.2"), ("adv (1).npz", "adv-1"),
        ("-.npz", "candidates"), ("ä.npz", "candidates"), ("..npz", "candidates"),
        ("a..b.npz", "a-b"), ("PGD-40!.npz", "pgd-40"),
    ],
)  # fmt: skip
def test_the_name_that_a_file_gives_is_one(name: str, wanted: str) -> None:
    """Whatever the file is called, its own name can be an attack's."""
    assert name_of(Path("folder") / name) == wanted
    assert attack_for(wanted).name == f"external:{wanted}"
