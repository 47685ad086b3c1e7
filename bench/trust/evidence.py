"""One machine-checked finding, the tolerance that it is held to, and what it asks to repeat."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.record.schema import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

Weight = Literal["soft", "deterministic", "context"]

Status = Literal["pass", "fail", "not run"]

#: Examples listed with an item, at most.
LISTED = 50
#: Independent families of soft evidence that set a verdict.
FAMILIES = 2
#: What says no more of a randomised model than that it is one.
RANDOM = frozenset({"randomised", "prediction-stability", "epsilon-zero"})

#: The share of examples, and their number, that may contradict a test by chance. In 18 honest runs
#: of 200 examples no test had more than 2 contradictions; masked ones had 3 to 33.
SHARE, FEWEST = 0.015, 3


def allowed(n: int) -> int:
    """How many of n examples have to contradict a soft test for it to fail."""
    # Not ceil(0.015 * n): in floating point 0.015 * 200 is a little more than 3.
    return max(FEWEST, math.ceil(round(SHARE * n, 9)))


def asked(attack: str, epsilon: str, repeat: int = 0) -> Cell:
    """A cell that evidence needs, on all examples and without being a row, whosever it will be.

    Args:
        attack: canonical.
        epsilon: as written.
        repeat: 0 for the run's seed; 1 for a fresh one, with everything else alike.
    """
    return Cell(attack=attack, epsilon=epsilon, scope="evidence", repeat=repeat)


@dataclass(frozen=True)
class Evidence:
    """One finding about a defense."""

    id: str
    family: str
    """Findings of one family share a cause; those of two are independent."""
    weight: Weight
    """`soft`: sets a verdict only beside another family's. `deterministic`: counts at once.
    `context`: explains, and never counts against the defense."""
    title: str
    status: Status
    measured: float | None
    """What was found, mostly a count of examples; None where it did not run."""
    threshold: float | None
    """The test fails from here on."""
    n: int
    """The examples that it looked at."""
    examples: tuple[int, ...]
    """Those that contradict it, the first fifty."""
    reference: str
    """Who proposed the test."""
    sentence: str
    """What it says, in the words of a researcher."""
    recheck: tuple[Cell, ...] = ()
    """What has to be repeated with a fresh seed before a failure is final; empty once it was, and
    left over where the verdict was settled without it."""

    @property
    def counts(self) -> bool:
        """Whether it speaks against the defense."""
        return self.status == "fail" and self.weight != "context"

    @property
    def excess(self) -> float:
        """How many times its threshold it measured."""
        return (self.measured or 0.0) / self.threshold if self.threshold else math.inf

    def to_json(self) -> dict[str, Any]:
        """For `evidence.json`."""
        return {
            "id": self.id,
            "family": self.family,
            "kind": self.weight,
            "title": self.title,
            "status": self.status,
            "measured": self.measured,
            "threshold": self.threshold,
            "n": self.n,
            "examples": list(self.examples),
            "source": self.reference,
            "sentence": self.sentence,
            "recheck": [
                {
                    "attack": cell.attack,
                    "epsilon": cell.epsilon,
                    "repeat": cell.repeat,
                    "scope": cell.scope,
                }
                for cell in self.recheck
            ],
        }


def pending(evidence: Iterable[Evidence], known: Container[Cell] = ()) -> list[Cell]:
    """The cells to run with a fresh seed next, each once; none where the verdict is settled.

    It is once failures of enough families are final. Until then the strongest failure of each of
    the strongest families is tried again: what would change nothing is not.

    Args:
        evidence: so far.
        known: cells that ran, or could not.
    """
    failing = [item for item in evidence if item.counts]
    final = {item.family for item in failing if not item.recheck and item.id not in RANDOM}
    strongest: dict[str, Evidence] = {}
    for item in sorted(failing, key=lambda item: -item.excess):
        if item.family not in final and any(cell not in known for cell in item.recheck):
            strongest.setdefault(item.family, item)
    chosen = list(strongest.values())[: max(0, FAMILIES - len(final))]
    return list(dict.fromkeys(cell for item in chosen for cell in item.recheck))


@dataclass(frozen=True)
class Check:
    """What a test is, apart from what it finds."""

    id: str
    family: str
    title: str
    reference: str
    weight: Weight = "soft"

    def not_run(self, why: str) -> Evidence:
        """It could not be done."""
        return self._evidence("not run", None, None, 0, (), f"Not run: {why}.")

    def counted(
        self,
        found: Iterable[int],
        n: int,
        words: str,
        *,
        threshold: int | None = None,
    ) -> Evidence:
        """It fails from `threshold` contradicting examples on (`allowed(n)` where None).

        Args:
            found: the examples that contradict it.
            n: the examples that it looked at.
            words: the sentence of a failure.
            threshold: the smallest count that fails.
        """
        examples = tuple(sorted(found))
        limit = allowed(n) if threshold is None else threshold
        if len(examples) >= limit:
            return self._evidence("fail", len(examples), limit, n, examples, words)
        calm = f"{len(examples)} of {n} examples contradict it, fewer than {limit}."
        return self._evidence("pass", len(examples), limit, n, examples, calm)

    def recurring(
        self,
        find: Callable[[int], set[int] | None],
        n: int,
        words: Callable[[int], str],
        recheck: Sequence[Cell],
        *,
        spare: int = 0,
    ) -> Evidence:
        """A soft test: it fails when enough examples contradict it, with a fresh seed again.

        Args:
            find: from the number of the repeat to the contradicting examples; None where its
                cells are missing.
            n: the examples that it looked at.
            words: from a count to the sentence of a failure.
            recheck: the cells of the repeat.
            spare: how many may contradict it besides the tolerance.
        """
        limit = spare + allowed(n)
        first = find(0) or set()
        found = self.counted(first, n, words(len(first)), threshold=limit)
        if found.status == "pass" or not recheck:
            return found
        again = find(1)
        if again is None:
            once = f"{found.sentence} Seen with one seed."
            return dataclasses.replace(found, recheck=tuple(recheck), sentence=once)
        if len(again) >= limit:
            return found
        calm = (
            f"{len(first)} of {n} examples contradict it and {len(again)} with a fresh seed: "
            "it does not recur."
        )
        return self._evidence("pass", len(again), limit, n, tuple(sorted(again)), calm)

    def rate(
        self, measured: float, limit: float, n: int, words: str, examples: Iterable[int] = ()
    ) -> Evidence:
        """It fails when a mean over examples is above a limit."""
        if measured > limit:
            return self._evidence("fail", measured, limit, n, tuple(sorted(examples)), words)
        return self._evidence("pass", measured, limit, n, (), f"{measured:.3g}, at most {limit:g}.")

    def stated(
        self, good: bool, *, measured: float, threshold: float, n: int, words: str
    ) -> Evidence:
        """It passes or fails by what the caller made out."""
        return self._evidence("pass" if good else "fail", measured, threshold, n, (), words)

    def _evidence(
        self,
        status: Status,
        measured: float | None,
        threshold: float | None,
        n: int,
        examples: tuple[int, ...],
        sentence: str,
    ) -> Evidence:
        return Evidence(
            id=self.id,
            family=self.family,
            weight=self.weight,
            title=self.title,
            status=status,
            measured=None if measured is None else float(measured),
            threshold=None if threshold is None else float(threshold),
            n=n,
            examples=examples[:LISTED],
            reference=self.reference,
            sentence=sentence,
        )


#: A round that breaks a smaller share of all examples is the last.
WORTHWHILE = 0.01


def worthwhile(broken: int, n: int) -> bool:
    """Whether a round that broke so many of n examples calls for another."""
    return broken >= WORTHWHILE * n
