"""Outcomes: what is known of each example in one cell, and the table they are stored as."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from bench.api import Flag
from bench.errors import StoreError
from bench.record.damage import DAMAGE, check_columns, first_line
from bench.record.files import ANEW, read_bytes, write_bytes
from bench.record.provenance import Surroundings
from bench.record.schema import Place

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

#: Column, its type, and what it holds. NaN and -1 stand where a value does not apply.
COLUMNS: dict[str, str] = {
    "index": "int64",  # of the example in the run's data, from 0
    "label": "int64",
    "clean_prediction": "int64",
    "prediction": "int64",  # at the judged candidate; -1 where nothing was judged
    "attacked": "bool",  # False: a clean error, or broken before (scope `remaining`)
    "broken": "bool",  # an adversarial example was found; a clean error counts
    "projected": "bool",  # the candidate lay outside the ball or box and was brought back
    "distance_linf": "float64",  # of the adversarial example, NaN where no draw was wrong
    "distance_l2": "float64",
    "distance_l1": "float64",
    "margin": "float64",  # logit of the label minus the best other, at the judged candidate
    "draws": "int64",  # how often the judge asked
    "wrong_draws": "int64",
    "choice_wrong_draws": "int64",  # of as many draws before, by which a worst case is chosen
    "fault": "str",  # why a candidate was refused; empty where it was judged
}

#: What older files said in words alone: a part of the sentence, and the identifier.
OLDER_FLAGS = {
    "seems to be randomised": "autoattack-randomised",
    "looks like probabilities": "autoattack-probabilities",
    "gradient is zero": "autoattack-zero-gradient",
    "Square lowers the accuracy": "autoattack-square",
    "gradients inside its forward": "autoattack-dynamic",
}


@dataclass
class Totals:
    """What one computation cost. Passes are counted per example, by the model itself."""

    forwards: int = 0
    backwards: int = 0
    judge_forwards: int = 0
    """The part of `forwards` that the judge spent."""
    seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[Any, ...]:
        """The four figures in the order of the fields."""
        return self.forwards, self.backwards, self.judge_forwards, self.seconds


class Computed(NamedTuple):
    """How a shard was computed whose attack takes each example at an epsilon as a row."""

    epsilons: tuple[str, ...]
    """Exact, of all cells that it filled, row by row."""
    asked: tuple[int, ...]
    """The examples that it was to attack in this cell."""


@dataclass
class Outcomes:
    """The outcomes of one shard of one cell."""

    frame: pd.DataFrame
    """One row per example, with `COLUMNS` and any per-example extras the attack gave."""
    totals: Totals = field(default_factory=Totals)
    flags: tuple[Flag, ...] = ()
    """What the attack wants a reader to know."""
    place: Place | None = None
    """Of the cell; None in older files, which do not say it."""
    surroundings: Surroundings | None = None
    """Where it was computed; None where an older version did not note it."""
    computed: Computed | None = None
    """None where its attack takes one epsilon, or none."""

    @property
    def block(self) -> tuple[int, int]:
        """The (start, stop) of its examples in the run's data."""
        index = self.frame["index"]
        return int(index.min()), int(index.max()) + 1

    def save(self, path: Path) -> None:
        """Write as Parquet; the rest in the schema's metadata; atomically.

        Raises:
            StoreError: it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        written = {"totals": vars(self.totals), "flags": self._written_flags()}
        if self.place is not None:
            written["cell"] = self.place._asdict()
        if self.surroundings is not None:
            written["surroundings"] = self.surroundings.model_dump()
        if self.computed is not None:
            written["computed"] = self.computed._asdict()
        note = json.dumps(written)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"winnow": note})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_bytes(path, buffer.getvalue())

    def _written_flags(self) -> list[str | list[str]]:
        return [list(flag) if flag.id else flag.sentence for flag in self.flags]

    @classmethod
    def load(cls, path: Path, most: int | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            path: of the shard.
            most: the examples that it can hold; any number where None.

        Raises:
            StoreError: the file is damaged or foreign, or holds more.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(pa.BufferReader(read_bytes(path)))
            rows = file.metadata.num_rows
            if rows < 1 or (most is not None and rows > most):
                raise ValueError(f"{rows} outcomes of {most} examples")
            table = file.read(use_threads=False)  # files are small
            check_columns(table, COLUMNS)
            note = json.loads((table.schema.metadata or {})[b"winnow"], parse_constant=_no_number)
            totals = _totals(note["totals"])
            flags = tuple(_flag(written) for written in note["flags"])
            place = _place(note["cell"]) if "cell" in note else None
            where = note.get("surroundings")
            surroundings = None if where is None else Surroundings.model_validate(where)
            computed = _computed(note["computed"]) if "computed" in note else None
            frame = table.to_pandas(ignore_metadata=True, use_threads=False)
        except StoreError:
            raise
        except (*DAMAGE, pa.ArrowException) as error:
            raise StoreError(
                f"{path} is damaged or was not written by Winnow ({type(error).__name__}: "
                f"{first_line(error)}); {ANEW}"
            ) from error
        return cls(frame, totals, flags, place, surroundings, computed)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _totals(written: dict[str, Any]) -> Totals:
    """The totals of a shard.

    Raises:
        ValueError: one of them is no number from 0 up, or a part more than the whole.
    """
    totals = Totals(**written)
    *counts, seconds = totals.values()
    whole = all(type(count) is int and 0 <= count < 2**63 for count in counts)
    whole = whole and totals.judge_forwards <= totals.forwards
    if not whole or type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"its totals are {written}")
    return totals


def _place(written: dict[str, Any]) -> Place:
    """The cell that a shard says it is of.

    Raises:
        ValueError: it is none.
    """
    place = Place(**written)
    if type(place.repeat) is not int or not all(isinstance(word, str) for word in place[:3]):
        raise ValueError(f"it is of the cell {written}")
    return place


def _computed(written: dict[str, Any]) -> Computed:
    """How a shard says it was computed.

    Raises:
        ValueError: it does not.
    """
    computed = Computed(**{name: tuple(values) for name, values in written.items()})
    words = all(isinstance(epsilon, str) for epsilon in computed.epsilons)
    if not words or not all(type(i) is int and 0 <= i < 2**63 for i in computed.asked):
        raise ValueError(f"it was computed so: {written}")
    return computed


def _flag(written: str | list[str]) -> Flag:
    """A flag as it was stored."""
    if not isinstance(written, str):
        identifier, sentence = written
        return Flag(str(identifier), str(sentence))
    known = (found for part, found in OLDER_FLAGS.items() if part in written)
    return Flag(next(known, "") if written.startswith("AutoAttack") else "", written)
