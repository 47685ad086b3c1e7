"""Indicators and behaviour: each column of a probe or trace to the item that it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.api import Flag
from bench.trust import Evidence, allowed, evidence_of
from tests.trust.frames import BEHAVIOUR, GRADIENTS, TRACE, N, at, case, frame, honest

if TYPE_CHECKING:
    from bench.record.schema import Cause

LIMIT = allowed(N)


def item(identifier: str, cells: dict[Any, Any], **more: Any) -> Evidence:
    """One item of the evidence on an honest run with some cells changed."""
    (found,) = [e for e in evidence_of(case({**honest(), **cells}, **more)) if e.id == identifier]
    return found


def gradients(**columns: Any) -> dict[Any, Any]:
    """An honest run but for these columns of the probe."""
    return {"probe-gradients": frame(**{**GRADIENTS, **columns})}


def behaviour(**columns: Any) -> dict[Any, Any]:
    """An honest run but for these columns of the probe."""
    return {"probe-behaviour": frame(**{**BEHAVIOUR, **columns})}


def traced(**columns: Any) -> dict[Any, Any]:
    """An honest run but for these columns of the trace."""
    return {"margin-pgd": frame(range(100), **{**TRACE, **columns})}


LOW = {"fidelity": {**at(range(N), 0.999), **at(range(LIMIT), 0.49)}}
FEWER = {"fidelity": {**at(range(N), 0.999), **at(range(LIMIT - 1), 0.49)}}
#: Identifier, cells that fail it, cells that just do not, and its kind.
CASES = {
    "gradient-fidelity": (gradients(**LOW), gradients(**FEWER), "soft"),
    "unavailable-gradients": (gradients(no_gradient=at([3])), gradients(), "deterministic"),
    "zero-margin-gradient": (gradients(zero_margin_gradient=at([3])), gradients(), "deterministic"),
    "cross-entropy-zero-gradient": (
        gradients(zero_ce_gradient=at(range(LIMIT))),
        gradients(zero_ce_gradient=at(range(LIMIT - 1))),
        "context",
    ),
    "unstable-predictions": (
        behaviour(unstable=at(range(LIMIT), 0.11)),
        behaviour(unstable=at(range(LIMIT - 1), 0.11)),
        "soft",
    ),
    "silent-success": (
        traced(silent_success=at(range(LIMIT))),
        traced(silent_success=at(range(LIMIT - 1))),
        "soft",
    ),
    "incomplete-optimisation": (
        traced(incomplete=at(range(100, 100 + LIMIT))),
        traced(incomplete=at(range(100 + LIMIT - 1))),  # what was broken in the end is no failure
        "soft",
    ),
    "loss-worsens": (traced(worsened=0.11), traced(worsened=0.1), "soft"),
    "unconstrained-attack-failure": (
        {("margin-pgd", "1"): frame(range(N - LIMIT))},
        {("margin-pgd", "1"): frame(range(N - LIMIT + 1))},
        "soft",
    ),
    "randomised": (
        behaviour(logits_differ_repeat=at(range(LIMIT))),
        behaviour(logits_differ_repeat=at(range(LIMIT - 1))),
        "soft",
    ),
    "batch-dependence": (
        behaviour(prediction_differs_shuffled=at(range(LIMIT))),
        behaviour(prediction_differs_shuffled=at(range(LIMIT - 1))),
        "deterministic",
    ),
    "call-order-dependence": (
        behaviour(state_differs=at(range(LIMIT))),
        behaviour(state_differs=at(range(LIMIT - 1))),
        "deterministic",
    ),
    "optimiser-in-forward": (behaviour(optimises_in_forward=1), behaviour(), "deterministic"),
    "nan-logits": (behaviour(nonfinite_near=at([7])), behaviour(), "deterministic"),
    "jump-at-input": (
        behaviour(input_jump=at(range(LIMIT), 0.021)),
        behaviour(input_jump=at(range(LIMIT - 1), 0.021)),
        "soft",
    ),
    "jump-at-border": (
        behaviour(border_jump=at(range(LIMIT), 0.021)),
        behaviour(border_jump=at(range(LIMIT - 1), 0.021)),
        "soft",
    ),
    "softmax-output": (behaviour(probability_output=1), behaviour(), "context"),
    "one-hot-output": (behaviour(one_hot_output=1), behaviour(), "context"),
}


@pytest.mark.parametrize("identifier", CASES)
def test_fails_at_its_threshold(identifier: str) -> None:
    """And is of the kind that the verdict expects."""
    cells, _, kind = CASES[identifier]
    found = item(identifier, cells)
    assert (found.status, found.weight) == ("fail", kind)
    assert found.examples


@pytest.mark.parametrize("identifier", CASES)
def test_passes_just_below(identifier: str) -> None:
    """One example fewer, or none."""
    assert item(identifier, CASES[identifier][1]).status == "pass"


@pytest.mark.parametrize("identifier", CASES)
def test_is_not_run_without_its_cell(identifier: str) -> None:
    """An empty run passes nothing."""
    (found,) = [e for e in evidence_of(case()) if e.id == identifier]
    assert found.status == "not run"


def test_a_border_that_nobody_has_is_not_passed() -> None:
    """As of examples of one class."""
    found = item("jump-at-border", behaviour(border_jump=float("nan")))
    assert found.sentence == "Not run: no example has a border on its way to another."


@pytest.mark.parametrize(
    ("identifier", "probe"),
    [("gradient-fidelity", "probe-gradients"), ("unstable-predictions", "probe-behaviour")],
)
def test_nothing_is_read_from_a_probe_that_had_nothing_to_attack(
    identifier: str, probe: str
) -> None:
    """A model that gets every example wrong leaves a probe without a measurement."""
    found = item(identifier, {probe: frame(wrong=range(N))})

    assert (found.status, found.sentence) == ("not run", "Not run: no example was attacked.")


def test_constant_differences_with_a_gradient_are_unfaithful() -> None:
    """NaN: the gradient promises a change that never comes. Unmeasured examples say nothing."""
    constant = {"fidelity": {**at(range(N), 1.0), **at(range(10), np.nan)}}
    assert item("gradient-fidelity", gradients(**constant)).measured == 10
    unmeasured = gradients(**constant, unmeasured=at(range(6)), no_gradient=at([6]))
    assert item("gradient-fidelity", unmeasured).measured == 3


def test_soft_probe_items_are_rechecked() -> None:
    """The probe runs again; what it does not confirm passes."""
    found = item("gradient-fidelity", gradients(**LOW))
    assert [(r.attack, r.repeat) for r in found.recheck] == [("probe-gradients", 1)]
    calm = gradients(**LOW) | {("probe-gradients", "0.1", 1): frame(**GRADIENTS)}
    assert item("gradient-fidelity", calm).status == "pass"


def test_failure_by_nan_counts_without_the_probe() -> None:
    """What stopped an attack is named."""
    found = item("nan-logits", {}, failures=[("pgd", "0.1", "not-finite")])
    assert found.status == "fail"
    assert "It stopped pgd." in found.sentence


def test_randomness_is_not_blamed_on_the_batch() -> None:
    """A randomised model answers differently in any batch."""
    cells = behaviour(logits_differ_repeat=1, prediction_differs_alone=at(range(50)))
    assert item("batch-dependence", cells).status == "not run"
    assert item("prediction-stability", cells).status == "fail"


def test_without_any_gradient_attack_failures_are_a_fault() -> None:
    """One failed attack among others is context."""
    failures: list[tuple[str, str, Cause]] = [("pgd", "0.1", "raised")]
    assert item("failed-attacks", {}, failures=failures).weight == "context"
    (found,) = [e for e in evidence_of(case(failures=failures)) if e.id == "failed-attacks"]
    assert (found.status, found.weight) == ("fail", "deterministic")


def test_flags_of_autoattack_become_context() -> None:
    """One item per kind, naming the attacks that said it."""
    flag = Flag("autoattack-zero-gradient", "AutoAttack: the gradient is zero for some examples")
    found = item(flag.id, {"fab-t": frame(range(90))}, flags={"apgd-t": flag, "fab-t": flag})
    assert (found.status, found.weight) == ("fail", "context")
    assert "apgd-t, fab-t" in found.sentence
