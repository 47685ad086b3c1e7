"""Checkpoints as others publish them: the weights that fit are found, a choice is said."""

from __future__ import annotations

import argparse
import collections
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.api import Examples
from bench.errors import CheckpointError, InputNotice
from bench.models.checkpoints import CheckpointRecord, load_weights, save_checkpoint, weights_digest
from bench.models.contenders import Lineup
from tests.models.test_checkpoints import network, record

Content = Any


def weights(seed: int = 0, prefix: str = "") -> dict[str, torch.Tensor]:
    """The `state_dict` of the small network with a prefix before each name."""
    return {prefix + name: tensor for name, tensor in network(seed=seed).state_dict().items()}


def loaded(path: Path, content: Content, part: str = "") -> int:
    """The seed of the network whose weights are loaded from a file that holds this."""
    torch.save(content, path)
    module = network(seed=9)
    load_weights(Path(f"{path}#{part}") if part else path, module)
    digests = {weights_digest(network(seed=seed)): seed for seed in range(4)}
    return digests[weights_digest(module)]


def refused(path: Path, content: Content, message: str, part: str = "") -> None:
    """Loading fails with one plain line that matches, and leaves the module."""
    torch.save(content, path)
    module = network(seed=9)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(Path(f"{path}#{part}") if part else path, module)
    assert re.fullmatch(r"[ -~…]+", str(caught.value))
    assert weights_digest(module) == weights_digest(network(seed=9))


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


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module"])
def test_parts_of_wrappers_go_wherever_they_stand(tmp_path: Path, wrapper: str) -> None:
    """Of a part of the model that was compiled or made parallel, and before some names alone."""
    first = next(iter(weights()))
    head, _, tail = first.rpartition(".")

    renamed = {f"{head}.{wrapper}.{tail}" if n == first else n: t for n, t in weights().items()}
    assert loaded(tmp_path / "a.pt", renamed) == 0
    renamed = {f"{wrapper}.{n}" if n == first else n: t for n, t in weights().items()}
    assert loaded(tmp_path / "b.pt", renamed) == 0


class Standardised(nn.Module):
    """The small network behind a mean and a standard deviation, kept in its `state_dict`."""

    def __init__(self, mean: float, seed: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.full((1,), mean))
        self.register_buffer("std", torch.full((1,), 0.25))
        self.net = network(seed=seed)


def test_numbers_that_standardise_inputs_may_be_the_modules_own(tmp_path: Path) -> None:
    """Weights of the network alone keep them; a file that has others replaces them."""
    torch.save(weights(), tmp_path / "bare.pt")
    torch.save(Standardised(0.1, 1).state_dict(), tmp_path / "whole.pt")
    module = Standardised(0.5, 9)

    load_weights(tmp_path / "bare.pt", module)
    assert (module.mean.item(), weights_digest(module.net)) == (0.5, weights_digest(network()))
    load_weights(tmp_path / "whole.pt", module)
    assert module.mean.item() == pytest.approx(0.1)
    assert weights_digest(module.net) == weights_digest(network(seed=1))


def test_a_module_may_have_the_prefix(tmp_path: Path) -> None:
    """As `Sequential(normalize, model)` has, for weights of the model alone."""
    module = nn.Sequential(nn.Identity(), network(seed=9))
    for content in (weights(), weights(prefix="module."), weights(prefix="1.")):
        torch.save(content, tmp_path / "bare.pt")
        load_weights(tmp_path / "bare.pt", module)
        assert weights_digest(module[1]) == weights_digest(network())
        module = nn.Sequential(nn.Identity(), network(seed=9))


def test_an_attacker_model_is_taken_by_what_standardises_as_it_does(tmp_path: Path) -> None:
    """MadryLab's robustness keeps the network twice, and a normaliser outside it."""
    content = {
        "model": {
            **weights(prefix="module.model."),
            **weights(prefix="module.attacker.model."),
            "module.normalizer.new_mean": torch.full((1, 1, 1), 0.5),
            "module.normalizer.new_std": torch.full((1, 1, 1), 0.25),
        }
    }

    refused(
        tmp_path / "madry.pt", content,
        r"would fit: write PATH#model\.module\.model; .*new_mean.* standardise its inputs itself",
    )  # fmt: skip
    assert loaded(tmp_path / "madry.pt", content, "module.model") == 0
    module = Standardised(0.5, 9)
    with pytest.warns(InputNotice, match=r"under model\.module\.model are taken"):
        load_weights(tmp_path / "madry.pt", module)
    assert weights_digest(module.net) == weights_digest(network())
    with pytest.raises(CheckpointError, match=r"new_mean .as in an AttackerModel"):
        load_weights(tmp_path / "madry.pt", Standardised(0.4, 9))


