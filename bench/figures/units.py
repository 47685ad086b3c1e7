"""`units`: how many units change their state on the way from an example to a perturbed one.

The crossings of activation patterns by which k-WTA's authors explain it (arXiv 1905.10510). Of
k-WTA no more than twice gamma of the units can change at all: the share that is on at the start is
given beside each name, to compare the changes with.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.errors import ModelError
from bench.figures.canvas import (
    BATCH,
    activations_of,
    canvas,
    colour,
    gradient_sign,
    literal,
)
from bench.models.ambient import plain_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from bench.api import Examples
    from bench.figures.canvas import Subject, Walk

DIRECTIONS = ("gradient", "random")
SINCE = ("previous step", "start")
#: Percentiles over the examples, the ends of the band.
BAND = (10, 90)


@dataclass(frozen=True, eq=False)
class Changes:
    """Shares of units that change, along straight lines in input space."""

    names: tuple[str, ...]
    """Canonical names of the defenses, M of them."""
    shares: NDArray[np.float64]
    """(M, 2, 2, N, T): at [model, direction of `DIRECTIONS`, since of `SINCE`, example, step] the
    share of the model's units whose state differs."""
    on: NDArray[np.float64]
    """(M,), the share of units that are on at the start, mean over the examples."""
    epsilon: str
    """The Linf length of the whole way, as written."""
    credits: str
    """Models, data, count, seed, version."""

    @property
    def distances(self) -> NDArray[np.float64]:
        """(T,), how far each step has come, as a part of epsilon."""
        steps = self.shares.shape[-1]
        return np.asarray(np.arange(1, steps + 1) / steps)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(M, 2, 2, T), over the examples."""
        return np.asarray(self.shares.mean(axis=3))

    @property
    def band(self) -> NDArray[np.float64]:
        """(2, M, 2, 2, T): the percentiles of `BAND` over the examples."""
        return np.asarray(np.percentile(self.shares, BAND, axis=3))

    @property
    def caption(self) -> str:
        """What is shown."""
        return (
            f"Share of activation units that change between off and on in {self.shares.shape[-1]} "
            f"equal steps to a perturbation of Linf {self.epsilon}: one step by the sign of the "
            "gradient of the cross-entropy, or a random one of the same length, clipped to the "
            f"box. Mean over the examples, band from {BAND[0]}th to {BAND[1]}th percentile. "
            "A unit is on where its activation passes its own value, unless that is 0. "
            f"{self.credits}."
        )

    def columns(self) -> dict[str, list[Any]]:
        """A row for each point of each line."""
        models, directions, since, steps = np.indices(self.mean.shape).reshape(4, -1)
        low, high = self.band
        return {
            "defense": [self.names[model] for model in models],
            "on": self.on[models].tolist(),
            "direction": [DIRECTIONS[direction] for direction in directions],
            "since": [SINCE[each] for each in since],
            "distance": self.distances[steps].tolist(),
            "mean": self.mean.ravel().tolist(),
            "low": low.ravel().tolist(),
            "high": high.ravel().tolist(),
        }


def follow(
    subjects: Sequence[Subject],
    examples: Examples,
    walk: Walk,
    *,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Changes:
    """Count the changes of state along each direction, for every model and example.

    Args:
        subjects: the models, M of them; what their defenses name as activation is counted.
        examples: where the lines start, N of them.
        walk: along each line, in T steps; every example has a random direction of its own.
        on_progress: told what begins.

    Raises:
        UsageError: a defense without an activation.
        ModelError: a model that does not use it, or does not return finite logits.
    """
    factories = activations_of([subject.name for subject in subjects])
    random = walk.random_signs(examples.inputs.shape)
    shares = np.empty((len(subjects), len(DIRECTIONS), len(SINCE), len(examples), walk.steps))
    on = np.zeros((len(subjects), len(examples)))
    for place, subject in enumerate(subjects):
        on_progress(f"following {subject.name}")
        kind = type(factories[subject.name]())
        with plain_torch(seed=walk.seed):
            for way, signs in enumerate([gradient_sign(subject, examples), random]):
                moved = (examples.inputs + float(walk.epsilon) * signs).clamp(0, 1)
                for index, (start, end) in enumerate(zip(examples.inputs, moved, strict=True)):
                    states = _states(subject, kind, start, end, walk.steps)
                    shares[place, way, :, index] = _changed(states)
                    on[place, index] = states[0].mean()
    return Changes(
        names=tuple(subject.name for subject in subjects),
        shares=shares,
        on=on.mean(axis=1),
        epsilon=walk.epsilon.text,
        credits=walk.credits(subjects, examples, len(examples)),
    )


def _states(
    subject: Subject, kind: type[nn.Module], start: Tensor, end: Tensor, steps: int
) -> NDArray[np.bool_]:
    """Which units are on at the start and after each step, (T + 1, units)."""
    places = torch.linspace(0, 1, steps + 1).reshape(-1, 1, 1, 1)
    rows = []
    # No larger than what the model takes at once: each activation is then seen once a batch.
    for inputs in torch.split(start + places * (end - start), BATCH):
        with torch.no_grad(), _watched(subject.model, kind) as states:
            subject.model(inputs.to(subject.model.device))
        if not states:
            raise ModelError(
                f"{subject.name}: no {kind.__name__} at work in its network, though its defense "
                "names that as its activation"
            )
        rows.append(torch.cat(states, dim=1).cpu())
    return np.asarray(torch.cat(rows).numpy())


def _changed(on: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The shares of units that differ from the step before and from the start, (2, T)."""
    return np.stack([(on[1:] != on[:-1]).mean(axis=1), (on[1:] != on[:1]).mean(axis=1)])


@contextlib.contextmanager
def _watched(model: nn.Module, kind: type[nn.Module]) -> Iterator[list[Tensor]]:
    """The states of the units of this kind of activation, bool (rows, units), one for each use.

    A unit is on where it passes its own value, unless that is 0. For ReLU, k-WTA and LWTA that is
    where the output is not 0; a broken ReLU and max-pooling have no output of 0 to go by.
    """
    states: list[Tensor] = []
    before: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        before[module] = inputs[0].clone()  # an activation in place would overwrite it

    def compare(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        states.append(((output == before.pop(module)) & (output != 0)).flatten(1))

    hooks = [
        hook
        for module in model.modules()
        if isinstance(module, kind)
        for hook in (module.register_forward_pre_hook(keep), module.register_forward_hook(compare))
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def draw(data: Changes) -> Figure:
    """A row since the previous step and one since the start; a column for each direction."""
    figure = canvas(8.5, 6.5, data.caption)
    panels = figure.subplots(len(SINCE), len(DIRECTIONS), sharex=True, sharey="row")
    low, high = data.band
    for (since, way), panel in np.ndenumerate(panels):
        for index, name in enumerate(data.names):
            shade = colour(index)
            panel.plot(data.distances, data.mean[index, way, since], color=shade,
                       label=literal(f"{name} ({data.on[index]:.0%} on)"))  # fmt: skip
            panel.fill_between(
                data.distances, low[index, way, since], high[index, way, since],
                color=shade, alpha=0.15, linewidth=0,
            )  # fmt: skip
        panel.set_ylim(bottom=0)
        if since == 0:
            panel.set_title(f"along the {DIRECTIONS[way]}" if way == 0 else "at random")
        else:
            panel.set_xlabel(f"distance / {data.epsilon}")
        if way == 0:
            panel.set_ylabel(f"changed since the {SINCE[since]}")
    panels[0, 0].legend(fontsize=8, frameon=False)
    return figure
