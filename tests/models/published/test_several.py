"""Of several sets of weights in a file, which is taken, and how another one is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bench.errors import CheckpointError, InputNotice
from tests.models.published.files import NAMES, found, loaded, refused, small, weights

if TYPE_CHECKING:
    from pathlib import Path


def test_a_part_that_fits_alone_is_taken_and_said(tmp_path: Path) -> None:
    """As Lightning keeps a loss beside the model; nothing is cut from a name without its prefix."""
    mixed = {**weights(prefix="model."), "criterion.weight": torch.ones(2)}

    with pytest.warns(InputNotice, match=r"under state_dict\.model are taken, .*criterion\.weight"):
        assert loaded(tmp_path / "a.pt", {"state_dict": mixed}) == 0
    refused(tmp_path / "b.pt", {**weights(), "extra": torch.ones(1)}, "unexpected: extra")
    for part in ("model", "state_dict.model"):
        assert loaded(tmp_path / "c.pt", {"state_dict": mixed}, part) == 0


def test_an_average_beside_the_model_is_asked_for(tmp_path: Path) -> None:
    """In one `state_dict` with it; the raw model is taken and it is said, students are not."""
    averaged = {**weights(prefix="model."), **weights(1, prefix="ema_model.module.")}
    pair = {**weights(prefix="student."), **weights(1, prefix="teacher.")}

    with pytest.warns(InputNotice, match=r"model is taken; another one by .*ema_model'") as said:
        assert loaded(tmp_path / "a.pt", {"state_dict": averaged}) == 0
    assert all("\n" not in str(warning.message) for warning in said)
    assert loaded(tmp_path / "a.pt", {"state_dict": averaged}, "state_dict.ema_model.module") == 1
    assert loaded(tmp_path / "a.pt", {"state_dict": averaged}, "ema_model") == 1
    fresh = {**weights(prefix="ema."), **weights(prefix="model.")}
    with pytest.warns(InputNotice, match="the weights under model are taken"):
        assert loaded(tmp_path / "a.pt", fresh) == 0
    refused(tmp_path / "b.pt", pair, r"several .*\(student, teacher\); say which is meant")
    assert loaded(tmp_path / "b.pt", pair, "teacher") == 1


def test_of_several_sets_the_usual_one_is_taken_and_said(tmp_path: Path) -> None:
    """Another one is named behind the file; a key that is not there is refused."""
    content = {"state_dict": weights(1), "state_dict_ema": weights(2), "epoch": 3}
    path = tmp_path / "timm.pt"

    with pytest.warns(InputNotice, match=r"\(state_dict, state_dict_ema\): state_dict is taken"):
        assert loaded(path, content) == 1
    assert loaded(path, content, "state_dict_ema") == 2
    refused(path, content, "no weights under 'ema'; it has some under state_dict, state", "ema")


@pytest.mark.parametrize("key", ["", "state_dict"])
@pytest.mark.parametrize(
    ("beside", "part"),
    [
        ({"ema": weights(1)}, "ema"),
        ({"teacher": {"net": weights(1)}, "epoch": 3}, "teacher.net"),
        (weights(1, prefix="ema."), "ema"),
        (weights(1, prefix="old.teacher."), "old.teacher"),
    ],
)
def test_weights_by_their_own_names_win_over_others_beside_them(
    tmp_path: Path, beside: dict[str, object], part: str, key: str
) -> None:
    """Whether these lie deeper in the file or have a prefix; it is said, and these can be asked."""
    content = {**weights(), **beside}
    content = {key: content} if key else content

    with pytest.warns(InputNotice, match=r"several sets .*is taken; another one by .*a\.pt#"):
        assert loaded(tmp_path / "a.pt", content) == 0
    assert loaded(tmp_path / "a.pt", content, f"{key}.{part}".strip(".")) == 1


def test_what_has_the_shapes_of_weights_beside_them_is_none(tmp_path: Path) -> None:
    """Moments of an optimiser and gradients; entries that are no tensors are passed over."""
    beside = {"exp_avg": weights(1), "grads": weights(2), "ema_optimizer": {"model": weights(3)}}
    content = {**weights(), **beside, "_extra_state": None, "epoch": 3}

    assert loaded(tmp_path / "a.pt", content) == 0
    assert loaded(tmp_path / "b.pt", {"state_dict": content, "loss": torch.ones(())}) == 0


def test_of_several_unusual_sets_none_is_guessed(tmp_path: Path) -> None:
    """The error says how to name one, and that works."""
    content = {"student": weights(1), "teacher": {"ema": weights(2)}}
    path = tmp_path / "pair.pt"

    refused(path, content, r"several sets .* \(student, teacher\.ema\); .*pair\.pt#student")
    assert loaded(path, content, "teacher.ema") == 2


def test_one_of_several_sets_is_named_on_the_command_line(tmp_path: Path) -> None:
    """The origin in the record says which; a missing file is still named."""
    content = {"state_dict": small().state_dict(), "state_dict_ema": small().state_dict()}
    torch.save(content, tmp_path / "timm.pt")

    assert found(tmp_path / "timm.pt#state_dict_ema", NAMES) == "timm.pt#state_dict_ema"
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*none\.pt#x"):
        found(tmp_path / "none.pt#x", NAMES)


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path: Path) -> None:
    """What exists as written is meant."""
    assert loaded(tmp_path / "run#2.pt", weights(3)) == 3
