"""`Result`: what a run found, to be read, drawn and shown in a notebook."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.data import open_dataset
from bench.errors import UnknownNameError, UsageError
from bench.record.adversarial import unpacked
from bench.record.store import open_run
from bench.report import render_leaderboard
from bench.report.glance import in_a_line, render_card
from bench.run import arguments
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from fractions import Fraction
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from bench.api import Examples
    from bench.figures.gallery import PictureRow
    from bench.record.adversarial import Found
    from bench.record.schema import RunRecord
    from bench.record.store import RunStore

#: The columns of `Result.outcomes`; the distance is the one in the run's norm.
COLUMNS = (
    "defense", "attack", "epsilon", "index", "label", "clean_prediction", "prediction", "attacked",
    "broken", "distance", "margin", "fault",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class AdversarialSet:
    """The adversarial examples within an epsilon, the smallest known of each example.

    `inputs, labels, attacks = result.adversarial("8/255")` takes it apart.
    """

    inputs: Tensor
    """float32 in [0, 1], (M, C, H, W): each wrong by the judge, and within epsilon."""
    labels: Tensor
    """int64, (M,): the true classes."""
    attacks: tuple[str, ...]
    """Which attack found each, M names."""
    indices: Tensor
    """int64, (M,): of the examples of the run, ascending."""
    distances: Tensor
    """float64, (M,): from the unperturbed input, in the run's norm."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.inputs, self.labels, self.attacks))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Held:
    """What figures do not hold of a run: its examples, and the adversarial ones that were found."""

    examples: Examples
    found: Mapping[str, Mapping[int, Found]]
    """By defense, and by the index of the example."""

    @classmethod
    def of(cls, store: RunStore, record: RunRecord, examples: Examples) -> Held:
        """Read the adversarial examples of a run.

        Raises:
            StoreError: a file is damaged.
        """
        found = {name: store.smallest(each.key).all() for name, each in record.defenses.items()}
        return cls(examples, found)

    @classmethod
    def read(cls, folder: Path) -> Held:
        """Those of a stored run, its examples from where the run found them.

        Raises:
            StoreError: a file is damaged.
            UsageError: the data are not there, or are others by now.
        """
        store, record = open_run(folder)
        written = record.dataset.written
        examples = (
            open_dataset(written).choose("test", record.dataset.n)
            if written
            else store.read_examples(record.dataset)
        )
        if examples.digest != record.dataset.digest:
            raise UsageError(
                f"the data set {record.dataset.name} is not what run {record.id} was about (its "
                "digest differs): put back the files that it was made from"
            )
        return cls.of(store, record, examples)


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a run found."""

    summary: dict[str, Any]
    """The dictionary of `summary.json`."""
    outcomes_full: pd.DataFrame
    """One row per defense, attack, epsilon, repeat and example, with every column that is stored:
    `docs/result-format.md` describes them."""
    folder: Path | None = None
    """Where it is stored."""
    held: Held | None = field(default=None)
    """Examples and adversarial ones of a run that is not stored; others are read when needed."""

    @property
    def outcomes(self) -> pd.DataFrame:
        """The columns that people use, one row per defense, attack, epsilon and example.

        `distance_linf` is there where the norm is Linf, and so on; `outcomes_full` has the rest.
        """
        distance = f"distance_{self.summary['norm'].lower()}"
        wanted = [distance if column == "distance" else column for column in COLUMNS]
        return self.outcomes_full[[name for name in wanted if name in self.outcomes_full]]

    @property
    def worst_case(self) -> float | None:
        """The robust accuracy at the headline epsilon over all attacks, a fraction of 1.

        None where no attack finished. `summary` has its interval and the other epsilons.
        """
        found: float | None = self._headline["robust_accuracy"]
        return found

    @property
    def verdict(self) -> str:
        """`credible`, `broken`, `suspect`, `unreliable` or `not examined`, of the worst case."""
        return str(self._headline.get("verdict") or "not examined")

    def of(self, defense: str) -> Result:
        """The same result for one of several defenses.

        Raises:
            UnknownNameError: it is none of the run's.
        """
        parts = self.summary["defenses"]
        if defense not in parts:
            raise UnknownNameError("defense of this run", defense, parts)
        frame = self.outcomes_full
        mine = frame[frame["defense"] == defense] if len(frame) else frame
        return replace(
            self,
            summary={**self.summary, "defenses": {defense: parts[defense]}},
            outcomes_full=mine,
        )

    def curve(self, ax: Axes | None = None) -> Axes:
        """Draw robust accuracy against epsilon, the worst case with its interval.

        Args:
            ax: where to draw; a new figure of pyplot where None.

        Raises:
            UsageError: there is no figure to draw.
        """
        from bench.figures.curve import draw_lines, trace

        traced = trace([self.summary])
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots(figsize=(6.0, 4.0), layout="constrained")[1]
        draw_lines(ax, traced)
        ax.legend(fontsize=8, frameon=False)
        return ax

    def adversarial(self, epsilon: str | float | Fraction | None = None) -> AdversarialSet:
        """The adversarial examples within an epsilon, the smallest known of each example.

        Clean errors have none. One that was found at a smaller epsilon counts.

        Args:
            epsilon: as written or a number, no larger than the largest of the run; the headline
                one where None.

        Raises:
            StoreError: a stored file is damaged.
            UsageError: no epsilon of this run, or its data are gone.
        """
        import torch

        within = self._within(epsilon)
        found = self._found(within)
        clean = self._pictures.examples
        inputs = [torch.from_numpy(self._input(item).copy()) for item in found]
        indices = torch.tensor([item.example for item in found], dtype=torch.long)
        return AdversarialSet(
            torch.stack(inputs) if inputs else torch.empty(0, *clean.shape),
            clean.labels[indices],
            tuple(item.origin.rpartition(" @ ")[0] for item in found),
            indices,
            torch.tensor([item.distance for item in found], dtype=torch.float64),
        )

    def gallery(
        self,
        epsilon: str | float | Fraction | None = None,
        *,
        n: int = 6,
        order: Literal["closest", "hardest"] = "closest",
    ) -> Figure:
        """Draw examples beside their adversarial ones and the perturbation, scaled.

        Args:
            epsilon: as of `adversarial`.
            n: rows, at most.
            order: the ones that needed the smallest perturbation first, or the largest.

        Raises:
            StoreError: a stored file is damaged.
            UsageError: nothing was broken within this epsilon, or its data are gone.
        """
        from bench.figures.gallery import draw_gallery

        if order not in ("closest", "hardest"):
            raise UsageError(f"order has to be 'closest' or 'hardest' (got {order!r})")
        within = self._within(epsilon)
        sign = 1 if order == "closest" else -1
        found = sorted(self._found(within), key=lambda item: (sign * item.distance, item.example))
        chosen = found[: arguments.whole("n", n, least=1)]
        if not chosen:
            raise UsageError(
                f"no adversarial example was found within ε = {within}: there is nothing to show"
            )
        return draw_gallery([self._row(item) for item in chosen], self.summary["norm"])

    def to_markdown(self) -> str:
        """The leaderboard and the matrix of every defense."""
        return render_leaderboard([self.summary])

    @property
    def failed(self) -> bool:
        """Whether some cell failed."""
        return any(entry["failed"] for entry in self.summary["defenses"].values())

    def __repr__(self) -> str:
        lines = (in_a_line(self.summary, name) for name in self.summary["defenses"])
        return f"<Result: {'; '.join(lines)}>"

    def _repr_html_(self) -> str:
        return "".join(render_card(self.summary, name) for name in self.summary["defenses"])

    @property
    def _name(self) -> str:
        """Of the one defense that this is about.

        Raises:
            UsageError: there are several.
        """
        names = list(self.summary["defenses"])
        if len(names) != 1:
            raise UsageError(
                f"this run has several defenses ({', '.join(names)}): say which, "
                f"result.of({names[0]!r})"
            )
        return str(names[0])

    @property
    def _headline(self) -> dict[str, Any]:
        """The worst case at the headline epsilon."""
        part = self.summary["defenses"][self._name]
        found: dict[str, Any] = part["worst_case"][self.summary["headline"]]
        return found

    @functools.cached_property
    def _pictures(self) -> Held:
        if self.held is None and self.folder is None:
            raise UsageError("this result holds no examples: load it from its run's folder")
        return self.held or Held.read(self.folder)  # type: ignore[arg-type]

    def _within(self, given: Any) -> Epsilon:
        """An epsilon that the run's attacks reached.

        Raises:
            UsageError: a larger one, or none.
        """
        if given is None:
            return Epsilon.parse(self.summary["headline"])
        (wanted, *more), known = arguments.epsilons(given), self.summary["epsilons"]
        if more or float(wanted) > float(Epsilon.parse(known[-1])):
            raise UsageError(
                f"epsilon has to be one number, at most the run's largest (got {given!r}; the "
                f"run's are {', '.join(known)})"
            )
        return wanted

    def _found(self, within: Epsilon) -> list[Found]:
        """What was found within an epsilon, in the order of the examples."""
        of = self._pictures.found[self._name]
        limit = float(within) + TOLERANCE
        return [of[index] for index in sorted(of) if of[index].distance <= limit]

    def _input(self, item: Found) -> Any:
        """Its input, float32 array, (C, H, W)."""
        return unpacked(item.input, self._clean(item))

    def _clean(self, item: Found) -> Any:
        """The unperturbed input of its example, likewise: of images in a file this one alone."""
        (clean,) = self._pictures.examples.take([item.example]).inputs.cpu().numpy()
        return clean

    def _row(self, item: Found) -> PictureRow:
        """One adversarial example with what is known of it."""
        from bench.figures.gallery import PictureRow

        examples = self._pictures.examples
        attack, _, epsilon = item.origin.rpartition(" @ ")
        frame = self.outcomes_full
        rows = frame[
            (frame["defense"] == self._name)
            & (frame["attack"] == attack)
            & (frame["epsilon"] == epsilon)
            & (frame["index"] == item.example)
            & frame["broken"]
        ]
        known = rows.iloc[0] if len(rows) else None
        names = examples.class_names
        return PictureRow(
            clean=self._clean(item),
            moved=self._input(item),
            label=names[int(examples.labels[item.example])],
            taken_for="" if known is None else names[int(known["prediction"])],
            margin=None if known is None else float(known["margin"]),
            distance=item.distance,
            attack=attack,
        )
