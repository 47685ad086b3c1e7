"""The rule, situation by situation; marks; what is asked for first, and next."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from bench.run.menu import menu_of
from bench.threat import Epsilon, Norm
from bench.trust import asked, attack_marks, escalate, evidence_of, pending, requests, verdict
from bench.trust.evidence import Check
from tests.trust.frames import (
    BEHAVIOUR,
    GRADIENTS,
    HONEST,
    MENU,
    TRACE,
    N,
    at,
    case,
    declared,
    frame,
    honest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.trust import Evidence

LOST = range(70)
#: k-WTA: gradients that mislead, a path that loses what it found, finite differences that win.
MASKED = {
    "probe-gradients": frame(**{**GRADIENTS, "fidelity": 0.3}),
    "margin-pgd": frame(LOST, **{**TRACE, "worsened": 0.4, "silent_success": at(range(20))}),
    "apgd-ce": frame(LOST),
    "apgd-t": frame(range(80)),
    "pgd": frame(range(50)),
    "pgd[steps=80]": frame(range(55)),
    "fd-pgd": frame(range(100)),
    "square": frame(range(90)),
}
RANDOM = {**BEHAVIOUR, "logits_differ_repeat": 1, "prediction_flips_repeat": at(range(50))}
EOT = frame(range(120), draws=100)
FLAT = {**GRADIENTS, "fidelity": 0.0, "zero_margin_gradient": 1, "zero_ce_gradient": 1}
DETACHED = {**GRADIENTS, "fidelity": float("nan"), "no_gradient": 1}

#: Situation: changed cells, more of the case, and the verdict.
TABLE: dict[str, tuple[dict[Any, Any], dict[str, Any], str]] = {
    "honest": ({}, {}, "credible"),
    "one soft test": ({"square": frame(range(110))}, {}, "credible"),
    "one family": ({"square": frame(range(110)), "fd-pgd": frame(range(110))}, {}, "credible"),
    "masked": (MASKED, {}, "suspect"),
    "masked, lowered by a surrogate": (
        {**MASKED, "surrogate": frame(range(170))}, {}, "suspect",
    ),
    "masked, lowered to chance": ({**MASKED, "surrogate": frame(range(180))}, {}, "broken"),
    "masked, still falling": (MASKED, {"rounds": (9, 2)}, "unreliable"),
    "masked, at the bottom": (MASKED, {"rounds": (9, 1)}, "suspect"),
    "large logits": (
        {
            "probe-gradients": frame(**{**GRADIENTS, "zero_ce_gradient": 1}),
            "fgsm": frame(), "pgd": frame(range(10)), "pgd[steps=80]": frame(range(16)),
            "apgd-ce": frame(range(40)),
        },
        {}, "credible",
    ),
    "detached": ({"probe-gradients": frame(**DETACHED)}, {}, "unreliable"),
    "zero gradient": ({"probe-gradients": frame(**FLAT)}, {}, "unreliable"),
    "zero gradient at chance": (
        {"probe-gradients": frame(**FLAT), "square": frame(range(190))}, {}, "broken",
    ),
    "zero gradient on one example": (
        {"probe-gradients": frame(**{**GRADIENTS, "zero_margin_gradient": at([0])})}, {}, "suspect",
    ),
    "zero gradient, surrogates declared": (
        {"probe-gradients": frame(**FLAT), "surrogate": frame(range(100))}, {}, "suspect",
    ),
    "randomised": ({"probe-behaviour": frame(**RANDOM)}, {}, "suspect"),
    "randomised, by EOT": (
        {
            "probe-behaviour": frame(**RANDOM), "eot-pgd": EOT,
            "probe-gradients": frame(**{**GRADIENTS, "fidelity": 0.1}),
        },
        {}, "credible",
    ),
    "randomised, misled over its draws as well": (
        {
            "probe-behaviour": frame(**RANDOM),
            "eot-pgd": frame(range(120), draws=100, **{**TRACE, "worsened": 0.4}),
            "probe-gradients": frame(**{**GRADIENTS, "fidelity": 0.1}),
        },
        {}, "suspect",
    ),
    "randomised, by EOT; the paths of single draws are those of chance": (
        {
            "probe-behaviour": frame(**RANDOM),
            "eot-pgd": frame(range(120), draws=100, **TRACE),
            "probe-gradients": frame(**{**GRADIENTS, "fidelity": 0.1}),
            "margin-pgd": frame(HONEST, **{**TRACE, "worsened": 0.4}),
        },
        {}, "credible",
    ),
    "randomised, at chance by most of its draws alone": (  # 20 and 180 * 0.2 are a quarter
        {"probe-behaviour": frame(**RANDOM), "eot-pgd": frame(range(190), draws=100, share=0.8)},
        {}, "credible",
    ),
    "randomised, right in a third of its draws everywhere": (
        {"probe-behaviour": frame(**RANDOM), "eot-pgd": frame(range(N), draws=100, share=0.66)},
        {}, "credible",
    ),
    "randomised, at chance": (
        {"probe-behaviour": frame(**RANDOM), "eot-pgd": frame(range(190), draws=100, share=0.95)},
        {}, "broken",
    ),
    "masked under harmless noise": (
        {
            **MASKED, "eot-pgd": EOT,
            "probe-behaviour": frame(**{**BEHAVIOUR, "logits_differ_repeat": 1}),
        },
        {}, "suspect",
    ),
    "batch-dependent": (
        {"probe-behaviour": frame(**{**BEHAVIOUR, "prediction_differs_alone": 1})}, {},
        "unreliable",
    ),
    "optimiser": (
        {"probe-behaviour": frame(**{**BEHAVIOUR, "optimises_in_forward": 1})}, {}, "unreliable",
    ),
    "NaN off the data": (
        {"probe-behaviour": frame(**{**BEHAVIOUR, "nonfinite_near": 1})},
        {"failures": [("pgd", "0.1", "not-finite")]}, "unreliable",
    ),
    "NaN stopped an attack": ({}, {"failures": [("pgd", "0.1", "not-finite")]}, "unreliable"),
    "an attack of its own fault": ({}, {"failures": [("ead", "0.1", "raised")]}, "credible"),
    "examples from elsewhere that the run had": (
        {"external:theirs": frame(range(100))}, {}, "credible",
    ),
    "examples from elsewhere that nobody had": (
        {"external:theirs": frame(range(150))}, {}, "unreliable",
    ),
    "few examples from elsewhere": ({"external:theirs": frame(range(102))}, {}, "credible"),
    "softmax": (
        {"probe-behaviour": frame(**{**BEHAVIOUR, "probability_output": 1})}, {}, "credible",
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", TABLE)
def test_verdict(situation: str) -> None:
    """The rule of docs/verdict.md; at most three reasons, at least one, each a sentence."""
    cells, more, expected = TABLE[situation]
    this = case({**honest(), **cells}, **more)
    found = verdict(evidence_of(this), this)
    assert found.level == expected
    assert 1 <= len(found.reasons) <= 3
    assert all(reason.rstrip().endswith(".") for reason in found.reasons)
    assert found.to_json()["level"] == expected


#: Of two classes, whose chance is 100 of 200: changed cells, rounds of escalation, and the verdict.
FEW: dict[str, tuple[dict[Any, Any], tuple[int, ...], str]] = {
    "masked, and nothing stronger followed": (MASKED, (), "suspect"),
    "masked, still falling": (MASKED, (9, 2), "unreliable"),
    "masked, at the bottom": (MASKED, (9, 1), "broken"),
    "one soft test, and nothing stronger followed": (
        {"square": frame(range(110))}, (), "suspect",
    ),
    "one soft test, at the bottom": ({"square": frame(range(110))}, (1,), "broken"),
    "detached, and nothing stronger followed": (
        {"probe-gradients": frame(**DETACHED), "square": frame(range(110))}, (), "unreliable",
    ),
    "examples from elsewhere that nobody had": (
        {"external:theirs": frame(range(150))}, (), "unreliable",
    ),
    "nothing survives": ({"square": frame(range(N))}, (), "broken"),
    "nothing survives the last round": ({"square": frame(range(N))}, (9,), "broken"),
}  # fmt: skip


@pytest.mark.parametrize("situation", FEW)
def test_at_chance_of_few_classes_evidence_comes_first(situation: str) -> None:
    """`broken` once stronger attacks have found no more, with doubts beside it; never credible."""
    cells, rounds, expected = FEW[situation]
    this = case({**honest(), **cells}, rounds=rounds, classes=2)
    assert this.at_chance
    found = verdict(evidence_of(this), this)
    assert found.level == expected
    if expected == "broken":
        assert found.reasons[0].endswith("the claim is gone.")
    assert 1 <= len(found.reasons) <= 3
    assert verdict([], case(honest(), classes=2)).level == "broken"  # nothing asked for more


def test_rounds_count_at_their_own_epsilon() -> None:
    """What escalation broke at one is no word on another."""
    this = case({**honest(), **MASKED}, rounds=(9, 2))
    assert this.rounds == (9, 2)
    assert this.at_epsilon(Epsilon.parse("0.2")).rounds == ()
    assert this.at_epsilon(Epsilon.parse("1/10")).rounds == (9, 2)


def test_reasons_are_the_strongest_of_each_family() -> None:
    """In the words of a researcher."""
    this = case({**honest(), **MASKED})
    found = verdict(evidence_of(this), this)
    assert found.families == ("comparisons", "gradients", "optimisation")
    assert any(
        "Finite differences broke 20 examples that no attack on the model's own gradient could"
        in reason for reason in found.reasons
    )  # fmt: skip


def test_marks() -> None:
    """Gradient attacks are misled where others broke what they left; on honest models none is."""
    this = case({**honest(), **MASKED}, failures=[("ead", "0.1", "raised")])
    marks = attack_marks(this, evidence_of(this))
    assert {marks[name] for name in ("pgd", "apgd-ce", "apgd-t", "margin-pgd")} == {"misled"}
    assert (marks["fd-pgd"], marks["square"], marks["ead"]) == ("credible", "credible", "failed")
    assert "clean" not in marks
    assert "probe-gradients" not in marks
    calm = case(honest())
    assert set(attack_marks(calm, evidence_of(calm)).values()) == {"credible"}


def test_attacks_on_a_flat_loss_are_marked_failed() -> None:
    """Large logits: those on the cross-entropy alone. A flat margin: all that follow gradients."""
    this = case({**honest(), **TABLE["large logits"][0]})
    marks = attack_marks(this, evidence_of(this))
    assert (marks["apgd-ce"], marks["pgd"], marks["fgsm"]) == ("failed",) * 3
    assert (marks["apgd-t"], marks["margin-pgd"]) == ("credible",) * 2
    flat = case({**honest(), "probe-gradients": frame(**FLAT)})
    marks = attack_marks(flat, evidence_of(flat))
    assert (marks["apgd-t"], marks["square"]) == ("failed", "credible")


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


def test_worst_case_credits_smaller_norms() -> None:
    """Found at 0.05 it is broken at 0.1; found at 0.5 it is not; probes break nothing."""
    this = case({
        ("apgd-ce", "0.05"): frame([1], distance=0.05),
        ("margin-pgd", "0.5"): frame([2], distance=0.5),
        "probe-behaviour": frame([3], distance=0.0),
        "clean": frame(),
    })  # fmt: skip
    assert this.broken_at(this.headline) == {1}


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("pgd[steps=80]", "gradient"), ("fmn", "gradient"), ("margin-pgd", "gradient"),
        ("fd-pgd", "scores"), ("square", "scores"), ("hop-skip-jump", "scores"),
        ("uniform-noise", "noise"), ("averaged-pgd", "smoothed"), ("surrogate", "surrogate"),
        ("transfer", "transfer"), ("autoattack", "mixed"), ("probe-gradients", "probe"),
        ("unheard-of", "mixed"),
    ],
)  # fmt: skip
def test_what_attacks_go_by(attack: str, expected: str) -> None:
    """Only attacks on the model's own gradient are the union that others are measured by."""
    assert case(attacks=declared([attack])).approach(attack) == expected