def test_weights_in_a_list_are_found(tmp_path: Path) -> None:
    """As some save a `state_dict` with the number of the epoch."""
    assert loaded(tmp_path / "pair.pt", (weights(), 3)) == 0


def test_another_number_of_classes_gets_the_advice(tmp_path: Path) -> None:
    """Where nothing else differs than the rows of the last layer."""
    more = {**weights(), "2.weight": torch.ones(5, 3), "2.bias": torch.ones(5)}

    refused(tmp_path / "five.pt", more, r"tells 5 classes apart and the data have 2 .*classes=FILE")


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


def test_of_several_sets_the_usual_one_is_taken_and_said(tmp_path: Path) -> None:
    """Another one is named behind the file; a key that is not there is refused."""
    content = {"state_dict": weights(1), "state_dict_ema": weights(2), "epoch": 3}
    path = tmp_path / "timm.pt"

    with pytest.warns(InputNotice, match=r"\(state_dict, state_dict_ema\): state_dict is taken"):
        assert loaded(path, content) == 1
    assert loaded(path, content, "state_dict_ema") == 2
    refused(path, content, "no weights under 'ema'; it has some under state_dict, state", "ema")


def test_of_several_unusual_sets_none_is_guessed(tmp_path: Path) -> None:
    """The error says how to name one, and that works."""
    content = {"student": weights(1), "teacher": {"ema": weights(2)}}
    path = tmp_path / "pair.pt"

    refused(path, content, r"several sets .* \(student, teacher\.ema\); .*pair\.pt#student")
    assert loaded(path, content, "teacher.ema") == 2


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path: Path) -> None:
    """What exists as written is meant."""
    assert loaded(tmp_path / "run#2.pt", weights(3)) == 3


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


NAMES = ("cat", "dog", "eel")


def found(path: Path, class_names: tuple[str, ...]) -> str:
    """The origin of weights of `relu` for 8×8 images of these classes, named by `--checkpoint`."""
    examples = Examples.of(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), class_names, "pets")
    (contender,) = Lineup("digits", examples, {"relu": path}).asked(["relu"])
    return contender.record.checkpoint


def small(classes: int = 3) -> nn.Module:
    """The network of `relu` for 8×8 images."""
    from bench import registry

    defense = registry.defenses.create("relu")
    return defense.build(network="cnn", shape=(1, 8, 8), classes=classes)


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
    save_checkpoint(path, module, record(module, class_names=NAMES))

    assert found(path, NAMES) == "own.safetensors"
    with pytest.raises(CheckpointError, match="has its classes in the order cat, dog, eel"):
        found(path, ("eel", "dog", "cat"))
    assert CheckpointRecord.model_fields["class_names"].default is None


def test_one_of_several_sets_is_named_on_the_command_line(tmp_path: Path) -> None:
    """The origin in the record says which; a missing file is still named."""
    content = {"state_dict": small().state_dict(), "state_dict_ema": small().state_dict()}
    torch.save(content, tmp_path / "timm.pt")

    assert found(tmp_path / "timm.pt#state_dict_ema", NAMES) == "timm.pt#state_dict_ema"
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*none\.pt#x"):
        found(tmp_path / "none.pt#x", NAMES)


def test_standardisation_that_the_module_lacks_is_said(tmp_path: Path) -> None:
    """A file that records mean and std was trained on other inputs than the data."""
    content = {"state_dict": weights(), "mean": [0.1, 0.2, 0.3], "std": (0.4, 0.5, 0.6)}
    module = network(seed=9)
    torch.save(content, tmp_path / "std.pt")

    with pytest.warns(InputNotice, match=r"standardised with mean \[0.1, 0.2, 0.3\] and std"):
        load_weights(tmp_path / "std.pt", module)
    module.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), persistent=False)
    module.std = [0.4, 0.5, 0.6]  # type: ignore[assignment]
    load_weights(tmp_path / "std.pt", module)


def test_safetensors_get_the_same_care(tmp_path: Path) -> None:
    """Prefixes there as well."""
    save_file(weights(prefix="module."), tmp_path / "p.safetensors")
    module = network(seed=9)

    load_weights(tmp_path / "p.safetensors", module)

    assert weights_digest(module) == weights_digest(network())
