"""What figures share: what they are drawn of, the paper with its caption, and the files.

A figure is written as PNG, SVG and CSV; the same numbers give the same bytes.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy

from bench import registry
from bench.data import default_epsilons
from bench.errors import UsageError
from bench.models.contenders import Lineup
from bench.models.counted import CountedModel
from bench.record.files import check_place, write_bytes
from bench.record.provenance import version_of
from bench.report.cells import cell
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from bench.api import Examples

ENDINGS = (".png", ".svg")

#: Told apart by people with colour-blindness too (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_CAPTION_SIZE = 7.0

#: Characters of a caption in an inch of a figure's width.
_CHARACTERS = 18

#: Largest forward pass; what is drawn does not depend on it.
BATCH = 256


class Drawn(Protocol):
    """The numbers of a figure."""

    @property
    def caption(self) -> str:
        """What the figure shows, and what made it."""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Everything that is plotted, by column; None where there is no value."""


@dataclass(frozen=True)
class Destination:
    """Where a figure goes."""

    pictures: tuple[Path, ...]
    """Each ends in one of `ENDINGS`."""
    table: Path
    """The numbers, as CSV."""

    @classmethod
    def of(cls, out: Path) -> Destination:
        """A path ending in .png or .svg is that picture; without an ending it becomes both.

        Raises:
            UsageError: another ending, or no file's name.
            StoreError: it cannot be written there.
        """
        check_place(out)
        if out.suffix in ENDINGS:
            return cls((out,), out.with_suffix(".csv"))
        if not out.name or re.fullmatch(r"\.[A-Za-z]+", out.suffix):
            raise UsageError(
                f"figures are written as .png and .svg (got {str(out)!r}); "
                "name one of them, or leave the ending out for both"
            )
        pictures = tuple(out.with_name(out.name + ending) for ending in ENDINGS)
        return cls(pictures, out.with_name(f"{out.name}.csv"))

    def write(self, figure: Figure, drawn: Drawn) -> list[Path]:
        """Write the pictures and the table; give their paths.

        Raises:
            StoreError: the place cannot be written.
        """
        for path in self.pictures:
            write_bytes(path, to_bytes(figure, drawn.caption, path.suffix))
        write_bytes(self.table, to_csv(drawn.columns()).encode())
        return [*self.pictures, self.table]


def to_bytes(figure: Figure, caption: str, ending: str) -> bytes:
    """A picture, with its caption among the file's metadata as well.

    Args:
        figure: what to draw.
        caption: one paragraph.
        ending: one of `ENDINGS`.
    """
    import matplotlib

    # Without the salt and the date, an SVG drawn twice would be two different files.
    undated = {"Date": None} if ending == ".svg" else {}
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "winnow"}):
        figure.savefig(
            picture, format=ending[1:], dpi=150, metadata={"Description": caption, **undated}
        )
    return picture.getvalue()


def to_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """A header and a line for each row; numbers in full, what is missing empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, columns))
    for row in zip(*columns.values(), strict=True):
        writer.writerow("" if value is None else cell(value) for value in row)
    return text.getvalue()


class Sheet(Figure):
    """A figure that a notebook shows by itself, whether or not it uses pyplot."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def canvas(width: float, height: float, caption: str) -> Figure:
    """An empty figure, its size in inches, with the caption below."""
    figure = Sheet(figsize=(width, height), layout="constrained")
    figure.supxlabel(
        textwrap.fill(caption, int(width * _CHARACTERS)),
        x=0.01, ha="left", fontsize=_CAPTION_SIZE, color="0.3", parse_math=False,
    )  # fmt: skip
    return figure


def literal(text: str) -> str:
    """A name as matplotlib shows it as it is, in titles and legends.

    Two dollars would hold a formula, whose mistakes are errors, and a legend leaves out what begins
    with an underscore.
    """
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def colour(index: int) -> str:
    """The colour of the so-manieth line."""
    return COLOURS[index % len(COLOURS)]


