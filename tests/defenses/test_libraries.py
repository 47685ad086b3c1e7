"""Models of torchvision, timm and Hugging Face, weights from this machine alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from bench.api import Examples
from bench.errors import CheckpointError, UnknownNameError, UsageError
from bench.models.checkpoints import weights_digest
from bench.models.contenders import Lineup
from bench.registry import defenses
from tests.defenses.borrowed import built, evaluated, image_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from bench.models.contenders import Contender

COMMIT = "0123456789" * 4
#: The smallest that each library has.
NET = "squeezenet1_1"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of every cache; nothing is downloaded."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("WINNOW_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def inner(module: nn.Module) -> dict[str, Tensor]:
    """The library's own `state_dict`, without the preprocessing around it."""
    prefix = "model."
    state: Mapping[str, Tensor] = module.state_dict()
    return {
        k.removeprefix(prefix): v.contiguous() for k, v in state.items() if k.startswith(prefix)
    }


def test_torchvision_takes_weights_from_torch_hub_s_cache(tmp_path: Path) -> None:
    """Under torchvision's names; ImageNet's 1000 classes are asked of the data."""
    name = f"torchvision:{NET}"
    module = built(name, classes=1000)
    defense = defenses.create(name)
    made: dict[str, Any] = {"network": NET, "shape": (3, 32, 32), "classes": 1000}

    with pytest.raises(
        CheckpointError, match=r"no file .*hub.*squeezenet1_1-.*\.pth, nor .*models"
    ):
        defense.weights(**made)
    place = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(inner(module), place)
    found = defense.weights(**made)

    assert found is not None
    assert found.files == (place,)
    assert str(tmp_path) not in found.origin
    fresh = defense.build(**made)
    state = defense.adapt([torch.load(place, weights_only=True)], fresh)
    fresh.load_state_dict(state)
    assert weights_digest(fresh) == weights_digest(module)


def test_torchvision_standardises_in_the_model() -> None:
    """Logits of images in [0, 1] are those of torchvision's own model on its own preprocessing."""
    from torchvision import models

    module = built(f"torchvision:{NET}", shape=(3, 224, 224), classes=1000)
    own = models.squeezenet1_1(weights=None).eval()
    own.load_state_dict(inner(module))
    x = torch.rand(2, 3, 224, 224)
    steps = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    steps.resize_size = [224]

    with torch.no_grad():
        assert torch.allclose(module(x), own(steps(x)), atol=1e-5)


def test_own_weights_of_a_torchvision_architecture(tmp_path: Path) -> None:
    """By `--checkpoint`, for any number of classes; the preprocessing is the published one."""
    name = f"torchvision:{NET}"
    module = built(name)
    path = tmp_path / "mine.pt"
    torch.save({"model": {f"module.{k}": v for k, v in inner(module).items()}}, path)

    data = image_folder(tmp_path / "data")
    result = evaluated(name, data, tmp_path / "runs", checkpoints={name: path})

    found = result.summary["defenses"][name]
    assert found["weights_digest"] == weights_digest(module)
    assert (found["checkpoint"], found["network"]) == ("mine.pt", NET)
    with pytest.raises(UsageError, match="tell 1000 classes apart, and the data have 10"):
        evaluated(name, data, tmp_path / "others")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision:resnet51", "unknown model of torchvision 'resnet51'; did you mean"),
        ("torchvision:resnet18[weights=IMAGENET1K_V9]", "'IMAGENET1K_V9'; did you mean"),
        ("timm:resnet1888", "unknown model of timm 'resnet1888'; did you mean 'resnet18"),
    ],
)
def test_unknown_models_get_a_suggestion(name: str, said: str) -> None:
    """From the library's own list."""
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="the extra `zoo` is not installed")
    with pytest.raises(UnknownNameError, match=said):
        built(name)


@pytest.mark.parametrize(
    "name",
    ["torchvision:../x", "timm:a/b", "hf:owner", "hf:../x", "hf:a/b/c", "hf:o/r[revision=main]"],
)
def test_names_are_no_paths(name: str) -> None:
    """Refused before anything is looked for."""
    with pytest.raises(UsageError, match=r"has to be|write hf:OWNER/REPO"):
        defenses.create(name)


