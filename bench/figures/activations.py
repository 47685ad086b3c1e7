"""Activations by themselves, in two figures of k-WTA's authors (arXiv 1905.10510).

`activations`: what ReLU, max-pooling, LWTA and k-WTA leave of one vector. `fit`: a function of one
variable, learnt from a few points; with ReLU the fit is continuous, with k-WTA it jumps wherever
the set of winners changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bench.errors import ModelError
from bench.figures.canvas import activations_of, canvas, colour, literal, torch_credit
from bench.models.ambient import plain_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: The vector that activations are shown on.
VALUES = (0.3, -0.8, 1.2, 0.7, -0.2, 1.6, -1.1, -0.5, 2.0, 0.6, 0.1, 0.9)

#: How the function of one variable is learnt, and on how many points it is drawn.
POINTS, HIDDEN, STEPS, LEARNING_RATE = 20, 100, 1000, 0.01
GRID = 4000

#: How often the largest difference within a step of the grid is looked at ten times closer.
REFINEMENTS = 6

#: The least jump, as a part of the fit's range: far above what any slope leaves of a step.
SMALLEST_JUMP = 1e-6


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


def apply(names: Sequence[str]) -> Activations:
    """Apply the activation of each defense, given as written, to `VALUES`, in float64.

    Raises:
        UsageError: a defense without an activation, or an activation that does not take so many
            units.
        ModelError: an activation that changes the number of units.
    """
    vector = torch.tensor([VALUES], dtype=torch.float64)
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
        panel.set_title(literal(name), fontsize=10)
        panel.set_xticks(units)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, frameon=False)
    for panel in panels[len(data.names) :]:
        panel.set_axis_off()
    return figure


@dataclass(frozen=True, eq=False)
class Fits:
    """A function, the points it was learnt from, and what each activation made of them."""

    names: tuple[str, ...]
    """Canonical names of the defenses, A of them."""
    points: NDArray[np.float64]
    """(P,), where the function was known; there its values were learnt."""
    grid: NDArray[np.float64]
    """(G,), ascending, from -1 to 1."""
    fits: NDArray[np.float64]
    """(A, G)."""
    jumps: NDArray[np.bool_]
    """(A, G - 1): whether the fit is discontinuous within a step of the grid."""
    seed: int

    @property
    def caption(self) -> str:
        """What is shown."""
        counts = ", ".join(
            f"{name} {count}" for name, count in zip(self.names, self.jumps.sum(1), strict=True)
        )
        return (
            f"sin(6x) + x learnt from {len(self.points)} points by networks 1-{HIDDEN}-"
            f"{HIDDEN}-1 (full-batch Adam, rate {LEARNING_RATE}, {STEPS} steps, float64, "
            f"seed {self.seed}, {torch_credit()}), on a grid of {len(self.grid)}. Grid steps with "
            f"a discontinuity, marked below the curves: {counts}."
        )

    def columns(self) -> dict[str, list[Any]]:
        """A row for each plotted point; `jump`: whether the fit jumps before the next one."""
        series = [
            ("function", self.grid, target(self.grid), None),
            ("points", self.points, target(self.points), None),
            *(
                (name, self.grid, fit, [*jumps.astype(int).tolist(), None])
                for name, fit, jumps in zip(self.names, self.fits, self.jumps, strict=True)
            ),
        ]
        return {
            "series": [name for name, x, _, _ in series for _ in x],
            "x": [value for _, x, _, _ in series for value in x.tolist()],
            "y": [value for _, _, y, _ in series for value in y.tolist()],
            "jump": [value for _, x, _, jumps in series for value in jumps or [None] * len(x)],
        }


def target(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The function that is learnt: a sine on a slope."""
    return np.asarray(np.sin(6 * x) + x)


def fit_with(
    names: Sequence[str], *, seed: int = 0, on_progress: Callable[[str], None] = lambda _: None
) -> Fits:
    """Train a network with each activation, from weights drawn with the same seed.

    Args:
        names: of the defenses whose activations are taken, as written.
        seed: of the weights.
        on_progress: told what begins.

    Raises:
        UsageError: a defense without an activation, or one that does not take so many units.
    """
    known, dense = np.linspace(-1, 1, POINTS), np.linspace(-1, 1, GRID)
    fits, found = [], []
    factories = activations_of(names)
    for name, factory in factories.items():
        on_progress(f"training with {name}")
        learnt = train(factory, known, seed)
        fits.append(learnt(dense))
        found.append(jumps(learnt, dense))
    return Fits(tuple(factories), known, dense, np.stack(fits), np.stack(found), seed)


def train(factory: Callable[[], nn.Module], points: NDArray[np.float64], seed: int) -> Function:
    """The function that a network with this activation learns of `target` at the points."""
    with plain_torch(seed=seed):
        network = nn.Sequential(
            nn.Linear(1, HIDDEN), factory(),
            nn.Linear(HIDDEN, HIDDEN), factory(),
            nn.Linear(HIDDEN, 1),
        ).double()  # fmt: skip
        inputs = torch.from_numpy(points)[:, None]
        values = torch.from_numpy(target(points))[:, None]
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(inputs), values)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.eval()

    @torch.no_grad()
    def learnt(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(network(torch.from_numpy(x)[:, None])[:, 0].numpy())

    return learnt


def jumps(function: Function, grid: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Within which steps of a grid a function is discontinuous.

    Each step is divided by ten, and the part with the largest difference by ten again,
    `REFINEMENTS` times. What is continuous with slope s there differs by no more than s times the
    width that is left, a millionth of the step; a jump stays as high as it was. Several jumps in
    one step count once, and one that hides beside a steeper slope is missed: the count is a lower
    bound.

    Args:
        function: (N,) to (N,), float64.
        grid: ascending, (G,).

    Returns:
        bool, (G - 1,).
    """
    low, high = grid[:-1], grid[1:]
    rows = np.arange(len(low))
    left = np.zeros(len(low))
    for _ in range(REFINEMENTS):
        parts = np.linspace(low, high, 11, axis=1)
        differences = np.abs(np.diff(function(parts.ravel()).reshape(parts.shape), axis=1))
        largest = differences.argmax(axis=1)
        left = differences[rows, largest]
        low, high = parts[rows, largest], parts[rows, largest + 1]
    found: NDArray[np.bool_] = left > SMALLEST_JUMP * np.ptp(function(grid))
    return found


def draw_fit(data: Fits) -> Figure:
    """A panel for each activation: the function, the points, the fit, and where it jumps."""
    count = len(data.names)
    figure = canvas(max(6.5, 4.2 * count), 3.8, data.caption)
    panels = figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
    floor = min(data.fits.min(), target(data.grid).min()) - 0.3
    middles = (data.grid[:-1] + data.grid[1:]) / 2
    for index, panel in enumerate(panels):
        at = middles[data.jumps[index]]
        panel.plot(data.grid, target(data.grid), color="0.6", linestyle="--", label="function")
        panel.plot(data.grid, data.fits[index], color=colour(index), linewidth=0.9, label="fit")
        panel.plot(data.points, target(data.points), "o", color="black", markersize=3.5,
                   label="points")  # fmt: skip
        panel.plot(at, np.full(len(at), floor), "|", color=colour(index), markersize=6,
                   label="jumps")  # fmt: skip
        panel.set_title(literal(f"{data.names[index]}: {len(at)} jumps"), fontsize=10)
        panel.set(xlabel="x", xticks=np.linspace(-1, 1, 5))
        panel.legend(fontsize=7, frameon=False, loc="upper left")
    return figure
