"""The weights that fit are found, whatever their keys and prefixes and what lies beside them."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.errors import InputNotice
from bench.models.checkpoints import load_weights, weights_digest
from tests.models.published.files import Content, loaded, refused, weights
from tests.models.test_checkpoints import network

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": weights(), "optimizer_state_dict": {"state": {}, "param_groups": []}},
        {"weights": weights(), "epoch": 3},
        {"ema": weights(), "acc": 0.9},
        {"epoch": 3, "ema": {"decay": 0.99, "shadow": weights()}},
        {"state_dict": weights(prefix="model."), "hyper_parameters": {"lr": 0.1}},
        {"generator": {"0.weight": torch.zeros(2, 2)}, "classifier": weights()},
        {"metrics": {"loss": torch.tensor(0.1)}, "net": weights(prefix="module.")},
        {**weights(), "epoch": 3},
        collections.OrderedDict({k: nn.Parameter(v, False) for k, v in weights().items()}),
        weights(prefix="1."),
        weights(prefix="_orig_mod."),
        weights(prefix="backbone."),
        weights(prefix="module.model.1._orig_mod."),
    ],
)
def test_one_set_of_weights_is_found(tmp_path: Path, content: Content) -> None:
    """Under whatever key, beside whatever else, with whatever prefixes all names have."""
    assert loaded(tmp_path / "theirs.pt", content) == 0


def test_weights_in_a_list_are_found(tmp_path: Path) -> None:
    """As some save a `state_dict` with the number of the epoch."""
    assert loaded(tmp_path / "pair.pt", (weights(), 3)) == 0


def test_safetensors_get_the_same_care(tmp_path: Path) -> None:
    """Prefixes there as well."""
    save_file(weights(prefix="module."), tmp_path / "p.safetensors")
    module = network(seed=9)

    load_weights(tmp_path / "p.safetensors", module)

    assert weights_digest(module) == weights_digest(network())


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module"])
def test_parts_of_wrappers_go_wherever_they_stand(tmp_path: Path, wrapper: str) -> None:
    """Of a part of the model that was compiled or made parallel, and before some names alone."""
    first = next(iter(weights()))
    head, _, tail = first.rpartition(".")

    renamed = {f"{head}.{wrapper}.{tail}" if n == first else n: t for n, t in weights().items()}
    assert loaded(tmp_path / "a.pt", renamed) == 0
    renamed = {f"{wrapper}.{n}" if n == first else n: t for n, t in weights().items()}
    assert loaded(tmp_path / "b.pt", renamed) == 0


def test_a_module_may_have_the_prefix(tmp_path: Path) -> None:
    """As `Sequential(normalize, model)` has, for weights of the model alone."""
    module = nn.Sequential(nn.Identity(), network(seed=9))
    for content in (weights(), weights(prefix="module."), weights(prefix="1.")):
        torch.save(content, tmp_path / "bare.pt")
        load_weights(tmp_path / "bare.pt", module)
        assert weights_digest(module[1]) == weights_digest(network())
        module = nn.Sequential(nn.Identity(), network(seed=9))


def test_a_counter_that_torch_does_without_may_be_missing(tmp_path: Path) -> None:
    """Files older than PyTorch 0.4.1 have no `num_batches_tracked`; nothing else may be missing."""
    old = {k: v for k, v in weights().items() if not k.endswith("num_batches_tracked")}
    torch_s = network(seed=9)
    torch_s.load_state_dict(old, strict=True)

    assert loaded(tmp_path / "old.pt", old) == 0
    assert weights_digest(torch_s) == weights_digest(network())
    without = {k: v for k, v in old.items() if not k.endswith("running_mean")}
    refused(tmp_path / "none.pt", without, r"missing: 1\.running_mean, 1\.num_batches_tracked")


def test_counters_of_tools_are_left_and_said(tmp_path: Path) -> None:
    """Thop's, at every level, and that of an average of models."""
    thop = {**weights(), "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    average = {**weights(prefix="module."), "n_averaged": torch.tensor(3)}

    with pytest.warns(InputNotice, match="2 counters .* not read: 0.total_params, total_ops"):
        assert loaded(tmp_path / "thop.pt", thop) == 0
    with pytest.warns(InputNotice, match="1 counters .* not read: n_averaged"):
        assert loaded(tmp_path / "swa.pt", average) == 0