def test_grey_images_are_refused() -> None:
    """The published weights take colour."""
    with pytest.raises(UsageError, match=r"3 channels \(got 1\)"):
        built(f"torchvision:{NET}", shape=(1, 8, 8))


def test_timm_takes_weights_from_the_folder(folder: Path) -> None:
    """As safetensors, and the error names where they were looked for."""
    pytest.importorskip("timm", reason="the extra `zoo` is not installed")
    name = "timm:resnet10t.c3_in1k"
    made: dict[str, Any] = {"shape": (3, 32, 32), "classes": 1000}
    module, defense = built(name, classes=1000), defenses.create(name)
    network = defense.network(shape=(3, 32, 32))

    with pytest.raises(CheckpointError, match=r"no file .*timm/resnet10t\.c3_in1k\.safetensors"):
        defense.weights(network=network, **made)
    place = folder / "timm" / "resnet10t.c3_in1k.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file(inner(module), place)
    found = defense.weights(network=network, **made)

    assert found is not None
    assert found.files == (place,)


CONFIG = {
    "architecture": "resnet10t",
    "num_classes": 10,
    "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
}


@pytest.mark.parametrize("revision", ["", COMMIT])
def test_a_repository_is_read_from_the_folder(folder: Path, tmp_path: Path, revision: str) -> None:
    """config.json as JSON, safetensors for weights; the commit is in the record."""
    pytest.importorskip("timm", reason="the extra `zoo` is not installed")
    name = f"hf:owner/repo[revision={revision}]" if revision else "hf:owner/repo"
    place = folder / "hf" / "owner" / "repo" / revision
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG))
    module = built(name)
    save_file(inner(module), place / "model.safetensors")

    result = evaluated(name, image_folder(tmp_path / "data"), tmp_path / "runs")

    found = result.summary["defenses"][name]
    assert found["weights_digest"] == weights_digest(module)
    assert found["network"] == "resnet10t"
    assert found["checkpoint"] == f"Hugging Face owner/repo{' at 012345678901' if revision else ''}"


def test_a_repository_that_names_its_classes_in_another_order_is_refused(folder: Path) -> None:
    """As the `label_names` of timm's layout have it; data in its order are taken."""
    pytest.importorskip("timm", reason="the extra `zoo` is not installed")
    names = [f"bird{index}" for index in range(10)]
    place = folder / "hf" / "owner" / "repo"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({**CONFIG, "label_names": names}))
    save_file(inner(built("hf:owner/repo")), place / "model.safetensors")

    def asked(names: list[str]) -> list[Contender]:
        examples = Examples.of(torch.zeros(1, 3, 32, 32), torch.tensor([0]), names, "birds")
        return Lineup("digits", examples).asked(["hf:owner/repo"])

    assert len(asked(names)) == 1
    with pytest.raises(
        CheckpointError, match="owner/repo has its classes in the order bird0, bird1"
    ):
        asked(names[::-1])


def test_a_repository_without_a_commit_is_not_downloaded() -> None:
    """What a branch holds tomorrow is another model."""
    with pytest.raises(CheckpointError, match=r"pin a commit: hf:owner/repo\[revision=COMMIT\]"):
        defenses.create("hf:owner/repo").network(shape=(3, 32, 32))
    with pytest.raises(CheckpointError, match="no network in tests"):
        defenses.create(f"hf:owner/repo[revision={COMMIT}]").network(shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "is not JSON"),
        ('{"model_type": "vit"}', "not in timm's layout.*file:PATH.py:FACTORY"),
        (json.dumps({**CONFIG, "architecture": "os.system"}), "unknown architecture of timm"),
        (json.dumps({**CONFIG, "model_args": {"odd": 1}}), "makes no model"),
        (json.dumps({**CONFIG, "model_args": 5}), "not in timm's layout"),
        (json.dumps({**CONFIG, "model_args": {"checkpoint_path": "x.pt"}}), "sets checkpoint_path"),
    ],
)
def test_a_foreign_config_is_refused(folder: Path, config: str, said: str) -> None:
    """With what it has to be."""
    pytest.importorskip("timm", reason="the extra `zoo` is not installed")
    place = folder / "hf" / "owner" / "repo"
    place.mkdir(parents=True)
    (place / "config.json").write_text(config)

    with pytest.raises(UsageError, match=said):
        built("hf:owner/repo")
