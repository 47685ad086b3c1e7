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
class PictureRow:
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


def draw_gallery(rows: Sequence[PictureRow], norm: str) -> Figure:
    """One row an example: as it is, as the attack left it, and the difference around gray.

    Each difference is scaled by itself so that its largest value is white or black; the title says
    by how much.

    Args:
        rows: at least one.
        norm: of their distances.
    """
    figure = canvas(3 * SIDE + 0.6, (SIDE + 0.35) * len(rows) + 0.5, _CAPTION)
    figure.set_layout_engine("constrained", hspace=0.08)
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for three, row in zip(panels, rows, strict=True):
        difference = row.moved - row.clean
        largest = float(abs(difference).max())
        scaled = 0.5 + difference / (2 * largest) if largest else 0.5 + difference
        margin = "" if row.margin is None else f", margin {row.margin:.3g}"
        titles = (
            row.label,
            f"{row.taken_for or 'wrong'}{margin}",
            f"× {0.5 / largest:.3g}" if largest else "no difference",
        )
        pictures = (row.clean, row.moved, scaled)
        for panel, picture, title in zip(three, pictures, titles, strict=True):
            _show(panel, picture)
            panel.set_title(title, fontsize=8, parse_math=False)
        three[1].set_xlabel(
            f"{row.attack}, {norm} {row.distance:.4g}", fontsize=7, parse_math=False
        )
    return figure


def _show(panel: Any, picture: np.ndarray) -> None:
    """A picture; of other than one or three channels their mean."""
    channels = picture.shape[0]
    shown = picture.transpose(1, 2, 0) if channels == 3 else picture.mean(axis=0)
    panel.imshow(shown, cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
    panel.set_xticks([])
    panel.set_yticks([])
