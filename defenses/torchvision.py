"""Classifiers of torchvision, with the weights that it publishes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import Offer, Weights
from bench.defenses.zoo.library import (
    Borrowed,
    Shape,
    find_file,
    fit,
    identifier,
    models_folder,
)
from bench.errors import UnknownNameError
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

#: Options without which torchvision's weights do not fit, or inputs are not what they were.
_TORCHVISION = {
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}
#: Names in torchvision's files of DenseNets, which are older than its architecture.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


@register_defense("torchvision")
class Torchvision(Borrowed):
    """A classifier of torchvision's, with the weights that torchvision publishes.

    They are read from torch hub's cache, or from `torchvision/` under `$WINNOW_MODELS`. Images of
    another size than the weights' are resized in the model.

    Args:
        name: as in `torchvision.models`.
        weights: which of its weights, such as `IMAGENET1K_V1`.

    Raises:
        UsageError: what cannot be a name.
    """

    summary = "A classifier of torchvision's; weights in torch hub's cache, or downloaded"
    argument = "NAME"
    library = "torchvision"

    def __init__(self, name: str, *, weights: str = "DEFAULT") -> None:
        self.model = identifier(name)
        self.chosen = identifier(weights)

    def _entry(self) -> Any:
        """The weights' entry in torchvision.

        Raises:
            UnknownNameError: there is no such model, or it has no such weights.
        """
        from torchvision import models

        known = models.list_models(module=models)
        if self.model not in known:
            raise UnknownNameError("model of torchvision", self.model, known)
        every: Any = models.get_model_weights(self.model)
        names = [*every.__members__]
        if self.chosen not in names:
            raise UnknownNameError(f"weights of torchvision's {self.model}", self.chosen, names)
        return every[self.chosen]

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """The architecture behind the standardisation and size of the weights.

        Raises:
            UnknownNameError: there is no such model, or it has no such weights.
        """
        from torchvision import models

        from bench.defenses.zoo.preprocessing import Preprocessed

        self.check_colour(shape)
        steps = self._entry().transforms()
        options = _TORCHVISION.get(self.model, {})
        module = models.get_model(self.model, weights=None, num_classes=classes, **options)
        (side,) = steps.crop_size
        return Preprocessed(module, steps.mean, steps.std, (side, side))

    def weights(self, *, network: str, shape: Shape, classes: int) -> Weights:
        """The file in torch hub's cache or under the folder of models.

        Raises:
            CheckpointError: it is in neither, and cannot be downloaded.
            UsageError: the data have another number of classes.
        """
        import torch

        entry = self._entry()
        self.check_classes(len(entry.meta["categories"]), classes)
        file = entry.url.rpartition("/")[2]
        path = find_file(
            self.name,
            [
                Path(torch.hub.get_dir(), "checkpoints", file),
                models_folder() / "torchvision" / file,
            ],
            lambda path: torch.hub.download_url_to_file(entry.url, str(path), progress=False),
        )
        return Weights(f"torchvision {file}", (path,))

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """Under the architecture's names, those of old DenseNets included."""
        (content,) = contents
        if self.model.startswith("densenet") and hasattr(content, "items"):
            content = {_OLD_DENSENET.sub(r"\1", name): value for name, value in content.items()}
        return fit(content, module)

    @classmethod
    def models(cls) -> Iterator[Offer]:
        """Every classifier, with its default weights."""
        from torchvision import models

        for name in models.list_models(module=models):
            every: Any = models.get_model_weights(name)
            entry = every.DEFAULT
            (side,) = entry.transforms().crop_size
            yield Offer(f"torchvision:{name}", (3, side, side), len(entry.meta["categories"]))
