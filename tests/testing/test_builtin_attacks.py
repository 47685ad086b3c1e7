"""Every attack that Winnow brings passes the contract, with few steps and in one norm."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from bench import registry
from bench.attacks import autoattack
from bench.testing.attack_rules import RULES
from bench.testing.attack_subject import AttackSubject
from bench.testing.conformance import NotApplicableError, nothing_shown
from tests.attacks.worlds import builtin_attacks

if TYPE_CHECKING:
    from bench.api import Attack

#: Options that make an attack short, and attributes where it has no options for it.
SHORT = {
    "adam-pgd": "steps=3",
    "blended-noise": "directions=5,steps=10",
    "ddn": "steps=10",
    "deepfool": "steps=5",
    "eot-pgd": "draws=2,steps=3",
    "fmn": "steps=10",
    "local-search": "rounds=2",
    "margin-pgd": "restarts=1",
    "pgd": "steps=3",
    "probe-behaviour": "draws=5",
    "salt-and-pepper": "steps=50",
    "single-pixel": "pixels=10",
    "square": "queries=50",
}
STEPS = {"boundary": 400, "hop-skip-jump": 1, "cw": 10, "ead": 10}


class Shortened(AttackSubject):
    """An attack with few steps, in the first of its norms."""

    def create(self) -> Attack:
        """With fewer steps."""
        options = f"[{SHORT[self.name]}]" if self.name in SHORT else ""
        attack = registry.attacks.create(f"{self.name}{options}")
        if self.name in STEPS:
            vars(attack)["steps"] = STEPS[self.name]
        return attack


@pytest.mark.parametrize("name", builtin_attacks())
def test_every_attack_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No check fails, and some pass; `autoattack` with the first of its rows alone."""
    first = [autoattack.APGDCE()]
    monkeypatch.setattr(autoattack, "_cascade", lambda **setting: (first, []))
    subject = Shortened(name)
    with contextlib.suppress(NotApplicableError):  # brendel-bethge needs numba
        subject.norms = subject.norms[:1]
    findings = [check.on(subject) for check in RULES]

    assert [str(f) for f in findings if f.status == "failed"] == []
    assert nothing_shown(findings) == []
