"""What the contracts for pytest and the verb `check` make of what checks find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.defenses.activated import ReLU
from bench.errors import UsageError
from bench.testing.conformance import (
    NotApplicableError,
    Rule,
    examine,
    nothing_shown,
    rules_of,
    subject_of,
)
from bench.testing.contracts import AttackContract, DefenseContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.testing.faults import Shape


class TestReLU(DefenseContract):
    """The contract, as a plugin's author inherits it."""

    name = "relu"


class TestFGSM(AttackContract):
    """The contract, as a plugin's author inherits it."""

    name = "fgsm"


def test_a_contract_says_what_was_expected_seen_and_how_to_mend_it() -> None:
    """The words of the check, in the failure that pytest prints."""
    check = Rule[int]("odd", "It is even", "add one", lambda number: f"{number}")

    with pytest.raises(pytest.fail.Exception) as failure:
        TestReLU()._hold(check, 3)
    assert str(failure.value).split() == (
        ["odd", "expected:", "It", "is", "even", "seen:", "3", "to", "mend:", "add", "one"]
    )
    (surrogates,) = (c for c in rules_of("defense") if c.id == "surrogates")
    with pytest.raises(pytest.skip.Exception, match="it declares none"):
        TestReLU()._hold(surrogates, subject_of("defense", "relu"))


def test_a_suite_of_skipped_checks_alone_fails() -> None:
    """Nothing was shown, which is no success."""

    def look(subject: int) -> str | None:
        raise NotApplicableError("nothing here")

    skipped = Rule[int]("odd", "something", "mend it", look).on(0)
    passed = Rule[int]("even", "something", "mend it", lambda subject: None).on(0)

    assert (skipped.status, skipped.seen) == ("skipped", "nothing here")
    assert [f.status for f in nothing_shown([skipped])] == ["failed"]
    assert nothing_shown([skipped, passed]) == []


def test_a_defense_that_fits_no_shape_is_not_passed_over(register: Callable[[type], str]) -> None:
    """Its checks are skipped but for the name, and building says why."""

    def network(self: ReLU, *, shape: Shape) -> str:
        raise UsageError("no shape at all")

    findings = examine("defense", register(type("Odd", (ReLU,), {"network": network})))
    assert {f.status for f in findings if f.rule.id not in ("name", "odd-shape")} == {"skipped"}
