"""What probes measured and what descents told of their path, as tests of the defense.

Indicators of attack failure (Pintor et al., NeurIPS 2022) are read on the logit margin, because
with the cross-entropy an honest model with large logits looks masked. Thresholds were set between
what 18 honest and 16 k-WTA models on digits showed. What a measurement is called is the name of its
column (`Attack.traces`): whichever attack declares it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.trust.case import attacked, hits, marked, values, where
from bench.trust.columns import Probed, Traced, marks, tolerance, tolerance_of_all, traced
from bench.trust.evidence import Check, allowed
from bench.trust.planted import planted_examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.record.results import Table
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

GRADIENTS, OPTIMISATION, BOUNDS = "gradients", "optimisation", "bounds"
ANSWERS, OUTPUT = "answers", "output"
PINTOR = "Pintor et al., Indicators of Attack Failure (NeurIPS 2022)"
ATHALYE = "Athalye et al., Obfuscated Gradients (ICML 2018)"
AUTOATTACK = "AutoAttack's check (Croce and Hein, ICML 2020)"
CARLINI = "Carlini et al., On Evaluating Adversarial Robustness (2019)"
#: Correlation below which a gradient does not tell how the model changes. Lowest of 1,196 examples
#: of 18 honest models on digits, MNIST and CIFAR-10: 0.71; below it 49 to 100 % of the examples of
#: each of nine of k-WTA.
FAITHFUL = 0.5
#: Mean relative change of the margin within 0.01, slopes left out. Largest of 223 examples of three
#: honest models: 0.007; above it 6 and 9 % of the examples of two of k-WTA.
STABLE = 0.1
#: Mean share of small steps on which the margin grew: at most 0.02 on honest models at up to 0.35,
#: k-WTA 0.28 and more, a gradient of the opposite sign 0.13, one of noise 0.25.
WORSENED = 0.1
#: Jump of the margin where the class changes, in parts of its size. Largest of some 120 borders of
#: each of ten honest models on digits: 2e-5; above it 86 and 89 % of those of two of k-WTA. And at
#: the input itself: largest of 1,754 examples of 21 honest models on digits, MNIST and CIFAR-10:
#: 0.004; above it 44 of 48 of one that answers images of the data's levels by another network.
JUMP = 0.02
#: What AutoAttack's own checks may say (`bench.api.Flag`).
FLAGS = (
    "autoattack-randomised",
    "autoattack-probabilities",
    "autoattack-zero-gradient",
    "autoattack-square",
    "autoattack-dynamic",
)


def measurements(case: Case) -> list[Evidence]:
    """Every test on what was measured: of gradients, of paths, of answers."""
    return [
        *(test(case) for test in (*INDICATORS, *BEHAVIOUR)),
        *autoattack_flags(case),
    ]


def _unfaithful(table: Table) -> set[int]:
    low = ~(table["extra_fidelity"] >= FAITHFUL)  # NaN: constant, in spite of a gradient
    return where(table, table["attacked"] & low) - marks("unmeasured", "no_gradient")(table)


def _unstable(table: Table) -> set[int]:
    return where(table, table["attacked"] & (table["extra_unstable"] > STABLE))


def _jumps(table: Table) -> set[int]:
    return where(table, table["attacked"] & (table["extra_border_jump"] > JUMP))


def _input_jumps(table: Table) -> set[int]:
    return where(table, table["attacked"] & (table["extra_input_jump"] > JUMP))


_random = marks("logits_differ_repeat", "prediction_flips_repeat")


def cross_entropy_zero_gradient(case: Case) -> Evidence:
    """The gradient of the cross-entropy is not exactly zero where that of the margin is not."""
    check = Check(
        "cross-entropy-zero-gradient",
        GRADIENTS,
        "The cross-entropy has a gradient that is not zero",
        AUTOATTACK,
        "context",
    )
    measured = case.measured("zero_ce_gradient")
    if measured is None:
        return check.not_run(f"nothing measured it at epsilon {case.headline}")
    found = case.flat_cross_entropy
    words = (
        f"The cross-entropy has no gradient on {len(found)} examples although the margin has: "
        "attacks on it fail, and the defense is not to blame."
    )
    return check.counted(found, len(attacked(measured[1])), words)


def loss_worsens(case: Case) -> Evidence:
    """Steps along the gradient lower the loss."""
    check = Check("loss-worsens", OPTIMISATION, "The loss improves along an attack", ATHALYE)
    told = traced(case, "worsened")
    if not told:
        return check.not_run(f"no trace of a path was left at epsilon {case.headline}")
    paths = [table for _, table in sorted(told.items()) if values(table, "worsened").size]
    if not paths:
        return check.not_run("no example was attacked")
    path = max(paths, key=lambda table: float(values(table, "worsened").mean()))
    shares = values(path, "worsened")
    mean, worse = float(shares.mean()), marked(path, "worsened", above=WORSENED)
    words = f"{mean:.0%} of the small steps along the gradient made the attack's loss worse."
    return check.rate(mean, WORSENED, len(shares), words, worse)


def transfer_failure(case: Case) -> Evidence:
    """Adversarial examples of the source also fool this defense; mostly they need not."""
    check = Check(
        "transfer-failure", "comparisons", "Adversarial examples transfer", PINTOR, "context"
    )
    for _, table in sorted(case.at(case.headline, approaches=["transfer"]).items()):
        if "extra_source_broken" in table:
            found = marked(table, "source_broken") - hits(table)
            words = f"{len(found)} adversarial examples of the source do not fool this defense."
            return check.counted(found, len(attacked(table)), words)
    return check.not_run("no transfer attack said what it broke on its source")


def unconstrained_attack_failure(case: Case) -> Evidence:
    """Descent on the margin breaks everything when nothing binds it."""
    check = Check(
        "unconstrained-attack-failure",
        BOUNDS,
        "Descent on the margin succeeds without a constraint",
        PINTOR,
    )
    whole = case.unbounded
    cells = {} if whole is None else case.at(whole, approaches=["gradient"])
    free = [attack for attack in sorted(cells) if case.declared(attack).traces]
    if not free:
        return check.not_run("no descent that tells of its path ran with the whole box to move in")
    table = cells[free[0]]
    left = attacked(table) - hits(table)
    words = (
        f"{case.spoken(free[0])}, free to move in the whole box, failed on {len(left)} examples."
    )
    return check.counted(left, len(attacked(table)), words)


def batch_dependence(case: Case) -> Evidence:
    """The class does not depend on the inputs beside it."""
    check = Check(
        "batch-dependence", ANSWERS, "An answer does not depend on its batch", CARLINI,
        "deterministic",
    )  # fmt: skip
    measured = case.measured("prediction_differs_alone")
    if measured is None:
        return check.not_run(f"nothing measured it at epsilon {case.headline}")
    _, table = measured
    n = len(attacked(table))
    if len(_random(table)) >= allowed(n):
        return check.not_run("the model answers differently in the same batch already")
    other = marks("prediction_differs_alone", "prediction_differs_shuffled")(table)
    words = f"{len(other)} inputs get another class beside other inputs."
    return check.counted(other - _random(table), n, words)


def nan_logits(case: Case) -> Evidence:
    """Logits are finite in the box, near the data and wherever attacks went."""
    check = Check("nan-logits", OUTPUT, "Logits are finite", "Winnow", "deterministic")
    failed = sorted({cell.label for cell in case.failures if cell.cause == "not-finite"})
    measured = case.measured("nonfinite_near")
    if measured is None and not failed:
        return check.not_run(f"nothing measured it at epsilon {case.headline}")
    found, n = set(), case.n
    if measured is not None:
        found = marks("nonfinite_near", "unmeasured")(measured[1])
        n = len(attacked(measured[1]))
    stopped = f" It stopped {', '.join(failed)}." if failed else ""
    where = f"near {len(found)} examples" if found or not failed else "where attacks went"
    words = f"The model answers NaN or infinity {where}.{stopped}"
    return check.counted(found, n, words, threshold=0 if failed else 1)


def failed_attacks(case: Case) -> Evidence:
    """Attacks that failed at the headline epsilon; without any gradient attack it is a fault."""
    here = [cell for cell in case.failures if cell.epsilon == case.headline.text]
    tried = [cell for cell in here if case.approach(cell.attack) == "gradient"]
    left = case.at(case.headline, approaches=["gradient"])
    check = Check(
        "failed-attacks", OUTPUT, "Attacks ran to their end", "Winnow",
        "deterministic" if tried and not left else "context",
    )  # fmt: skip
    names = sorted({cell.label for cell in here})
    return check.counted((), case.n, f"Failed: {', '.join(names)}.", threshold=0 if here else 1)


def autoattack_flags(case: Case) -> list[Evidence]:
    """What AutoAttack's own checks said, as context: other tests measure the same apart."""
    finished = [result for result in case.results if result.finished]
    said = sorted((result.cell.label, flag) for result in finished for flag in result.flags)
    items = []
    for identifier in FLAGS:
        names = sorted({attack for attack, flag in said if flag.id == identifier})
        if names:
            check = Check(identifier, OUTPUT, "AutoAttack raised a flag", AUTOATTACK, "context")
            text = next(flag.sentence for _, flag in said if flag.id == identifier)
            text = text.removeprefix("AutoAttack: ")
            words = f"AutoAttack ({', '.join(names)}): {text}."
            items.append(check.counted((), case.n, words, threshold=0))
    return items


