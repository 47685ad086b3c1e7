"""`gallery`: examples beside their adversarial ones, and the perturbation, scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.figures.canvas import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.figure import Figure

#: Inches of one picture.
SIDE = 1.9
_CAPTION = (
    "Example, adversarial example, and the difference of the two around gray, scaled by the factor "
    "above it."
)


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One adversarial example, with what is known of it."""

    clean: np.ndarray
    """float32 in [0, 1], (C, H, W)."""
    moved: np.ndarray
    """Likewise: the adversarial example."""
    label: str
    """The name of its class."""
    taken_for: str
    """The name of the class that the model takes it for; empty where that is not known."""
    margin: float | None
    """Of the label's logit over the best other, negative; None where that is not known."""
    distance: float
    """Between the two, in the run's norm."""
    attack: str
    """That found it."""


def draw_gallery(exhibits: Sequence[Exhibit], norm: str) -> Figure:
    """One row an example: as it is, as the attack left it, and the difference around gray.

    Each difference is scaled by itself so that its largest value is white or black; the title says
    by how much.

    Args:
        exhibits: at least one.
        norm: of their distances.
    """
    figure = canvas(3 * SIDE + 0.6, (SIDE + 0.35) * len(exhibits) + 0.5, _CAPTION)
    figure.set_layout_engine("constrained", hspace=0.08)
    panels = figure.subplots(len(exhibits), 3, squeeze=False)
    for row, exhibit in zip(panels, exhibits, strict=True):
        difference = exhibit.moved - exhibit.clean
        largest = float(abs(difference).max())
        scaled = 0.5 + difference / (2 * largest) if largest else 0.5 + difference
        margin = "" if exhibit.margin is None else f", margin {exhibit.margin:.3g}"
        titles = (
            exhibit.label,
            f"{exhibit.taken_for or 'wrong'}{margin}",
            f"× {0.5 / largest:.3g}" if largest else "no difference",
        )
        pictures = (exhibit.clean, exhibit.moved, scaled)
        for panel, picture, title in zip(row, pictures, titles, strict=True):
            _show(panel, picture)
            panel.set_title(title, fontsize=8, parse_math=False)
        row[1].set_xlabel(
            f"{exhibit.attack}, {norm} {exhibit.distance:.4g}", fontsize=7, parse_math=False
        )
    return figure


def _show(panel: Any, picture: np.ndarray) -> None:
    """A picture; of other than one or three channels their mean."""
    channels = picture.shape[0]
    shown = picture.transpose(1, 2, 0) if channels == 3 else picture.mean(axis=0)
    panel.imshow(shown, cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
    panel.set_xticks([])
    panel.set_yticks([])
