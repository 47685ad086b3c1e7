"""`activations`: what competing activations leave of one vector.

The comparison of k-WTA's authors (arXiv 1905.10510): ReLU, max-pooling, LWTA and k-WTA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.errors import ModelError, UsageError
from bench.figures.canvas import canvas, colour
from bench.figures.subjects import activations_of, torch_credit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Activations:
    """A vector before and after each activation."""

    values: NDArray[np.float64]
    """(F,), finite."""
    names: tuple[str, ...]
    """Canonical names of the defenses, A of them."""
    outputs: NDArray[np.float64]
    """(A, F)."""

    @property
    def caption(self) -> str:
        """What is shown."""
        return (
            f"A vector of {len(self.values)} units before and after an activation: "
            f"{', '.join(self.names)}. {torch_credit()}."
        )

    def columns(self) -> dict[str, list[Any]]:
        """The vector, and each activation's output."""
        rows = zip(self.names, self.outputs.tolist(), strict=True)
        return {
            "unit": list(range(len(self.values))),
            "input": self.values.tolist(),
            **dict(rows),
        }


def parse_values(text: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        UsageError: one is not a finite number, or there is none.
    """
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"--values wants finite numbers separated by commas (got {text!r})")
    return values


def apply(names: Sequence[str], values: Sequence[float]) -> Activations:
    """Apply each defense's activation to one vector, in float64.

    Args:
        names: of the defenses, as written.
        values: F finite numbers.

    Raises:
        UsageError: a defense without an activation, or an activation that does not take so many
            units.
        ModelError: an activation that changes the number of units.
    """
    vector = torch.tensor([list(values)], dtype=torch.float64)
    outputs = {}
    for name, factory in activations_of(names).items():
        with torch.no_grad():
            output = factory().double().eval()(vector.clone())
        if output.shape != vector.shape:
            raise ModelError(
                f"{name}: its activation turns shape {tuple(vector.shape)} into "
                f"{tuple(output.shape)}; one that keeps the units can be drawn"
            )
        outputs[name] = output[0].numpy()
    return Activations(vector[0].numpy(), tuple(outputs), np.stack(list(outputs.values())))


def draw(data: Activations) -> Figure:
    """A panel for each activation: wide pale bars before, narrow ones after."""
    columns = min(2, len(data.names))
    rows = math.ceil(len(data.names) / columns)
    figure = canvas(4.2 * columns, 0.4 + 2.3 * rows, data.caption)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    units = np.arange(len(data.values))
    for index, (name, output) in enumerate(zip(data.names, data.outputs, strict=True)):
        panel = panels[index]
        panel.bar(units, data.values, width=0.85, color="0.85", label="before")
        panel.bar(units, output, width=0.5, color=colour(index), label="after")
        panel.axhline(0, color="0.4", linewidth=0.6)
        panel.set_title(name, fontsize=10)
        panel.set_xticks(units)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, frameon=False)
    for panel in panels[len(data.names) :]:
        panel.set_axis_off()
    return figure
