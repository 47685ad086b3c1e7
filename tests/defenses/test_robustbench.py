"""RobustBench's zoo: every architecture by name, weights from a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from bench.defenses.zoo import catalogue
from bench.errors import CheckpointError, ModelError, UnknownNameError, UsageError
from bench.models.checkpoints import weights_digest
from bench.models.contenders import Lineup
from bench.registry import defenses
from bench.threat import Norm
from tests.defenses.borrowed import SETTLED, SMALL, built, evaluated, image_folder, save

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("timm", reason="the extra `zoo` is not installed")

CIFAR10: dict[str, Any] = {
    "family": "cifar10",
    "shape": (3, 32, 32),
    "classes": 10,
    "norm": Norm.LINF,
}

#: Of CIFAR-10, on the meta device: what needs numbers, or a GPU, to be built.
UNBUILT = {"Kang2021Stable", "Bai2023Improving_edm", "Bai2024MixedNUTS"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models; nothing is downloaded."""

    def refuse(identity: str, path: Path) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("bench.defenses.robustbench._drive", refuse)
    monkeypatch.setenv("WINNOW_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("WINNOW_MODEL_INFO", raising=False)
    return tmp_path / "models"


@pytest.fixture(scope="module")
def modules() -> dict[str, nn.Module | str]:
    """Every architecture of CIFAR-10 on torch's meta device, or why it cannot be built."""
    found: dict[str, nn.Module | str] = {}
    for offer in defenses.get("robustbench").models():
        if "[dataset=cifar10," in offer.name:
            try:
                with torch.device("meta"):
                    found[offer.name] = built(offer.name, offer.shape, offer.classes)
            except ModelError as error:
                found[offer.name] = str(error)
    return found


def test_cifar10_architectures_build_by_name(modules: dict[str, nn.Module | str]) -> None:
    """All but those named, at least a hundred; the others say why."""
    reasons = {name: reason for name, reason in modules.items() if isinstance(reason, str)}
    unbuilt = {built_name(name) for name in reasons}

    assert len(modules) == 114
    assert unbuilt <= UNBUILT, reasons
    assert all("cannot be built here" in reason for reason in reasons.values())


def test_every_architecture_takes_its_weights(modules: dict[str, nn.Module | str]) -> None:
    """Under the names that training on several GPUs leaves, or another wrapper does."""
    checked = 0
    for name, module in modules.items():
        entry = catalogue.entry("cifar10", name.rpartition("=")[2][:-1], built_name(name))
        if isinstance(module, str) or isinstance(entry["gdrive_id"], list):
            continue
        own = module.state_dict()
        for prefix in ("module.", "module.model."):
            state = {"state_dict": {f"{prefix}{key}": tensor for key, tensor in own.items()}}
            found = defenses.create(name).adapt([state], module)
            assert found.keys() == own.keys(), name
            assert all(found[key] is tensor for key, tensor in own.items()), name
        checked += 1
    assert checked >= 100


def built_name(name: str) -> str:
    """RobustBench's own name of a model."""
    return name.partition("[")[0].partition(":")[2]


def test_a_model_runs_with_the_weights_of_the_folder(folder: Path, tmp_path: Path) -> None:
    """The record has the digest of the very weights, where they are from, and the whole name."""
    module = built(SETTLED)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}, "epoch": 1}
    save(wrapped, folder / "cifar10/Linf/Rebuffi2021Fixing_R18_ddpm.pt")
    data = image_folder(tmp_path / "data")

    result = evaluated(SMALL, data, tmp_path / "runs", n=2)

    found = result.summary["defenses"][SETTLED]
    assert found["weights_digest"] == weights_digest(module)
    assert found["checkpoint"] == "RobustBench cifar10/Linf/Rebuffi2021Fixing_R18_ddpm.pt"
    assert found["twin"] is None
    assert found["published"] is None
    assert str(tmp_path) not in json.dumps(found)


def test_missing_weights_name_file_and_folder(folder: Path, tmp_path: Path) -> None:
    """And why they were not downloaded; nothing is left behind."""
    place = folder / "cifar10" / "Linf" / "Rebuffi2021Fixing_R18_ddpm.pt"
    with pytest.raises(CheckpointError, match="no network in tests") as raised:
        evaluated(SMALL, image_folder(tmp_path / "data"), tmp_path / "runs")

    assert str(place) in str(raised.value)
    assert f"now {folder}" in str(raised.value)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_downloaded_weights_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under RobustBench's name, once; a download that brings nothing is an error."""
    calls = []

    def bring(identity: str, path: Path) -> None:
        calls.append(identity)
        path.write_bytes(b"weights" if len(calls) > 1 else b"")

    monkeypatch.setattr("bench.defenses.robustbench._drive", bring)
    defense = defenses.create(SETTLED)
    where: dict[str, Any] = {"network": "", "shape": (3, 32, 32), "classes": 10}

    with pytest.raises(CheckpointError, match="nothing arrived"):
        defense.weights(**where)
    for _ in range(2):
        found = defense.weights(**where)
        assert found is not None
        assert [path.read_bytes() for path in found.files] == [b"weights"]
    assert len(calls) == 2


def test_a_pickle_is_refused_and_not_executed(folder: Path, tmp_path: Path) -> None:
    """Law 8: weights only."""
    place = folder / "cifar10" / "Linf" / "Rebuffi2021Fixing_R18_ddpm.pt"
    save(nn.Linear(1, 1), place)

    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        evaluated(SMALL, image_folder(tmp_path / "data"), tmp_path / "runs")