@dataclass(frozen=True, eq=False)
class Subject:
    """A defense with its weights."""

    name: str
    """Canonical."""
    weights_digest: str
    model: CountedModel
    """Frozen, in eval mode, on its device."""

    @property
    def credit(self) -> str:
        """As in captions: the name, and the first eight digits of the weights' digest."""
        return f"{self.name} ({self.weights_digest[:8]})"


def load_subjects(
    names: Sequence[str],
    dataset: str,
    examples: Examples,
    checkpoints: Mapping[str, Path],
    device: str,
) -> list[Subject]:
    """Defenses with the weights that `run` would take.

    Args:
        names: as written.
        dataset: as written; its training data identify the weights.
        examples: what the models are to be shown.
        checkpoints: `--checkpoint`, by name as written.
        device: where the models run.

    Raises:
        UsageError: no name, an unknown one, or a checkpoint for another defense.
        CheckpointError: no weights, or weights of another architecture.
    """
    if not names:
        raise UsageError("no defense given; name one, such as --defense kwta")
    return [
        Subject(
            contender.name,
            contender.record.weights_digest,
            CountedModel(contender.load(), examples.classes, BATCH, device),
        )
        for contender in Lineup(dataset, examples, checkpoints).asked(names)
    ]


def activations_of(names: Sequence[str]) -> dict[str, Callable[[], nn.Module]]:
    """What makes each defense's activation, by canonical name.

    Raises:
        UsageError: no name, an unknown one, or a defense that has no activation to show.
    """
    if not names:
        raise UsageError("no activation given; name one, such as --activation relu,kwta")
    found = {}
    for written in names:
        defense = registry.defenses.create(written)
        activation = getattr(defense, "activation", None)
        if activation is None:
            raise UsageError(
                f"{defense.name} has no activation of its own to show; choose a defense that lies "
                "in its activation, such as relu or kwta (python -m bench list)"
            )
        found[defense.name] = activation()
    return found


def choose_epsilon(text: str, family: str | None, *, largest: bool = False) -> Epsilon:
    """An Linf epsilon as written; where empty the headline one of a family of data sets.

    With `largest`, the largest of the family's epsilons takes the place of the headline one.

    Raises:
        UsageError: not an epsilon of Linf, or nothing was given and the family has none.
    """
    if text:
        epsilon = Epsilon.parse(text)
    else:
        usual, headline = default_epsilons(family, Norm.LINF)
        epsilon = usual[-1] if largest else headline
    ThreatModel(Norm.LINF, epsilon)
    return epsilon


@dataclass(frozen=True)
class Walk:
    """The way from an example, along its gradient's sign or at random."""

    epsilon: Epsilon
    """Its length, in Linf."""
    steps: int
    """In how many equal ones, at least 1."""
    seed: int = 0
    """Of the random direction."""

    def random_signs(self, shape: Sequence[int]) -> Tensor:
        """±1, drawn on the CPU, so that every device sees the same direction."""
        coins = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(self.seed))
        return coins * 2.0 - 1.0

    def credits(self, subjects: Sequence[Subject], examples: Examples, n: int) -> str:
        """The end of a caption: models, data, count, seed, version."""
        models = ", ".join(subject.credit for subject in subjects)
        return f"{models}; {examples.name}, n = {n}, seed {self.seed}, {torch_credit()}"


def gradient_sign(subject: Subject, examples: Examples) -> Tensor:
    """The sign of the gradient of each example's cross-entropy, of the shape of the inputs."""
    device = subject.model.device
    inputs = examples.inputs.to(device).clone().requires_grad_()
    loss = cross_entropy(subject.model(inputs), examples.labels.to(device), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return gradient.sign().cpu()


def torch_credit() -> str:
    """The version that computed what is drawn."""
    return f"torch {version_of('torch')}"
