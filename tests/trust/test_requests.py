"""What an examination asks for first, and the stronger attacks that evidence asks for next."""

from __future__ import annotations

from typing import Any

from bench.run.menu import menu_of
from bench.threat import Norm
from bench.trust import asked, escalate, evidence_of, requests
from tests.trust.frames import MENU, N, case, frame, honest
from tests.trust.situations import MASKED, RANDOM


def test_escalation_is_asked_for_by_evidence_and_ends() -> None:
    """Nothing for an honest model, at chance, or after a round that broke less than 1 %.

    Chance of two classes is a half, which stronger attacks may well lower.
    """
    for cells, rounds, classes, wanted in (
        ({}, (), 10, False),
        (MASKED, (), 10, True),
        ({**MASKED, "surrogate": frame(range(190))}, (), 10, False),
        ({**MASKED, "surrogate": frame(range(190))}, (), 2, True),
        ({**MASKED, "surrogate": frame(range(N))}, (), 2, False),
        (MASKED, (2,), 10, True),
        (MASKED, (1,), 10, False),
    ):
        this = case({**honest(), **cells}, rounds=rounds, classes=classes)
        assert bool(escalate(evidence_of(this), this, MENU, len(rounds) + 1)) == wanted


def test_escalation_grows_and_repeats_nothing() -> None:
    """What ran at the headline is not asked again; after the last round there is no more."""
    cells: dict[Any, Any] = {**honest(), **MASKED}
    names: list[str] = []
    for number in range(1, 9):
        this = case(cells)
        wanted = escalate(evidence_of(this), this, MENU, number)
        assert all(r.scope == "remaining" and r.epsilon == "0.1" for r in wanted)
        names += [r.attack for r in wanted]
        cells |= {r.attack: frame(attacked=range(150, N)) for r in wanted}
    assert len(names) == len(set(names))
    assert "fd-pgd" not in names
    assert names == ["adaptive[preset=full]"]


def test_what_is_new_of_a_round_that_ran_does_not_stand_in_for_the_next() -> None:
    """Its attacks may be about another fault and break nothing, which would end the escalation."""
    first, *later = MENU.escalation
    assert later
    for known in (set[str](), *({name} for name in first), {*first}):
        cells: dict[Any, Any] = {
            key: table for key, table in {**honest(), **MASKED}.items() if key not in first
        }
        this = case(cells | {name: frame(range(100)) for name in known})
        wanted = {r.attack for r in escalate(evidence_of(this), this, MENU, 1)}
        assert wanted == {*first, *(later[0] if known else ())} - {*known}


def test_randomised_defenses_are_escalated_by_eot() -> None:
    """Before anything else."""
    this = case({**honest(), "probe-behaviour": frame(**RANDOM)})
    assert escalate(evidence_of(this), this, MENU, 1)[0].attack == "eot-pgd"


def test_of_a_randomised_defense_the_mean_over_draws_is_attacked_on_every_example() -> None:
    """So that its path is a sample; nothing of the kind for others."""
    noisy = case({**honest(), "clean": frame(draws=100)}, shape=(1, 8, 8))
    assert [(r.attack, r.scope) for r in requests(noisy, MENU)] == [("eot-pgd", "evidence")]


def test_requests_leave_out_what_ran() -> None:
    """And ask for the half box and the whole box with an attack on the margin."""
    new = requests(case(shape=(1, 8, 8)), MENU)
    assert {"probe-gradients", "probe-behaviour", "apgd-t"} <= {r.attack for r in new}
    assert {asked("margin-pgd", "0.5"), asked("margin-pgd", "1")} <= set(new)
    assert requests(case(honest(), shape=(1, 8, 8)), MENU) == []


def test_requests_fit_the_threat_model() -> None:
    """L2 has no half box, and its whole box is as wide as its diagonal; DLR needs classes."""
    menu = menu_of(Norm.L2, (1, 8, 8), 2)
    new = requests(case(shape=(1, 8, 8), norm=Norm.L2, classes=2), menu)
    assert asked("margin-pgd", "8") in new
    assert not {"0.5", "1"} & {r.epsilon for r in new}
    assert "apgd-t" not in {r.attack for r in new}
