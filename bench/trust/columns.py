"""How a column that a probe measured, or a descent told of its path, becomes a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.trust.case import attacked, hits, marked, values
from bench.trust.comparisons import again, white_box
from bench.trust.evidence import Check, allowed

if TYPE_CHECKING:
    from bench.record.results import Table
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

Find = Callable[["Table"], set[int]]


def marks(*columns: str) -> Find:
    """The examples that one of these columns marks."""
    return lambda table: set().union(*(marked(table, column) for column in columns))


def one(case: Case, n: int) -> int:
    """A single example is enough."""
    return 1


def tolerance(case: Case, n: int) -> int:
    """As many as a soft test tolerates of those that were looked at."""
    return allowed(n)


def tolerance_of_all(case: Case, n: int) -> int:
    """As many as a soft test tolerates of all examples."""
    return allowed(case.n)


@dataclass(frozen=True)
class Probed:
    """A test on a column that a probe measured; `{}` in `words` is the count.

    A soft one has to recur with a fresh seed; another one is certain as it stands.
    """

    check: Check
    column: str
    words: str
    find: Find
    enough: Callable[[Case, int], int] = one
    """How many of the examples looked at have to contradict it, where it is certain."""
    unmeasured: str = ""
    """Why it is not run where the column has no number for any example; else it passes there."""

    def __call__(self, case: Case) -> Evidence:
        """The finding."""
        found = case.measured(self.column)
        if found is None:
            return self.check.not_run(f"nothing measured it at epsilon {case.headline}")
        attack, table = found
        n = len(attacked(table))
        if self.check.weight != "soft":
            against = self.find(table)
            words = self.words.format(len(against))
            return self.check.counted(against, n, words, threshold=self.enough(case, n))
        if f"extra_{self.column}" not in table:
            return self.check.not_run("no example was attacked")
        if self.unmeasured and not values(table, self.column).size:
            return self.check.not_run(self.unmeasured)

        def at(repeat: int) -> set[int] | None:
            repeated = case.measured(self.column, repeat)
            return None if repeated is None else self.find(repeated[1])

        return self.check.recurring(
            at, n, lambda count: self.words.format(count), again(case, [attack])
        )


@dataclass(frozen=True)
class Traced:
    """A soft test on a column that descents on the model's own gradient told of their path.

    `{attack}` in `words` is who told it, `{}` the count: whoever has most against it.
    """

    check: Check
    column: str
    words: str
    failures: bool = False
    """Whether only examples count that it did not break."""

    def __call__(self, case: Case) -> Evidence:
        """The finding."""
        told = traced(case, self.column)
        if not told:
            return self.check.not_run(f"no trace of a path was left at epsilon {case.headline}")
        attack = min(told, key=lambda name: (-len(self._against(told[name])), name))

        def find(repeat: int) -> set[int] | None:
            table = traced(case, self.column, repeat).get(attack)
            return None if table is None else self._against(table)

        return self.check.recurring(
            find,
            len(attacked(told[attack])),
            lambda count: self.words.format(count, attack=case.spoken(attack)),
            again(case, [attack]),
        )

    def _against(self, table: Table) -> set[int]:
        return marked(table, self.column) - (hits(table) if self.failures else set())


def traced(case: Case, column: str, repeat: int = 0) -> dict[str, Table]:
    """The cells at the headline epsilon of gradient attacks that told this of their path.

    Those that attacked only what others had left are no sample of the examples, and are left out.
    Of a randomised model attacks tell that descend on the mean over its draws, where there are any:
    the path of single draws may be that of chance.
    """
    found = {
        attack: table
        for attack, table in case.at(case.headline, repeat).items()
        if attack in white_box(case)
        and column in case.declared(attack).traces
        and f"extra_{column}" in table
        and case.whole(table)
    }
    over_draws = {a: table for a, table in found.items() if case.declared(a).over_draws}
    return over_draws or found
