"""The evidence of planted examples, and the power that is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.api import PLANTED
from bench.trust import Power, evidence_of, pending, power, verdict
from tests.trust.frames import BEHAVIOUR, GRADIENTS, TRACE, at, case, frame, honest

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from bench.trust import Case, Evidence

#: Examples that the probe looked at, of 200, and how many misses fail the test.
LOOKED, LIMIT = 50, 3
PROBE = "probe-planted"


def probed(
    ce: Iterable[int] = range(LOOKED),
    margin: Iterable[int] = range(LOOKED),
    other: Iterable[int] = range(LOOKED),
    *,
    planted: int = LOOKED,
    chance: int = 0,
) -> pd.DataFrame:
    """What the probe measured: which planted examples two gradient attacks and another found."""
    columns: dict[str, Any] = {
        "planted": at(range(planted)),
        "planted_by_chance": at(range(chance)),
        f"{PLANTED}apgd-ce": at(ce),
        f"{PLANTED}margin-pgd[restarts=3]": at(margin),
        f"{PLANTED}adaptive[preset=light]": at(other),
    }
    return frame(attacked=range(LOOKED), **columns)


def item(found: pd.DataFrame | None, **cells: Any) -> Evidence:
    """The evidence of an honest run but for the probe and some cells."""
    others = {name: outcomes for name, outcomes in honest().items() if name != PROBE}
    probe = {} if found is None else {PROBE: found}
    return of(case({**others, **probe, **cells}))


def of(this: Case) -> Evidence:
    """The evidence of a case."""
    return next(e for e in evidence_of(this) if e.id == "planted-examples")


def test_what_one_gradient_attack_finds_is_found() -> None:
    """A cross-entropy that is flat is the attack's failure, not the defense's."""
    assert item(probed(ce=())).status == "pass"
    assert item(probed(ce=range(25), margin=range(20, LOOKED))).status == "pass"


def test_it_fails_from_the_tolerance_on_with_a_fresh_seed_again() -> None:
    """Two of 50 missed pass, three fail; what others find without the gradient is no excuse."""
    few, many = range(LOOKED - LIMIT + 1), range(LOOKED - LIMIT)
    assert item(probed(few, few)).status == "pass"
    once = item(probed(many, many))
    assert (once.status, once.measured, once.threshold, once.n) == ("fail", LIMIT, LIMIT, LOOKED)
    (repeat,) = pending([once])
    assert (repeat.attack, repeat.repeat, repeat.scope) == (PROBE, 1, "evidence")
    repeated = {(PROBE, "0.1", 1): probed(many, many)}
    calm = {(PROBE, "0.1", 1): probed()}
    this = {**honest(), PROBE: probed(many, many)}
    again = [of(case({**this, **cells})) for cells in (repeated, calm)]
    assert [(e.status, e.recheck) for e in again] == [("fail", ()), ("pass", ())]


def test_it_is_not_run_where_it_would_say_nothing() -> None:
    """Nothing planted, too little, random search that finds it, a model that draws."""
    assert item(None).status == "not run"
    assert "random search" in item(probed((), (), chance=26)).sentence
    assert item(probed((), (), chance=25)).status == "fail"
    assert "24 of 50" in item(probed((), (), planted=24)).sentence
    drawing = frame(**{**BEHAVIOUR, "logits_differ_repeat": 1})
    assert "randomised" in item(probed((), ()), **{"probe-behaviour": drawing}).sentence


def test_power_is_that_of_the_attacks_that_ran() -> None:
    """Where the adaptive attack ran nowhere it does not count; together is what any found."""
    found = probed(ce=range(20), margin=range(10, 35))
    this = case({**honest(), PROBE: found})
    found_by = {"adaptive[preset=light]": 50, "apgd-ce": 20, "margin-pgd[restarts=3]": 25}
    assert power(this) == Power("0.1", 50, found_by, 50)
    without = {name: outcomes for name, outcomes in honest().items() if name != "adaptive"}
    del found_by["adaptive[preset=light]"]
    fewer = case({**without, PROBE: found})
    assert power(fewer) == Power("0.1", 50, found_by, 35)
    assert power(case({**honest(), PROBE: probed(chance=26)})) is None
    others = {name: outcomes for name, outcomes in honest().items() if name != PROBE}
    assert power(case(others)) is None


def test_no_column_is_read_of_an_attack_that_could_not_search() -> None:
    """It is not counted as one that found nothing."""
    found = probed()
    found[f"extra_{PLANTED}apgd-ce"] = np.nan
    assert power(case({**honest(), PROBE: found})).found == {  # type: ignore[union-attr]
        "adaptive[preset=light]": 50,
        "margin-pgd[restarts=3]": 50,
    }


def test_a_pass_lifts_nothing_and_a_failure_alone_sets_nothing() -> None:
    """Two families are needed still."""
    masked = {
        **honest(),
        "probe-gradients": frame(**{**GRADIENTS, "fidelity": 0.1}),
        "margin-pgd": frame(range(100), **{**TRACE, "worsened": 0.3}),
    }
    for cells in (masked, {**masked, PROBE: probed()}):
        this = case(cells)
        assert verdict(evidence_of(this), this).level == "suspect"
    alone = case({**honest(), PROBE: probed((), ())})
    ruling = verdict(evidence_of(alone), alone)
    assert (ruling.level, ruling.families) == ("credible", ("optimisation",))
