"""Sanity tests: what has to hold of any evaluation whose attacks worked.

Carlini et al., "On Evaluating Adversarial Robustness" (2019); Athalye et al., "Obfuscated
Gradients Give a False Sense of Security" (ICML 2018). Each test is held to the tolerance of
`Check.recurring`.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from bench.record.schema import CLEAN
from bench.threat import Epsilon, Norm
from bench.trust.case import attacked, hits, where
from bench.trust.comparisons import (
    CARLINI,
    FLAT,
    again,
    beyond_white_box,
    broken_by,
    differs,
    finder,
    flat,
    of_approach,
    strong,
    white_box,
)
from bench.trust.evidence import Check, allowed, asked

if TYPE_CHECKING:
    from bench.api.attacks import Approach
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

COMPARISONS, OPTIMISATION, BOUNDS = "comparisons", "optimisation", "bounds"
ATHALYE = "Athalye et al., Obfuscated Gradients (ICML 2018)"
#: (identifier, title, what the challengers go by, what is missing without them)
CHALLENGES: tuple[tuple[str, str, tuple[Approach, ...], str], ...] = (
    ("black-box-beyond-white-box", "Black-box attacks break", ("scores",), "black-box"),
    ("transfer-beyond-white-box", "Transfer breaks", ("transfer",), "transfer"),
    ("surrogate-beyond-own-gradient", "Surrogate gradients break", ("surrogate", "smoothed"),
     "surrogate"),
)  # fmt: skip


def sanity(case: Case) -> list[Evidence]:
    """Every sanity test."""
    return [
        epsilon_zero(case),
        unbounded_attack(case),
        half_box(case),
        iterative_below_single_step(case),
        *challenges(case),
        more_breaks_more(case, "steps"),
        more_breaks_more(case, "restarts"),
        curve_rises(case),
        noise_beyond_single_step(case),
    ]


def challenges(case: Case) -> list[Evidence]:
    """What others broke beyond attacks on the model's own gradient: a kind of attack, a challenge.

    A challenge is what an attack declares that wants a test of its own.
    """

    def found(identifier: str, title: str, challengers: list[str], what: str) -> Evidence:
        check = Check(identifier, COMPARISONS, title, CARLINI)
        return beyond_white_box(case, check, challengers, what)

    items = [
        found(
            identifier,
            f"{title} no more than white-box attacks",
            of_approach(case, *ways),
            f"{what} attack",
        )
        for identifier, title, ways, what in CHALLENGES
    ]
    declared = defaultdict(list)
    for attack, record in sorted(case.attacks.items()):
        if record.challenge:
            declared[record.challenge].append(attack)
    for challenge, attacks in sorted(declared.items()):
        identifier, spoken = f"{challenge}-beyond-white-box", case.spoken(attacks[0])
        here = [attack for attack in attacks if case.here(attack) is not None]
        title = f"{spoken}: nothing beyond white-box attacks"
        items.append(found(identifier, title, here, f"attack that goes as {spoken!r}"))
    return items


def epsilon_zero(case: Case) -> Evidence:
    """Asked again, the model is right on every input that it was right on: epsilon 0 is clean."""
    check = Check("epsilon-zero", "answers", "Epsilon 0 gives the clean accuracy", CARLINI)
    probes = [
        place
        for place in case.tables
        if place.attack != CLEAN and case.approach(place.attack) == "probe" and not place.repeat
    ]
    column = f"distance_{case.norm.value.lower()}"
    found: set[int] = set()
    for table in case.tables.values():
        at_zero = table["attacked"] & table["broken"] & (table[column] == 0)
        found |= where(table, at_zero)
    if not probes and not found:
        return check.not_run("no probe asked about the inputs again")
    return check.counted(
        found,
        case.n,
        f"{len(found)} inputs that the model got right it got wrong when asked again.",
    )


def unbounded_attack(case: Case) -> Evidence:
    """With the whole box to move in, attacks break everything."""
    check = Check("unbounded-attack", BOUNDS, "An unbounded attack breaks everything", ATHALYE)
    whole = case.unbounded
    cells = {} if whole is None else case.at(whole, approaches=["gradient", "scores"])
    if whole is None or not cells:
        return check.not_run("no attack ran with the whole box to move in")
    return _survivors(case, check, whole, 0, "survive an attack with the whole box to move in")


def half_box(case: Case) -> Evidence:
    """At Linf 0.5 every image can be made grey, and a model can only guess."""
    check = Check("half-box", BOUNDS, "Linf 0.5 leaves no more than chance", CARLINI)
    half = Epsilon.parse("0.5")
    if case.norm is not Norm.LINF:
        return check.not_run(f"it is about Linf (the run is in {case.norm})")
    if not case.at(half, approaches=["gradient", "scores"]):
        return check.not_run("no attack ran at Linf 0.5")
    guessed = case.n // case.classes
    return _survivors(case, check, half, guessed, "survive at Linf 0.5, where one can only guess")


def _survivors(case: Case, check: Check, epsilon: Epsilon, spare: int, words: str) -> Evidence:
    """Examples that nothing broke at an epsilon, beyond a number that may survive."""
    cells = case.at(epsilon, approaches=["gradient", "scores"])
    if flat(case, cells):
        return check.not_run(FLAT)

    def find(repeat: int) -> set[int] | None:
        fresh = case.at(epsilon, repeat, approaches=["gradient", "scores"])
        if not fresh:
            return None
        tables = cells | fresh  # of those that were not repeated, what the run's own seed found
        broken = set.union(*map(hits, tables.values()))
        return set.union(*map(attacked, tables.values())) - broken

    return check.recurring(
        find,
        case.n,
        lambda count: f"{count} examples {words}: the attack fails to optimise.",
        [
            asked(place.attack, place.epsilon, 1)
            for place in sorted(case.tables)
            if place.attack in cells
            and differs(case, place.attack)
            and not place.repeat
            and Epsilon.parse(place.epsilon) == epsilon
        ],
        spare=spare,
    )


def iterative_below_single_step(case: Case) -> Evidence:
    """Iterative attacks break at least what one step breaks."""
    check = Check(
        "iterative-below-single-step",
        COMPARISONS,
        "Iterative attacks are at least as strong as a single step",
        ATHALYE,
    )
    union = white_box(case)
    single = _single_steps(case)
    iterative = [attack for attack in union if attack not in single]
    if not single or not iterative:
        return check.not_run(
            f"it needs a single-step and an iterative attack at epsilon {case.headline}"
        )
    if flat(case, iterative):
        return check.not_run(FLAT)
    find = finder(
        case,
        lambda _: broken_by(case, single),
        lambda repeat: broken_by(case, iterative, repeat),
        iterative,
    )
    return check.recurring(
        find,
        case.n,
        lambda count: (
            f"One gradient step broke {count} examples that iterative attacks could not: "
            "they fail to optimise."
        ),
        again(case, iterative),
    )


def more_breaks_more(case: Case, key: str) -> Evidence:
    """Twice the steps or restarts of a gradient attack break no more than all such attacks did.

    Against the attack alone it would blame honest models: at a large epsilon, PGD of 40 steps on
    an adversarially trained network leaves 6 of 100 that 80 steps break, and APGD all of them.
    """
    check = Check(
        f"more-{key}-break-more", OPTIMISATION, f"More {key} break no more examples", CARLINI
    )
    counted = {
        attack: case.declared(attack)
        for attack in white_box(case)
        if isinstance(case.declared(attack).parameters.get(key), int)
    }
    pairs = []
    for two in combinations(counted, 2):
        few, many = sorted(two, key=lambda attack: counted[attack].parameters[key])
        alike = [
            (record.name, {k: v for k, v in record.parameters.items() if k != key})
            for record in (counted[few], counted[many])
        ]
        if alike[0] == alike[1]:
            pairs.append((few, many))
    usable = [pair for pair in pairs if not flat(case, pair)]
    if not usable:
        why = f"no gradient attack ran with two numbers of {key}"
        return check.not_run(FLAT if pairs else why)
    challengers = {more for _, more in usable}
    others = [attack for attack in white_box(case) if attack not in challengers]
    known = broken_by(case, others)
    pair = max(usable, key=lambda p: len(broken_by(case, [p[1]]) - known))
    _, more = pair
    fresh = [*pair, *(attack for attack in strong(case, others) if attack not in pair)]
    find = finder(
        case,
        lambda repeat: broken_by(case, [more], repeat),
        lambda repeat: broken_by(case, others, repeat),
        fresh,
    )
    values = [case.declared(attack).parameters[key] for attack in pair]
    return check.recurring(
        find,
        case.n,
        lambda count: (
            f"{case.spoken(more)} with {values[1]} {key} broke {count} examples that neither it "
            f"with {values[0]} nor another gradient attack could: they have not converged."
        ),
        again(case, fresh),
    )


def curve_rises(case: Case) -> Evidence:
    """No attack breaks fewer examples at a larger epsilon; a single step may, by overshooting."""
    check = Check("curve-rises", BOUNDS, "Robust accuracy falls as epsilon grows", CARLINI)
    cells: dict[str, dict[Epsilon, str]] = defaultdict(dict)
    for place, table in case.tables.items():
        attack = place.attack
        if place.repeat or case.approach(attack) in ("probe", "mixed", "imported"):
            continue
        single = case.declared(attack).strength == "single-step"
        if case.whole(table) and not single and not flat(case, [attack]):
            cells[attack][Epsilon.parse(place.epsilon)] = place.epsilon
    worst: tuple[int, str, tuple[str, str]] | None = None
    for attack, curve in sorted(cells.items()):
        for small, large in combinations(sorted(curve, key=float), 2):
            ends = curve[small], curve[large]
            fewer = _lost(case, attack, ends)
            if worst is None or fewer > worst[0]:
                worst = fewer, attack, ends
    if worst is None:
        return check.not_run("no attack ran on all examples at two epsilons")
    _, attack, ends = worst

    def find(repeat: int) -> set[int] | None:
        small, large = (_hits(case, attack, end, repeat) for end in ends)
        if small is None or large is None:
            return None
        return small - large if len(small) - len(large) >= allowed(case.n) else set()

    return check.recurring(
        find,
        case.n,
        lambda count: (
            f"{case.spoken(attack)} broke {count} examples at {ends[0]} that it could not break at "
            f"{ends[1]}, and fewer in all: it fails to optimise."
        ),
        [asked(attack, end, 1) for end in ends if differs(case, attack)],
    )


def _lost(case: Case, attack: str, ends: tuple[str, str]) -> int:
    """How many examples fewer an attack broke at the second epsilon than at the first."""
    small, large = (_hits(case, attack, end) or set() for end in ends)
    return len(small) - len(large)


def _hits(case: Case, attack: str, epsilon: str, repeat: int = 0) -> set[int] | None:
    table = case.table(attack, epsilon, repeat)
    return None if table is None else hits(table)


def _single_steps(case: Case) -> list[str]:
    """The gradient attacks of one step that have outcomes at the headline epsilon."""
    union = white_box(case)
    return [attack for attack in union if case.declared(attack).strength == "single-step"]


def noise_beyond_single_step(case: Case) -> Evidence:
    """Random noise breaks nothing that a gradient step of the same size does not."""
    check = Check(
        "noise-beyond-single-step",
        COMPARISONS,
        "Random noise is no stronger than a single gradient step",
        ATHALYE,
    )
    noise = of_approach(case, "noise")
    single = _single_steps(case)
    if not noise or not single:
        return check.not_run(f"it needs noise and a single-step attack at epsilon {case.headline}")
    if flat(case, single):
        return check.not_run(FLAT)
    find = finder(
        case,
        lambda repeat: broken_by(case, noise, repeat),
        lambda _: broken_by(case, single),
        noise,
    )
    return check.recurring(
        find,
        case.n,
        lambda count: (
            f"Random noise broke {count} examples that a gradient step could not: "
            "the gradient does not point uphill."
        ),
        again(case, noise),
    )
