"""The models of RobustBench's zoo."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.api import Defense, Offer, Published, Weights
from bench.defenses.zoo import catalogue
from bench.defenses.zoo.library import find_file, fit, model_info_folder, models_folder, unwrap
from bench.errors import CheckpointError, UsageError
from bench.registry import register_defense
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from bench.threat import Norm

#: What is left to the run.
AUTO = "auto"
#: What checkpoints hold beyond the model: a second head, and scores that pruning left.
_BEYOND = ("model_preact_hl1.", ".scores")


@register_defense("robustbench")
class RobustBench(Defense):
    """A model of RobustBench's zoo (Croce et al., NeurIPS 2021 Datasets and Benchmarks).

    Its weights are read from `DATASET/THREAT/NAME.pt` under `$WINNOW_MODELS`, as RobustBench keeps
    them, and downloaded there once if they are not.

    Args:
        name: as on RobustBench's leaderboard.
        dataset: what it was trained on; by shape and classes of the run's data where `auto`.
        threat: the leaderboard that it is on; the run's norm where `auto`.

    Raises:
        UsageError: what cannot be a name of RobustBench's.
    """

    summary = "A model of RobustBench's zoo; weights in $WINNOW_MODELS, or downloaded"
    argument = "NAME"

    def __init__(
        self,
        name: str,
        *,
        dataset: Literal["auto", "cifar10", "cifar100", "imagenet"] = "auto",
        threat: Literal["auto", "Linf", "L2", "corruptions"] = "auto",
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UsageError(f"{name!r} cannot be the name of a model of RobustBench's")
        self.model = name
        self.dataset: str = dataset
        self.threat: str = threat

    def settled(
        self, *, family: str | None, shape: tuple[int, int, int], classes: int, norm: Norm
    ) -> str:
        """With data set and threat model.

        Raises:
            UnknownNameError: there is no such model.
            UsageError: RobustBench has none for such data, or not this one.
        """
        fitting = [
            name
            for name, data in catalogue.DATA.items()
            if (shape[0], classes) == (data.shape[0], data.classes) and family in data.families
        ]
        dataset = self.dataset
        if dataset == AUTO:
            if not fitting:
                raise UsageError(
                    f"robustbench:{self.model} is for {_described(catalogue.DATA)}; this is "
                    f"{family or 'data of no family'} with inputs of {_size(shape)} and {classes} "
                    "classes"
                )
            dataset = fitting[0]
        threat = norm.value if self.threat == AUTO else self.threat
        catalogue.entry(dataset, threat, self.model)
        self._check(dataset, shape, classes)
        return f"robustbench:{self.model}[dataset={dataset},threat={threat}]"

    def _check(self, dataset: str, shape: tuple[int, int, int], classes: int) -> None:
        data = catalogue.DATA[dataset]
        wanted = catalogue.SIZES.get((dataset, self.model), data.shape)
        if (shape, classes) != (wanted, data.classes):
            raise UsageError(
                f"robustbench:{self.model} takes {dataset}: inputs of {_size(wanted)} and "
                f"{data.classes} classes; got {_size(shape)} and {classes}"
            )

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """RobustBench names architectures by their models."""
        return self.model

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """RobustBench's architecture; it standardises its inputs itself.

        Raises:
            UsageError: it is for other data, or data set or threat model are still open.
            ModelError: it cannot be built on this machine.
        """
        if AUTO in (self.dataset, self.threat):
            raise UsageError(f"{self.name}: say for what, as in [dataset=cifar10,threat=Linf]")
        self._check(self.dataset, shape, classes)
        return catalogue.build(self.dataset, self.threat, self.model)

    def dependencies(self) -> Mapping[str, str]:
        """Architectures are RobustBench's, some of them timm's."""
        return {name: importlib.metadata.version(name) for name in ("robustbench", "timm")}

    def weights(self, *, network: str, shape: tuple[int, int, int], classes: int) -> Weights:
        """The files of RobustBench's folder of models.

        Raises:
            CheckpointError: a file is neither there nor to be downloaded.
        """
        found = catalogue.entry(self.dataset, self.threat, self.model)
        place = Path(self.dataset, self.threat, f"{self.model}.pt")
        ids = found["gdrive_id"]
        if isinstance(ids, list):
            files = tuple(
                self._find(place.with_name(f"{place.name}_m{i}.pt"), id_)
                for i, id_ in enumerate(ids)
            )
        else:
            files = (self._find(place, ids),)
        return Weights(f"RobustBench {place.as_posix()}", files)

    def _find(self, place: Path, drive: str | None) -> Path:
        """One file under the folder of models."""
        if drive:
            return find_file(self.name, [models_folder() / place], lambda path: _drive(drive, path))
        from timm.models import get_pretrained_cfg

        registered = catalogue.timm_name(self.dataset, self.threat, self.model)
        settings: Any = get_pretrained_cfg(registered) if registered else None
        address = settings.url if settings else None
        if not address:
            return find_file(self.name, [models_folder() / place])
        import torch

        cached = Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])
        return find_file(
            self.name,
            [models_folder() / place, cached],
            lambda path: torch.hub.download_url_to_file(address, str(path), progress=False),
        )

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """Under the architecture's names; each file of an ensemble goes into its part.

        Raises:
            CheckpointError: a file does not fit its part.
        """
        if len(contents) == 1:
            return fit(contents[0], module, ignored=_BEYOND)
        members = catalogue.parts(self.model, module)
        for content, part in zip(contents, members, strict=False):
            _load_part(self.name, part, fit(content, part, ignored=_BEYOND))
        if len(contents) > len(members):  # the network that mixes the two others
            inner: Any = module
            mixing = contents[-1]
            if not isinstance(mixing, dict) or not {"model", "bn"} <= mixing.keys():
                raise CheckpointError(f"{self.name}: the last file has to hold `model` and `bn`")
            _load_part(self.name, inner.comp_model.policy_net, unwrap(mixing["model"]))
            _load_part(self.name, inner.comp_model.bn, mixing["bn"])
        return module.state_dict()

    def published(self, *, family: str | None, norm: Norm) -> Published | None:
        """RobustBench's own figures, where a clone's `model_info` is at hand.

        They are of RobustBench's test examples of the same data set and norm.

        Raises:
            CheckpointError: the file cannot be read.
        """
        folder = model_info_folder()
        if folder is None or family not in catalogue.DATA[self.dataset].families:
            return None
        path = folder / self.dataset / self.threat / f"{self.model}.json"
        if self.threat != norm.value or not path.is_file():
            return None
        try:
            info = json.loads(path.read_bytes())
            autoattack, external = _fraction(info, "autoattack_acc"), _fraction(info, "external")
            known = [figure for figure in (autoattack, external) if figure is not None]
            return Published(
                by="RobustBench",
                norm=self.threat,
                epsilon=Epsilon.parse(str(info["eps"])).text,
                clean_accuracy=_fraction(info, "clean_acc"),
                reported=_fraction(info, "reported"),
                autoattack=autoattack,
                best_known=min(known) if known else None,
                unreliable=bool(info.get("unreliable")),
            )
        except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
            raise CheckpointError(
                f"{path} is no model_info of RobustBench: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def models(cls) -> Iterator[Offer]:
        """All of the zoo."""
        for dataset, threats in catalogue.zoo().items():
            for threat, entries in threats.items():
                for name in entries:
                    shape = catalogue.SIZES.get((dataset, name), catalogue.DATA[dataset].shape)
                    yield Offer(
                        f"robustbench:{name}[dataset={dataset},threat={threat}]",
                        shape,
                        catalogue.DATA[dataset].classes,
                    )


def _drive(identity: str, path: Path) -> None:
    """Download a file of RobustBench's from where it keeps them."""
    import gdown

    if gdown.download(id=identity, output=str(path), quiet=True) is None:
        raise OSError("gdown found nothing")


def _load_part(name: str, part: nn.Module, state: Any) -> None:
    try:
        part.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: a file of the ensemble does not fit: {first}") from error


def _fraction(info: dict[str, Any], key: str) -> float | None:
    """A percentage, written as a number or a string, as a fraction of 1."""
    value = info.get(key)
    if value in (None, ""):
        return None
    percentage = float(value)
    if not 0 <= percentage <= 100:
        raise ValueError(f"{key} has to be a percentage (got {value!r})")
    return percentage / 100


def _size(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _described(data: dict[str, catalogue.Data]) -> str:
    return ", ".join(f"{n} ({_size(d.shape)}, {d.classes} classes)" for n, d in data.items())