def failing(family: str, excess: float, *, final: bool = False, item: str = "") -> Evidence:
    """A failure that is so many times its threshold, and can be repeated where it is not final."""
    check = Check(item or f"{family}-{excess:g}", family, "A title", "A source")
    limit = 4
    found = check.counted(range(int(limit * excess)), N, "Words.", threshold=limit)
    again = () if final else (asked(f"{family}-{excess:g}", "0.1", 1),)
    return dataclasses.replace(found, recheck=again)


def next_ones(*evidence: Evidence, known: Sequence[str] = ()) -> list[str]:
    """The attacks of what is repeated next."""
    return [c.attack for c in pending(evidence, {asked(name, "0.1", 1) for name in known})]


def test_the_strongest_families_are_repeated_until_the_verdict_is_settled() -> None:
    """Two families set it: once both are final, what is left would change nothing."""
    a, b, c = failing("a", 2), failing("b", 9), failing("c", 5)
    weaker = failing("b", 8)
    assert next_ones(a, b, c, weaker) == ["b-9", "c-5"]
    settled = failing("b", 9, final=True)
    assert next_ones(a, settled, weaker, c) == ["c-5"]
    assert next_ones(a, settled, failing("c", 5, final=True), weaker) == []
    assert next_ones(a) == ["a-2"]


def test_what_cannot_be_repeated_leaves_its_place_to_the_next() -> None:
    """A cell that ran or failed is asked for once; the next strongest of its family follows."""
    evidence = failing("b", 9), failing("b", 8), failing("a", 2)
    assert next_ones(*evidence, known=["b-9"]) == ["b-8", "a-2"]
    assert next_ones(*evidence, known=["b-9", "b-8", "a-2"]) == []


def test_randomness_settles_nothing() -> None:
    """That a model is random is put aside where it was attacked over its draws."""
    random = failing("answers", 50, final=True, item="randomised")
    fault = failing("output", 1, final=True)
    assert next_ones(random, failing("a", 2), failing("b", 1)) == ["a-2", "b-1"]
    assert next_ones(fault, failing("a", 2), failing("b", 1)) == ["a-2"]


def test_what_was_seen_with_one_seed_says_so() -> None:
    """Every failure that can be repeated and was not, in its own words."""
    counting = [i for i in evidence_of(case({**honest(), **MASKED})) if i.counts]
    once = [item for item in counting if item.recheck]
    assert once
    assert [i for i in counting if i.sentence.endswith("Seen with one seed.")] == once