INDICATORS: tuple[Callable[[Case], Evidence], ...] = (
    Probed(
        Check("gradient-fidelity", GRADIENTS, "Gradients predict how the model changes", "Winnow"),
        "fidelity",
        "On {} examples the gradient does not tell how the model changes (correlation below "
        f"{FAITHFUL:g}): gradients mislead.",
        _unfaithful,
    ),
    Probed(
        Check(
            "unavailable-gradients", GRADIENTS, "Gradients are available", PINTOR, "deterministic"
        ),
        "no_gradient",
        "{} examples have no gradient: gradient attacks cannot run.",
        marks("no_gradient"),
    ),
    Probed(
        Check(
            "zero-margin-gradient",
            GRADIENTS,
            "The margin has a gradient that is not zero",
            ATHALYE,
            "deterministic",
        ),
        "zero_margin_gradient",
        "The gradient of the margin is exactly zero on {} examples: gradient attacks stand still.",
        marks("zero_margin_gradient"),
    ),
    cross_entropy_zero_gradient,
    Probed(
        Check("unstable-predictions", GRADIENTS, "The margin is stable close to the input", PINTOR),
        "unstable",
        f"Noise of 0.01 bends the margin of {{}} examples by more than {STABLE:.0%}: "
        "the loss is too rough to descend.",
        _unstable,
    ),
    Traced(
        Check("silent-success", OPTIMISATION, "Attacks end where they succeed", PINTOR),
        "silent_success",
        "{attack} passed an adversarial example and lost it again on {} examples.",
    ),
    Traced(
        Check("incomplete-optimisation", OPTIMISATION, "Attacks have converged", PINTOR),
        "incomplete",
        "{attack} was still improving when it ended without success on {} examples.",
        failures=True,
    ),
    loss_worsens,
    transfer_failure,
    unconstrained_attack_failure,
    planted_examples,
)
BEHAVIOUR: tuple[Callable[[Case], Evidence], ...] = (
    Probed(
        Check("prediction-stability", ANSWERS, "One input has one class", CARLINI),
        "prediction_flips_repeat",
        "{} inputs get another class when they are asked about again or in another batch.",
        marks("prediction_flips_repeat", "prediction_differs_alone", "prediction_differs_shuffled"),
    ),
    Probed(
        Check("randomised", ANSWERS, "The model is not randomised", AUTOATTACK),
        "logits_differ_repeat",
        "The model answers {} inputs differently when it is asked again: it is randomised.",
        _random,
    ),
    batch_dependence,
    Probed(
        Check(
            "call-order-dependence",
            ANSWERS,
            "An answer does not depend on earlier calls",
            CARLINI,
            "deterministic",
        ),
        "state_differs",
        "{} inputs get other logits after other calls, random seeds alike: the model keeps a "
        "state, or draws from a generator of its own.",
        marks("state_differs"),
        tolerance,
    ),
    Probed(
        Check(
            "optimiser-in-forward",
            ANSWERS,
            "The forward pass does not optimise",
            AUTOATTACK,
            "deterministic",
        ),
        "optimises_in_forward",
        "The model computes gradients inside its forward pass: attacks do not see through what it "
        "optimises.",
        marks("optimises_in_forward"),
    ),
    Probed(
        Check("jump-at-input", ANSWERS, "An input is answered as what lies beside it", "Winnow"),
        "input_jump",
        f"The margin of {{}} examples is another one beside them, within one level of 8 bits, by "
        f"more than {JUMP:.0%}: attacks search on another model than the one that was right.",
        _input_jumps,
        unmeasured="no example is right",
    ),
    nan_logits,
    Probed(
        Check("jump-at-border", OUTPUT, "The margin is 0 where the class changes", "Winnow"),
        "border_jump",
        f"The margin of {{}} examples jumps by more than {JUMP:.0%} where the class changes, on "
        "the way to other examples: what attacks follow does not lead there.",
        _jumps,
        unmeasured="no example has a border on its way to another",
    ),
    Probed(
        Check("softmax-output", OUTPUT, "The output is logits", AUTOATTACK, "context"),
        "probability_output",
        "The outputs of {} examples look like probabilities instead of logits.",
        marks("probability_output"),
        tolerance_of_all,
    ),
    Probed(
        Check("one-hot-output", OUTPUT, "The output says more than the class", "Winnow", "context"),
        "one_hot_output",
        "The model answers {} examples with its decision alone: there is no score to follow.",
        marks("one_hot_output"),
        tolerance_of_all,
    ),
    failed_attacks,
)
