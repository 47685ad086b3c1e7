"""The classes that a file tells apart are held against those of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bench.errors import CheckpointError, InputNotice
from bench.models.checkpoints import CheckpointRecord, save_checkpoint
from tests.models.published.files import NAMES, Content, found, refused, small, weights
from tests.models.test_checkpoints import record

if TYPE_CHECKING:
    from pathlib import Path


def test_another_number_of_classes_gets_the_advice(tmp_path: Path) -> None:
    """Where nothing else differs than the rows of the last layer."""
    more = {**weights(), "2.weight": torch.ones(5, 3), "2.bias": torch.ones(5)}

    refused(tmp_path / "five.pt", more, r"tells 5 classes apart and the data have 2 .*classes=FILE")


@pytest.mark.parametrize(
    "recorded",
    [
        {"class_names": [*NAMES]},
        {"class_to_idx": {name: index for index, name in enumerate(NAMES)}},
        {"config": {"id2label": {str(index): name for index, name in enumerate(NAMES)}}},
        {"meta": {"categories": NAMES}},
    ],
)
def test_classes_in_another_order_are_refused(tmp_path: Path, recorded: Content) -> None:
    """By the names in the file, in the forms in which they are kept there."""
    torch.save({"state_dict": small().state_dict(), **recorded}, tmp_path / "pets.pt")

    assert found(tmp_path / "pets.pt", NAMES) == "pets.pt"
    with pytest.raises(
        CheckpointError, match=r"order cat, dog, eel, .* dog, cat, eel, .*'dog' is a"
    ):
        found(tmp_path / "pets.pt", ("dog", "cat", "eel"))
    with pytest.warns(
        InputNotice, match="calls its 3 classes cat, dog, eel, and the data call the"
    ):
        found(tmp_path / "pets.pt", ("0", "1", "2"))


def test_a_record_of_a_training_keeps_its_classes(tmp_path: Path) -> None:
    """And they are held against the data."""
    path, module = tmp_path / "own.safetensors", small()
    save_checkpoint(path, module, record(module, class_names=NAMES, defense="relu"))

    assert found(path, NAMES) == "own.safetensors"
    with pytest.raises(CheckpointError, match="has its classes in the order cat, dog, eel"):
        found(path, ("eel", "dog", "cat"))
    assert CheckpointRecord.model_fields["class_names"].default is None
