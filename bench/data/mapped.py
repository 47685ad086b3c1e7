"""Examples of which memory holds only those that are asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bench.api import Examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.data.cache import Mapped


class MappedExamples(Examples):
    """Examples of 8 bits a channel in a file that all processes share.

    They are what `Examples` of the same images would be, digest included; `take` and `blocks` read
    some of them, `inputs` all.

    Args:
        mapped: the file.
        places: of each example in it, int64, (N,).
        labels: as `Examples` has them, checked.
        class_names: one name per class.
        name: the data set, as in tables.
    """

    def __init__(
        self, mapped: Mapped, places: Tensor, labels: Tensor, class_names: Sequence[str], name: str
    ) -> None:
        own = {
            "mapped": mapped,
            "places": places,
            "labels": labels,
            "class_names": tuple(class_names),
            "name": name,
            "_images": mapped.open(),
        }
        self.__dict__.update(own)  # frozen, as its base is

    mapped: Mapped
    places: Tensor
    _images: Any

    @functools.cached_property
    def inputs(self) -> Tensor:
        """All inputs, float32: 4 bytes for each that the file has."""
        return self.take(range(len(self))).inputs

    def __len__(self) -> int:
        return len(self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mapped, self.places, self.labels, self.class_names, self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return self.mapped.shape[1:]

    def take(self, indices: Sequence[int] | Tensor) -> Examples:
        """The examples at these indices, in this order, in memory."""
        import numpy as np
        import torch

        chosen = torch.as_tensor(indices, dtype=torch.long)
        images = self._images[self.places[chosen].numpy()]
        inputs = torch.from_numpy(as_inputs(images, np.empty(images.shape, dtype=np.float32)))
        return Examples(inputs, self.labels[chosen], self.class_names, self.name)


def as_inputs(images: Any, out: Any) -> Any:
    """Images of 8 bits a channel as inputs in [0, 1], in an array of float32 of their shape."""
    import numpy as np

    return np.divide(images, np.float32(255), out=out, dtype=np.float32)