def test_weights_of_another_architecture_are_refused(folder: Path, tmp_path: Path) -> None:
    """By names and shapes, as any checkpoint."""
    save(nn.Linear(3, 2).state_dict(), folder / "cifar10/Linf/Rebuffi2021Fixing_R18_ddpm.pt")

    with pytest.raises(CheckpointError, match="is of another architecture"):
        evaluated(SMALL, image_folder(tmp_path / "data"), tmp_path / "runs")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": "digits", "shape": (1, 8, 8)}, "cifar10 .3x32x32, 10 classes.*1x8x8 and 10"),
        ({"family": "svhn"}, "this is svhn"),
        ({"classes": 7}, "and 7 classes"),
        ({"norm": Norm.L1}, r"for cifar10 and L1; it has .*threat=Linf"),
        ({"norm": Norm.L2}, r"for cifar10 and L2; it has .*threat=Linf"),
    ],
)
def test_models_for_other_data_are_refused(changes: dict[str, Any], said: str) -> None:
    """With what the model is for."""
    with pytest.raises(UsageError, match=said):
        defenses.create("robustbench:Carmon2019Unlabeled").settled(**{**CIFAR10, **changes})


def test_a_named_data_set_is_held_to(tmp_path: Path) -> None:
    """CIFAR-100's model does not judge ten classes."""
    with pytest.raises(UsageError, match=r"takes cifar100.*100 classes; got 3x32x32 and 10"):
        Lineup(image_folder(tmp_path), _ten()).asked(
            ["robustbench:Rade2021Helper_R18_ddpm[dataset=cifar100]"]
        )


def _ten() -> Any:
    from bench.api import Examples

    names = [str(i) for i in range(10)]
    return Examples.of(torch.rand(10, 3, 32, 32), torch.arange(10), names, "noise")


def test_data_and_norm_settle_the_name() -> None:
    """What is written wins over the run's; CIFAR-100 is told from CIFAR-10 by its classes."""
    carmon = defenses.create("robustbench:Carmon2019Unlabeled")
    assert carmon.settled(**CIFAR10) == (
        "robustbench:Carmon2019Unlabeled[dataset=cifar10,threat=Linf]"
    )
    linf = defenses.create("robustbench:Carmon2019Unlabeled[threat=Linf]")
    assert linf.settled(**{**CIFAR10, "norm": Norm.L2}).endswith("threat=Linf]")
    helper = defenses.create("robustbench:Rade2021Helper_R18_ddpm")
    assert "cifar100" in helper.settled(**{**CIFAR10, "classes": 100})


def test_unknown_models_get_a_suggestion() -> None:
    """And nothing that could be a path is looked for."""
    with pytest.raises(UnknownNameError, match="did you mean 'Carmon2019Unlabeled'"):
        defenses.create("robustbench:Carmon2019Unlabelled").settled(**CIFAR10)
    with pytest.raises(UsageError, match="cannot be the name"):
        defenses.create("robustbench:../Carmon2019Unlabeled")


def test_files_of_an_ensemble_go_into_their_parts(folder: Path) -> None:
    """In the order of the files; a file for another part is refused."""
    parts = [nn.Linear(3, 2), nn.Linear(2, 2)]
    for i, part in enumerate(parts):
        save(
            {"state_dict": {f"module.{k}": v for k, v in part.state_dict().items()}},
            folder / str(i),
        )
    module = nn.Module()
    module.models = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 2)])
    defense = defenses.create("robustbench:Chen2020Adversarial[dataset=cifar10,threat=Linf]")
    contents = [torch.load(folder / str(i), weights_only=True) for i in range(2)]

    state = defense.adapt(contents, module)

    for i, part in enumerate(parts):
        assert torch.equal(state[f"models.{i}.weight"], part.weight)
    with pytest.raises(CheckpointError, match="does not fit"):
        defense.adapt(contents[::-1], module)


def test_an_ensemble_has_a_file_for_each_part(folder: Path) -> None:
    """Named as RobustBench names them."""
    stem = folder / "cifar10" / "Linf" / "Chen2020Adversarial.pt"
    for i in range(3):
        save({}, stem.with_name(f"{stem.name}_m{i}.pt"))
    defense = defenses.create("robustbench:Chen2020Adversarial[dataset=cifar10,threat=Linf]")

    found = defense.weights(network="", shape=(3, 32, 32), classes=10)

    assert found is not None
    assert [path.name for path in found.files] == [
        f"Chen2020Adversarial.pt_m{i}.pt" for i in range(3)
    ]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an ImportError."""

    def absent(name: str) -> None:
        return None

    catalogue.zoo.cache_clear()
    monkeypatch.delitem(sys.modules, "robustbench", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", absent)

    with pytest.raises(UsageError, match=r"RobustBench, which is not installed: .*\[zoo\]"):
        defenses.create("robustbench:Carmon2019Unlabeled").settled(**CIFAR10)


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_help_and_list_do_not_import_the_zoo(arguments: list[str]) -> None:
    """They answer at once."""
    program = (
        "import sys\nfrom bench.cli import main\n"
        f"sys.argv = ['winnow', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'timm', 'robustbench', 'torchvision'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"
    if arguments == ["list"]:
        assert "robustbench:NAME[dataset=auto,threat=auto]" in done.stdout
