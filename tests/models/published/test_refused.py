"""Files that are no weights are called what they are, and nothing in them is executed."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import CheckpointError
from bench.models.checkpoints import load_weights
from tests.models.published.files import Content, refused, weights
from tests.models.test_checkpoints import network


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": weights(), "args": argparse.Namespace(lr=0.1)}, "object, argparse.Names.*"),
        ({"state_dict": weights(), "acc": np.float64(0.9)}, "numbers of numpy's, numpy.*"),
        ({"state_dict": weights(), "at": Path("x")}, "object, pathlib.*"),
        ({"net": network()}, "object, torch.nn.modules.container.Sequential"),
        (network(), "object, torch.nn.modules.container.Sequential"),
        ({"epoch": 3, "acc": 0.9}, "has to hold a state_dict.*it has epoch, acc"),
        ({"state_dict": {}}, "has to hold a state_dict.*it has state_dict"),
        ({}, "has to hold a state_dict.*it has nothing"),
        (torch.ones(3), "has to hold a state_dict.*got Tensor"),
    ],
)
def test_objects_are_refused_in_plain_text(tmp_path: Path, content: Content, message: str) -> None:
    """With the advice to save the weights alone, and without a terminal's colours."""
    advice = "" if "state_dict" in message else r": .*torch\.save\(model\.state_dict\(\), "
    refused(tmp_path / "theirs.pt", content, message + advice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), r"quantised \(torch\.qint8"),
        (lambda w: w.to_sparse(), "sparse"),
        (lambda w: w.to("meta"), "without numbers"),
        (lambda w: w.int(), r"torch\.int32 where the model has torch\.float32"),
        (lambda w: w.to(torch.complex64), "torch.complex64 where"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    """By name, before anything is computed with them."""
    content = {n: change(t) if t.is_floating_point() else t for n, t in weights().items()}
    refused(tmp_path / "theirs.pt", content, f"the weights '.*' are .*{message}.*state_dict")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("m.pkl", lambda path: path.write_bytes(pickle.dumps(network())), "a pickle, .*torch.save"),
        (
            "m.pt",
            lambda path: torch.jit.save(torch.jit.script(network()), path),
            "TorchScript: .*file:",
        ),
        ("m.npz", lambda path: np.savez(path, w=np.zeros(2)), "it is a NumPy archive"),
        ("m.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "it is an HDF5 file"),
        ("m.pt", lambda path: path.write_bytes(b"version https://git-lfs"), "pointer of Git LFS"),
        ("m.pt", lambda path: path.write_bytes(b"<!DOCTYPE html>"), "it is a web page"),
        ("m.pt", lambda path: path.write_bytes(b""), "it is empty"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(
    tmp_path: Path, name: str, write: Any, message: str
) -> None:
    """Without executing anything in them."""
    write(tmp_path / name)

    with pytest.raises(CheckpointError, match=f"is not a checkpoint.*{message}") as caught:
        load_weights(tmp_path / name, network())
    assert re.fullmatch(r"[ -~]+", str(caught.value))
    assert "nothing in it was executed" in str(caught.value)
