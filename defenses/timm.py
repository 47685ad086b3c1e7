"""Classifiers of timm, and of repositories in timm's layout on Hugging Face."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import Offer, Weights
from bench.defenses.zoo.library import (
    Borrowed,
    Shape,
    find_file,
    identifier,
    missing_library,
    models_folder,
)
from bench.errors import CheckpointError, UnknownNameError, UsageError
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn

#: Arguments of `timm.create_model` that name files, which it would unpickle: no config may.
_FILES = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


@register_defense("timm")
class Timm(Borrowed):
    """A classifier of timm's, with the weights that timm publishes.

    They are read from `timm/NAME.safetensors` under `$WINNOW_MODELS`, or from Hugging Face's cache.
    Images of another size than the model's are resized in the model.

    Args:
        name: as in timm, such as `resnet50` or `resnet50.a1_in1k`.

    Raises:
        UsageError: what cannot be a name.
    """

    summary = "A classifier of timm's; weights in Hugging Face's cache, or downloaded"
    argument = "NAME"
    library = "timm"

    def __init__(self, name: str) -> None:
        self.model = identifier(name)

    def _settings(self) -> Any:
        """Timm's settings for the weights.

        Raises:
            UnknownNameError: there is no such model.
        """
        timm = _timm(self.name)
        settings = timm.models.get_pretrained_cfg(self.model) if timm.is_model(self.model) else None
        if settings is None:
            known = {*timm.list_models(), *timm.list_models(pretrained=True)}
            raise UnknownNameError("model of timm", self.model, known)
        return settings

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """The architecture behind the standardisation and size of the weights.

        Raises:
            UnknownNameError: there is no such model.
        """
        from bench.defenses.zoo.preprocessing import Preprocessed

        self.check_colour(shape)
        settings = self._settings()
        module = _timm(self.name).create_model(self.model, pretrained=False, num_classes=classes)
        return Preprocessed(module, settings.mean, settings.std, tuple(settings.input_size[1:]))

    def weights(self, *, network: str, shape: Shape, classes: int) -> Weights:
        """The file under the folder of models, or in Hugging Face's cache.

        Raises:
            CheckpointError: it is in neither, and cannot be downloaded.
            UsageError: the data have another number of classes.
        """
        settings = self._settings()
        self.check_classes(settings.num_classes, classes)
        own = models_folder() / "timm"
        places = [own / f"{self.model}{ending}" for ending in (".safetensors", ".pth", ".pt")]
        repository = settings.hf_hub_id
        if repository:
            path = _find_on_hub(self.name, places, repository, "model.safetensors")
        else:
            path = find_file(self.name, places)
        return Weights(f"timm {repository or self.model}", (path,))

    @classmethod
    def models(cls) -> Iterator[Offer]:
        """Every model that has published weights."""
        timm = _timm("timm")
        for name in timm.list_models(pretrained=True):
            settings = timm.models.get_pretrained_cfg(name)
            yield Offer(f"timm:{name}", settings.input_size, settings.num_classes)


@register_defense("hf")
class HuggingFace(Borrowed):
    """A classifier from a repository in timm's layout on Hugging Face, pinned to a commit.

    `config.json` names the architecture and `model.safetensors` holds the weights; nothing else is
    read, and nothing in either is executed. Both are taken from `hf/OWNER/REPO` under
    `$WINNOW_MODELS`, or from Hugging Face's cache.

    Args:
        repository: `OWNER/REPO`.
        revision: the commit, in full; only a copy in the folder of models does without.

    Raises:
        UsageError: not of that form.
    """

    summary = "A classifier in a repository of Hugging Face's (timm's layout, safetensors)"
    argument = "OWNER/REPO"
    library = "timm"

    def __init__(self, repository: str, *, revision: str = "") -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository):
            raise UsageError(f"write hf:OWNER/REPO (got {repository!r})")
        if revision and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise UsageError(f"revision has to be a whole commit of 40 digits (got {revision!r})")
        self.repository = repository
        self.revision = revision

    def _find(self, file: str) -> Path:
        place = models_folder() / "hf" / self.repository / (self.revision or "") / file
        if place.is_file():
            return place
        if not self.revision:
            raise CheckpointError(
                f"there is no file {place}; put the repository's config.json and model.safetensors "
                f"there, or pin a commit: hf:{self.repository}[revision=COMMIT]"
            )
        return _find_on_hub(self.name, [place], self.repository, file, self.revision)

    def _config(self) -> dict[str, Any]:
        """What `config.json` says.

        Raises:
            CheckpointError: it cannot be found or read, or is not of timm's layout.
        """
        path = self._find("config.json")
        try:
            config = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from error
        settings = config.get("pretrained_cfg") if isinstance(config, dict) else None
        numbers = settings.get("input_size") if isinstance(settings, dict) else None
        if (
            not isinstance(settings, dict)
            or not isinstance(config.get("architecture"), str)
            or not isinstance(numbers, list)
            or not all(isinstance(settings.get(key), list) for key in ("mean", "std"))
            or not isinstance(config.get("num_classes"), int)
            or not isinstance(config.get("model_args", {}), dict)
        ):
            raise CheckpointError(
                f"{path} is not in timm's layout: it has to have architecture, num_classes, and "
                "pretrained_cfg with input_size, mean and std; load other models by file:PATH.py:"
                "FACTORY"
            )
        found: dict[str, Any] = config
        return found

    @property
    def architecture(self) -> str:
        """What `config.json` names."""
        return str(self._config()["architecture"])

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """The architecture that `config.json` names, behind its preprocessing.

        Raises:
            UnknownNameError: timm has no such architecture.
            UsageError: what it says does not make a model.
        """
        from bench.defenses.zoo.preprocessing import Preprocessed

        self.check_colour(shape)
        config, timm = self._config(), _timm(self.name)
        if not timm.is_model(network):
            raise UnknownNameError("architecture of timm", network, timm.list_models())
        settings, more = config["pretrained_cfg"], config.get("model_args", {})
        if refused := sorted(_FILES.intersection(more)):
            raise UsageError(
                f"{self.name}: model_args of config.json sets {', '.join(refused)}, which could "
                "make timm load another file; nothing in it was executed"
            )
        try:
            module = timm.create_model(network, pretrained=False, num_classes=classes, **more)
            size = tuple(int(side) for side in settings["input_size"][1:])
            return Preprocessed(module, settings["mean"], settings["std"], (size[0], size[1]))
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise UsageError(f"{self.name}: config.json makes no model: {error}") from error

    def weights(self, *, network: str, shape: Shape, classes: int) -> Weights:
        """`model.safetensors` of the repository.

        Raises:
            CheckpointError: it is nowhere, and cannot be downloaded.
            UsageError: the data have another number of classes.
        """
        config = self._config()
        self.check_classes(int(config["num_classes"]), classes)
        names = config.get("label_names", config["pretrained_cfg"].get("label_names"))
        known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        pinned = f" at {self.revision[:12]}" if self.revision else ""
        return Weights(
            f"Hugging Face {self.repository}{pinned}",
            (self._find("model.safetensors"),),
            tuple(names) if known else (),
        )

    @classmethod
    def models(cls) -> Iterable[Offer]:
        """Nobody can count them."""
        return ()


def _timm(name: str) -> Any:
    """Timm, imported.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise missing_library(name, "timm") from error
    return timm


def _find_on_hub(
    name: str, places: Sequence[Path], repository: str, file: str, revision: str | None = None
) -> Path:
    """A file of a repository: at one of some places, in Hugging Face's cache, or downloaded.

    Raises:
        CheckpointError: it is nowhere, and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, revision=revision)
    return find_file(
        name,
        [*places, *([Path(cached)] if isinstance(cached, str) else [])],
        lambda path: shutil.copyfile(hf_hub_download(repository, file, revision=revision), path),
    )
