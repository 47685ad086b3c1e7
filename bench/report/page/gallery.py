"""Adversarial examples to look at: the unperturbed image, the adversarial one, and the difference.

What a run keeps of each broken example is its smallest perturbation, by whichever attack found it.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.record.adversarial import unpacked
from bench.record.schema import CLEAN
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from bench.record.adversarial import Found
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord

    #: Gives inputs float32 (N, C, H, W) of some examples of a run by their places; None where they
    #: cannot be read.
    Unperturbed = Callable[[Sequence[int]], np.ndarray | None]

#: Adversarial examples of a defense that are shown, at most.
MOST = 100
#: By how much a distance may differ from the one that the run noted.
AGREES = 1e-6
#: The colours of a gray image's difference: less, as before, more.
LESS, SAME, MORE = (27, 94, 142), (246, 243, 236), (178, 58, 30)


@dataclass(frozen=True)
class Exhibit:
    """One adversarial example of a defense."""

    example: int
    label: str
    prediction: str
    attack: str
    """That found the smallest perturbation."""
    epsilon: str
    """At which it did, as written."""
    distance: float
    clean_margin: float | None
    margin: float | None
    """Logit of the label minus the best other; None where it is not known."""
    broken_by: int
    """How many attacks of the run broke this example, at any epsilon."""
    clean: str
    """A PNG as a `data:` URI, as the next two; empty where the unperturbed image is not at hand."""
    adversarial: str
    difference: str
    scale: float
    """By how much the difference is multiplied."""

    @property
    def bytes(self) -> int:
        """Of the three images in the page."""
        return len(self.clean) + len(self.adversarial) + len(self.difference)


@dataclass(frozen=True)
class Gallery:
    """Those of a defense that are shown, the closest first."""

    exhibits: tuple[Exhibit, ...]
    broken: int
    """How many there are in all."""
    hardest: tuple[int, ...]
    """The examples in the order of the largest distance, and then of the fewest attacks."""
    whole: bool
    """Whether the unperturbed images are there as well."""
    gray: bool
    """Whether they have one channel, so that a difference has two colours."""

    @property
    def shown(self) -> frozenset[int]:
        """The examples that have a picture."""
        return frozenset(self.hardest)

    @property
    def attacks(self) -> list[str]:
        """That found one of these."""
        return sorted({each.attack for each in self.exhibits})


class _Known(NamedTuple):
    """What outcomes say of one adversarial example."""

    found: Found
    broken_by: int


def hang(
    record: RunRecord,
    results: list[CellResult],
    found: Mapping[int, Found],
    unperturbed: Unperturbed,
    room: int,
) -> Gallery:
    """The gallery of a defense.

    Args:
        record: of the run.
        results: the cells of the defense.
        found: its smallest adversarial examples, by example.
        unperturbed: reads what the run was given.
        room: bytes that its images may take in the page.
    """
    broke = _broken_by(results)
    known = {index: _Known(item, len(broke.get(index, ()))) for index, item in found.items()}
    closest = sorted(known, key=lambda i: (known[i].found.distance, -known[i].broken_by, i))
    hardest = sorted(known, key=lambda i: (-round(_distance(known[i]), 6), known[i].broken_by, i))
    alternating = [index for pair in zip(closest, hardest, strict=True) for index in pair]
    chosen = list(dict.fromkeys(alternating))[:MOST]
    read = unperturbed(chosen) if chosen else None
    shown: dict[int, Exhibit] = {}
    for place, index in enumerate(chosen):
        clean = None if read is None else read[place]
        exhibit = _exhibit(record, known[index], results, clean)
        if exhibit is not None:
            room -= exhibit.bytes
            if room < 0:
                break
            shown[index] = exhibit
    return Gallery(
        tuple(shown[index] for index in closest if index in shown),
        len(found),
        tuple(index for index in hardest if index in shown),
        all(exhibit.clean for exhibit in shown.values()),
        record.dataset.shape[0] < 3,
    )


def _distance(known: _Known) -> float:
    return known.found.distance


def _broken_by(results: list[CellResult]) -> dict[int, set[str]]:
    """The attacks that broke each example, at whatever epsilon."""
    broke: dict[int, set[str]] = {}
    for result in results:
        if result.cell.attack != CLEAN:
            for index in result.table["index"][result.hit].tolist():
                broke.setdefault(index, set()).add(result.cell.attack)
    return broke


def _exhibit(
    record: RunRecord, known: _Known, results: list[CellResult], clean: np.ndarray | None
) -> Exhibit | None:
    """One adversarial example with its images; None where it cannot be shown as one."""
    item, names = known.found, record.dataset.class_names
    clean = _checked(clean, item, record)
    if clean is None and not hasattr(item.input, "dtype"):
        return None  # it is stored as a difference from what is not at hand
    moved = item.input if clean is None else unpacked(item.input, clean)
    label, _, epsilon = item.origin.rpartition(" @ ")
    difference, scale = ("", 0.0) if clean is None else _difference(moved - clean)
    row, before = _outcome(results, item), _clean_outcome(results, item.example)
    return Exhibit(
        example=item.example,
        label=_named(names, int(before["label"])),
        prediction="?" if row is None else _named(names, int(row["prediction"])),
        attack=label.partition("#")[0],
        epsilon=epsilon,
        distance=item.distance,
        clean_margin=_finite(before["margin"]),
        margin=None if row is None else _finite(row["margin"]),
        broken_by=known.broken_by,
        clean="" if clean is None else _png(clean),
        adversarial=_png(moved),
        difference=difference,
        scale=scale,
    )


def _checked(clean: np.ndarray | None, item: Found, record: RunRecord) -> np.ndarray | None:
    """The unperturbed input, if it is the one of the run: the distance says so."""
    import numpy as np

    if clean is None or clean.shape != tuple(record.dataset.shape):
        return None
    try:
        moved = unpacked(item.input, clean)
    except ValueError:
        return None
    delta = np.abs(moved.astype(np.float64) - clean.astype(np.float64)).ravel()
    norm = Norm(record.norm)
    far = (
        delta.max() if norm is Norm.LINF
        else np.sqrt((delta**2).sum()) if norm is Norm.L2
        else delta.sum()
    )  # fmt: skip
    return clean if abs(float(far) - item.distance) <= AGREES else None


def _outcome(results: list[CellResult], item: Found) -> Any:
    """The outcome that an adversarial example stands for."""
    for result in results:
        if f"{result.cell.label} @ {result.cell.epsilon}" == item.origin:
            row = result.frame.iloc[item.example]
            return row if row["broken"] else None
    return None


def _clean_outcome(results: list[CellResult], example: int) -> Any:
    (frame,) = [result.frame for result in results if result.cell.attack == CLEAN]
    return frame.iloc[example]


def _finite(value: float) -> float | None:
    return float(value) if abs(value) < float("inf") else None


def _named(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else str(index)


def _png(image: np.ndarray) -> str:
    """An input in [0, 1] (C, H, W) as a picture."""
    import numpy as np

    return _encoded((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))


def _difference(delta: np.ndarray) -> tuple[str, float]:
    """A perturbation (C, H, W) scaled to fill the range, and by how much.

    Of a gray image it is blue where the image got darker and red where it got lighter; of one in
    colour it is added to mid-gray.
    """
    import numpy as np

    scale = 1 / max(float(np.abs(delta).max()), 1e-12)
    full = np.clip(delta * scale, -1, 1)
    if len(delta) < 3:
        ends = np.array([LESS, SAME, MORE], dtype=np.float64)
        mixed = ends[1] + np.abs(full[0])[..., None] * (
            np.where(full[0][..., None] > 0, ends[2], ends[0]) - ends[1]
        )
        return _encoded((mixed + 0.5).astype(np.uint8).transpose(2, 0, 1)), scale
    return _encoded((127.5 + 127.5 * full + 0.5).astype(np.uint8)), scale / 2


def _encoded(pixels: np.ndarray) -> str:
    """Pixels uint8 (C, H, W) as the `data:` URI of a PNG."""
    from PIL import Image

    gray = len(pixels) < 3
    shaped = pixels[0] if gray else pixels[:3].transpose(1, 2, 0)
    out = io.BytesIO()
    Image.fromarray(shaped, "L" if gray else "RGB").save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
