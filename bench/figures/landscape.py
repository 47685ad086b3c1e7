"""`landscape`: the loss around one example, over its own gradient's sign and a random direction.

As k-WTA's authors draw it (arXiv 1905.10510): where the surface is jagged, its gradient does not
tell an attack where to go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bench.figures.canvas import canvas, gradient_sign, literal
from bench.models.ambient import plain_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bench.api import Examples
    from bench.figures.canvas import Subject, Walk

_COLUMNS = 4
_COLOURS = "viridis"


@dataclass(frozen=True, eq=False)
class Landscapes:
    """The loss of several models over a plane through one example."""

    names: tuple[str, ...]
    """Canonical names of the defenses, M of them."""
    offsets: NDArray[np.float64]
    """(S,), ascending, 0 in the middle: how far along either direction, in Linf."""
    losses: NDArray[np.float64]
    """(M, S, S), cross-entropy of the true label at [model, along the gradient, random]."""
    wrong: NDArray[np.bool_]
    """(M, S, S), whether the model gets the point wrong."""
    epsilon: str
    """The last offset, as written."""
    example: int
    label: str
    credits: str
    """Models, data, seed, version."""

    @property
    def caption(self) -> str:
        """What is shown."""
        return (
            f"Cross-entropy of the true label ({self.label}) around example {self.example}, up to "
            f"Linf {self.epsilon} along the sign of the model's own gradient (up: the loss grows) "
            "and along a random direction of ±1 that all models share; not clipped to the box. One "
            f"scale for all: {self.losses.min():.3g} to {self.losses.max():.3g}. Red: beyond it "
            f"the model is wrong. {self.credits}."
        )

    def columns(self) -> dict[str, list[Any]]:
        """A row for each point of each plane."""
        models, along, random = np.indices(self.losses.shape).reshape(3, -1)
        return {
            "defense": [self.names[model] for model in models],
            "gradient": self.offsets[along].tolist(),
            "random": self.offsets[random].tolist(),
            "loss": self.losses.ravel().tolist(),
            "wrong": self.wrong.ravel().astype(int).tolist(),
        }


def survey(
    subjects: Sequence[Subject],
    examples: Examples,
    example: int,
    walk: Walk,
    *,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Landscapes:
    """The loss of each model on a square grid around an example.

    Args:
        subjects: the models, M of them.
        examples: where the example is.
        example: its index.
        walk: from the middle to each side: S = 2 · steps + 1.
        on_progress: told what begins.

    Raises:
        ModelError: a model does not return finite logits.
    """
    steps = walk.steps
    offsets = np.arange(-steps, steps + 1) / steps * float(walk.epsilon)
    random = walk.random_signs(examples.shape)
    losses, wrong = [], []
    for subject in subjects:
        on_progress(f"surveying {subject.name}")
        with plain_torch(seed=walk.seed):
            loss, missed = _plane(subject, examples.take([example]), random, offsets)
        losses.append(loss)
        wrong.append(missed)
    label = int(examples.labels[example])
    return Landscapes(
        names=tuple(subject.name for subject in subjects),
        offsets=offsets,
        losses=np.stack(losses),
        wrong=np.stack(wrong),
        epsilon=walk.epsilon.text,
        example=example,
        label=examples.class_names[label],
        credits=walk.credits(subjects, examples, 1),
    )


def _plane(
    subject: Subject, one: Examples, random: torch.Tensor, offsets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Losses and errors on the grid, each (S, S)."""
    along = gradient_sign(subject, one)[0]
    size = len(offsets)
    losses = np.empty((size, size))
    wrong = np.empty((size, size), dtype=bool)
    places = torch.from_numpy(offsets).float().reshape(-1, 1, 1, 1)
    for row, place in enumerate(places):
        inputs = one.inputs + place * along + places * random
        with torch.no_grad():
            logits = subject.model(inputs.to(subject.model.device)).double().cpu()
        losses[row] = cross_entropy(logits, one.labels.expand(size), reduction="none").numpy()
        wrong[row] = (logits.argmax(dim=1) != one.labels).numpy()
    return losses, wrong


def draw(data: Landscapes) -> Figure:
    """For each model its surface, and below it the same as a map with the border of errors."""
    from matplotlib.colors import Normalize

    count = len(data.names)
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = canvas(max(7.0, 3.3 * columns), 0.5 + 5.6 * rows, data.caption)
    low, high = float(data.losses.min()), float(data.losses.max())
    high = high if high > low else low + 1.0  # a constant loss still needs a scale
    scale = Normalize(low, high)
    along, random = np.meshgrid(data.offsets, data.offsets, indexing="ij")
    maps, mesh = [], None
    for index, name in enumerate(data.names):
        row, column = divmod(index, columns)
        above = 2 * row * columns + column + 1
        surface: Any = figure.add_subplot(2 * rows, columns, above, projection="3d")
        # As pixels in an SVG, which would otherwise hold thousands of polygons.
        surface.plot_surface(
            random, along, data.losses[index], rcount=len(data.offsets), ccount=len(data.offsets),
            linewidth=0, antialiased=False, rasterized=True, cmap=_COLOURS, norm=scale,
        )  # fmt: skip
        surface.set(zlim=(low, high), xlabel="random", ylabel="gradient", title=literal(name))
        surface.tick_params(labelsize=6)
        flat = figure.add_subplot(2 * rows, columns, above + columns)
        mesh = flat.pcolormesh(
            data.offsets,
            data.offsets,
            data.losses[index],
            rasterized=True,
            cmap=_COLOURS,
            norm=scale,
        )
        if data.wrong[index].any() and not data.wrong[index].all():
            flat.contour(
                data.offsets, data.offsets, data.wrong[index], levels=[0.5],
                colors="#D00000", linewidths=1.0,
            )  # fmt: skip
        flat.set(xlabel="random", ylabel="gradient", aspect="equal")
        flat.tick_params(labelsize=6)
        maps.append(flat)
    if mesh is not None:
        figure.colorbar(mesh, ax=maps, label="cross-entropy", shrink=0.8)
    return figure
