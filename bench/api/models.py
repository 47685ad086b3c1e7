"""What a defense says that brings models of its own: where weights are, and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """Where the weights of a defense are that brings its own."""

    source: str
    """For records and tables; it holds no path of this machine."""
    files: tuple[Path, ...] = ()
    """safetensors, or torch files that load with `weights_only=True`; none where the module that
    `build` returns has its weights already."""


class Offer(NamedTuple):
    """A model that a scheme offers."""

    name: str
    """As on the command line, options and all."""
    shape: tuple[int, int, int]
    """(C, H, W) of one input."""
    classes: int


@dataclass(frozen=True)
class Published:
    """What others published of a defense, accuracies as fractions of 1; None where they did not."""

    source: str
    """Who published it."""
    norm: str
    epsilon: str
    """As written there."""
    clean_accuracy: float | None = None
    reported: float | None = None
    """Robust accuracy according to the defense's authors."""
    autoattack: float | None = None
    """Robust accuracy under AutoAttack."""
    best_known: float | None = None
    """The lowest robust accuracy that anybody found."""
    unreliable: bool = False
    """Whether AutoAttack's figure is marked as one not to be relied on."""
