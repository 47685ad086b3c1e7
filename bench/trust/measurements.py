"""Indicators of attack failure on the logit margin, and what gradients and outputs say.

Pintor et al., "Indicators of Attack Failure" (NeurIPS 2022). They are read on the margin, because
with the cross-entropy an honest model with large logits looks masked. Thresholds were set between
what 18 honest and 16 k-WTA models on digits showed.

How a defense answers: alike to the same input, whatever else it was asked, and with logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.trust.case import approach, attacked, bare, hits, marked
from bench.trust.comparisons import again
from bench.trust.evidence import Check, allowed

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from bench.trust.case import Case
    from bench.trust.evidence import Evidence


GRADIENTS, OPTIMISATION, BOUNDS = "gradients", "optimisation", "bounds"


PINTOR = "Pintor et al., Indicators of Attack Failure (NeurIPS 2022)"


ATHALYE = "Athalye et al., Obfuscated Gradients (ICML 2018)"


AUTOATTACK = "AutoAttack's check (Croce and Hein, ICML 2020)"


#: Correlation below which a gradient does not tell how the model changes. Lowest of 396 examples
#: of two honest models: 0.80; below it 78 and 90 % of the examples of two of k-WTA.
FAITHFUL = 0.5


#: Mean relative change of the margin within 0.01. Largest of those 396: 0.095; above it 8 % of the
#: examples of k-WTA.
STABLE = 0.1


#: Mean share of steps on which the margin grew: honest at most 0.0001, k-WTA 0.28 and
#: more (steps that fall to 0; with steps of one size 0.05 and 0.39).
WORSENED = 0.1


TRACED = "margin-pgd"


def indicators(case: Case) -> list[Evidence]:
    """Every indicator."""
    return [
        gradient_fidelity(case),
        unavailable_gradients(case),
        zero_margin_gradient(case),
        cross_entropy_zero_gradient(case),
        unstable_predictions(case),
        silent_success(case),
        incomplete_optimisation(case),
        loss_worsens(case),
        transfer_failure(case),
        unconstrained_attack_failure(case),
    ]


def probed(
    case: Case, check: Check, probe: str, find: Callable[[pd.DataFrame], set[int]], words: str
) -> Evidence:
    """A soft test on the column of a probe; `{}` in `words` is the count."""
    frame = case.probe(probe)
    if frame is None:
        return check.not_run(f"{probe} did not run at epsilon {case.headline}")
    if not attacked(frame):
        return check.not_run("no example was attacked")
    names = [a for a, e, r in case.cells if bare(a) == probe and e == case.headline.text and r == 0]

    def at(repeat: int) -> set[int] | None:
        repeated = case.probe(probe, repeat)
        return None if repeated is None else find(repeated)

    return check.recurring(
        at, len(attacked(frame)), lambda count: words.format(count), again(case, names)
    )


def certain(
    case: Case, check: Check, probe: str, column: str, words: str, *, threshold: int = 1
) -> Evidence:
    """A deterministic fault in the column of a probe."""
    frame = case.probe(probe)
    if frame is None:
        return check.not_run(f"{probe} did not run at epsilon {case.headline}")
    found = marked(frame, column)
    return check.counted(found, len(attacked(frame)), words.format(len(found)), threshold=threshold)


def gradient_fidelity(case: Case) -> Evidence:
    """The gradient tells how the margin changes along random directions."""
    check = Check(
        "gradient-fidelity", GRADIENTS, "Gradients predict how the model changes", "Winnow"
    )

    def unfaithful(frame: pd.DataFrame) -> set[int]:
        low = ~(frame["extra_fidelity"] >= FAITHFUL)  # NaN: constant, in spite of a gradient
        unknown = marked(frame, "unmeasured") | marked(frame, "no_gradient")
        return set(frame.loc[frame["attacked"] & low, "index"].tolist()) - unknown

    return probed(
        case,
        check,
        "probe-gradients",
        unfaithful,
        "On {} examples the gradient does not tell how the model changes (correlation below "
        f"{FAITHFUL:g}): gradients mislead.",
    )


def unavailable_gradients(case: Case) -> Evidence:
    """A gradient can be computed and is finite."""
    check = Check(
        "unavailable-gradients", GRADIENTS, "Gradients are available", PINTOR, "deterministic"
    )
    return certain(
        case,
        check,
        "probe-gradients",
        "no_gradient",
        "{} examples have no gradient: gradient attacks cannot run.",
    )


def zero_margin_gradient(case: Case) -> Evidence:
    """The gradient of the margin is not exactly zero."""
    check = Check(
        "zero-margin-gradient",
        GRADIENTS,
        "The margin has a gradient that is not zero",
        ATHALYE,
        "deterministic",
    )
    return certain(
        case,
        check,
        "probe-gradients",
        "zero_margin_gradient",
        "The gradient of the margin is exactly zero on {} examples: gradient attacks stand still.",
    )


def cross_entropy_zero_gradient(case: Case) -> Evidence:
    """The gradient of the cross-entropy is not exactly zero where that of the margin is not."""
    check = Check(
        "cross-entropy-zero-gradient",
        GRADIENTS,
        "The cross-entropy has a gradient that is not zero",
        AUTOATTACK,
        "context",
    )
    frame = case.probe("probe-gradients")
    if frame is None:
        return check.not_run(f"probe-gradients did not run at epsilon {case.headline}")
    found = case.flat_cross_entropy
    words = (
        f"The cross-entropy has no gradient on {len(found)} examples although the margin has: "
        "attacks on it fail, and the defense is not to blame."
    )
    return check.counted(found, len(attacked(frame)), words)


def unstable_predictions(case: Case) -> Evidence:
    """Close to an input the margin changes little."""
    check = Check(
        "unstable-predictions", GRADIENTS, "The margin is stable close to the input", PINTOR
    )
    return probed(
        case,
        check,
        "probe-behaviour",
        lambda frame: set(
            frame.loc[frame["attacked"] & (frame["extra_unstable"] > STABLE), "index"].tolist()
        ),
        f"Noise of 0.01 changes the margin of {{}} examples by more than {STABLE:.0%}: "
        "the loss is too rough to descend.",
    )


def _trace(case: Case, column: str, repeat: int = 0) -> tuple[str, pd.DataFrame] | None:
    """The cell of an attack on the margin that kept a trace of its path."""
    for attack, frame in sorted(case.at(case.headline, repeat).items()):
        if bare(attack) == TRACED and f"extra_{column}" in frame:
            return attack, frame
    return None


def _traced(
    case: Case, check: Check, column: str, words: str, *, failures: bool = False
) -> Evidence:
    found = _trace(case, column)
    if found is None:
        return check.not_run(f"no {TRACED} with a trace ran at epsilon {case.headline}")

    def find(repeat: int) -> set[int] | None:
        traced = _trace(case, column, repeat)
        if traced is None:
            return None
        return marked(traced[1], column) - (hits(traced[1]) if failures else set())

    attack, frame = found
    return check.recurring(
        find,
        len(attacked(frame)),
        lambda count: words.format(count),
        again(case, [attack]),
    )


def silent_success(case: Case) -> Evidence:
    """The end of the path is adversarial where some iterate was."""
    check = Check("silent-success", OPTIMISATION, "Attacks end where they succeed", PINTOR)
    words = "PGD on the margin passed an adversarial example and lost it again on {} examples."
    return _traced(case, check, "silent_success", words)


def incomplete_optimisation(case: Case) -> Evidence:
    """The margin does not fall any more at the end of a path that did not succeed."""
    check = Check("incomplete-optimisation", OPTIMISATION, "Attacks have converged", PINTOR)
    words = "PGD on the margin was still improving when it ended without success on {} examples."
    return _traced(case, check, "incomplete", words, failures=True)


def loss_worsens(case: Case) -> Evidence:
    """Steps along the gradient lower the margin."""
    check = Check("loss-worsens", OPTIMISATION, "The loss improves along an attack", ATHALYE)
    found = _trace(case, "worsened")
    if found is None:
        return check.not_run(f"no {TRACED} with a trace ran at epsilon {case.headline}")
    frame = found[1]
    share = frame.loc[frame["attacked"], ["index", "extra_worsened"]].dropna()
    if share.empty:
        return check.not_run("no example was attacked")
    mean = float(share["extra_worsened"].mean())
    worse = share.loc[share["extra_worsened"] > WORSENED, "index"].tolist()
    words = f"{mean:.0%} of the steps along the gradient made the attack's loss worse."
    return check.rate(mean, WORSENED, len(share), words, worse)


def transfer_failure(case: Case) -> Evidence:
    """Adversarial examples of the source also fool this defense; mostly they need not."""
    check = Check(
        "transfer-failure", "comparisons", "Adversarial examples transfer", PINTOR, "context"
    )
    for attack, frame in sorted(case.at(case.headline).items()):
        if approach(attack) == "transfer" and "extra_source_broken" in frame:
            found = marked(frame, "source_broken") - hits(frame)
            words = f"{len(found)} adversarial examples of the source do not fool this defense."
            return check.counted(found, len(attacked(frame)), words)
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
    cells = {} if whole is None else case.at(whole)
    traced = [attack for attack in sorted(cells) if bare(attack) == TRACED]
    if not traced:
        return check.not_run(f"no {TRACED} ran with the whole box to move in")
    frame = cells[traced[0]]
    left = attacked(frame) - hits(frame)
    words = f"PGD on the margin, free to move in the whole box, failed on {len(left)} examples."
    return check.counted(left, len(attacked(frame)), words)


ANSWERS, OUTPUT = "answers", "output"


PROBE = "probe-behaviour"


CARLINI = "Carlini et al., On Evaluating Adversarial Robustness (2019)"


#: What AutoAttack may say: the identifier that it gets here, and a part of the sentence.
FLAGS = {
    "autoattack-randomised": "seems to be randomised",
    "autoattack-probabilities": "looks like probabilities",
    "autoattack-zero-gradient": "gradient is zero",
    "autoattack-square": "Square lowers the accuracy",
    "autoattack-dynamic": "gradients inside its forward",
}


NOT_FINITE = "nan or infinity"


def behaviour(case: Case) -> list[Evidence]:
    """Every item on how the defense answers, and on what failed."""
    return [
        prediction_stability(case),
        randomised(case),
        batch_dependence(case),
        call_order_dependence(case),
        input_mutation(case),
        optimiser_in_forward(case),
        nan_logits(case),
        softmax_output(case),
        one_hot_output(case),
        failed_attacks(case),
        *autoattack_flags(case),
    ]


def _random(frame: pd.DataFrame) -> set[int]:
    return marked(frame, "logits_differ_repeat") | marked(frame, "prediction_flips_repeat")


def prediction_stability(case: Case) -> Evidence:
    """The class does not depend on the call or on the batch."""
    check = Check("prediction-stability", ANSWERS, "One input has one class", CARLINI)
    return probed(
        case,
        check,
        PROBE,
        lambda frame: (
            marked(frame, "prediction_flips_repeat")
            | marked(frame, "prediction_differs_alone")
            | marked(frame, "prediction_differs_shuffled")
        ),
        "{} inputs get another class when they are asked about again or in another batch.",
    )


def randomised(case: Case) -> Evidence:
    """The same call twice gives the same logits."""
    check = Check("randomised", ANSWERS, "The model is not randomised", AUTOATTACK)
    words = "The model answers {} inputs differently when it is asked again: it is randomised."
    return probed(case, check, PROBE, _random, words)


def batch_dependence(case: Case) -> Evidence:
    """The class does not depend on the inputs beside it."""
    check = Check(
        "batch-dependence", ANSWERS, "An answer does not depend on its batch", CARLINI,
        "deterministic",
    )  # fmt: skip
    frame = case.probe(PROBE)
    if frame is None:
        return check.not_run(f"{PROBE} did not run at epsilon {case.headline}")
    if len(_random(frame)) >= allowed(len(attacked(frame))):
        return check.not_run("the model answers differently in the same batch already")
    other = marked(frame, "prediction_differs_alone") | marked(frame, "prediction_differs_shuffled")
    words = f"{len(other)} inputs get another class beside other inputs."
    return check.counted(other - _random(frame), len(attacked(frame)), words)


def call_order_dependence(case: Case) -> Evidence:
    """The same call with the same random seeds gives the same logits, whatever came between."""
    check = Check(
        "call-order-dependence", ANSWERS, "An answer does not depend on earlier calls", CARLINI,
        "deterministic",
    )  # fmt: skip
    frame = case.probe(PROBE)
    n = 0 if frame is None else len(attacked(frame))
    words = (
        "{} inputs get other logits after other calls, random seeds alike: the model keeps a state."
    )
    return certain(case, check, PROBE, "state_differs", words, threshold=allowed(n))


def input_mutation(case: Case) -> Evidence:
    """The input is left as it is."""
    check = Check(
        "input-mutation", ANSWERS, "The model leaves its input alone", "Winnow", "deterministic"
    )
    words = "The model changes {} of its inputs in place: attacks search from other points."
    return certain(case, check, PROBE, "mutates_input", words)


def optimiser_in_forward(case: Case) -> Evidence:
    """The forward pass computes no gradients of its own."""
    check = Check(
        "optimiser-in-forward", ANSWERS, "The forward pass does not optimise", AUTOATTACK,
        "deterministic",
    )  # fmt: skip
    words = (
        "The model computes gradients inside its forward pass: attacks do not see through what "
        "it optimises."
    )
    return certain(case, check, PROBE, "optimises_in_forward", words)


def nan_logits(case: Case) -> Evidence:
    """Logits are finite in the box, near the data and wherever attacks went."""
    check = Check("nan-logits", OUTPUT, "Logits are finite", "Winnow", "deterministic")
    failed = sorted({attack for attack, _, reason in case.failures if NOT_FINITE in reason.lower()})
    frame = case.probe(PROBE)
    if frame is None and not failed:
        return check.not_run(f"{PROBE} did not run at epsilon {case.headline}")
    found: set[int] = set()
    if frame is not None:
        found = marked(frame, "nonfinite_near") | marked(frame, "unmeasured")
    stopped = f" It stopped {', '.join(failed)}." if failed else ""
    words = f"The model answers NaN or infinity near {len(found)} examples.{stopped}"
    n = case.n if frame is None else len(attacked(frame))
    return check.counted(found, n, words, threshold=0 if failed else 1)


def softmax_output(case: Case) -> Evidence:
    """The output is logits: probabilities flatten the losses that take a softmax again."""
    check = Check("softmax-output", OUTPUT, "The output is logits", AUTOATTACK, "context")
    words = "The outputs of {} examples look like probabilities instead of logits."
    return certain(case, check, PROBE, "probability_output", words, threshold=allowed(case.n))


def one_hot_output(case: Case) -> Evidence:
    """The output says more than the class."""
    check = Check(
        "one-hot-output", OUTPUT, "The output says more than the class", "Winnow", "context"
    )
    words = "The model answers {} examples with its decision alone: there is no score to follow."
    return certain(case, check, PROBE, "one_hot_output", words, threshold=allowed(case.n))


def failed_attacks(case: Case) -> Evidence:
    """Attacks that failed at the headline epsilon; without any gradient attack it is a fault."""
    here = sorted({a for a, epsilon, _ in case.failures if epsilon == case.headline.text})
    tried = [a for a in here if approach(a) == "gradient"]
    left = case.at(case.headline, approaches=["gradient"])
    blind = bool(tried) and not left
    check = Check(
        "failed-attacks", OUTPUT, "Attacks ran to their end", "Winnow",
        "deterministic" if blind else "context",
    )  # fmt: skip
    return check.counted((), case.n, f"Failed: {', '.join(here)}.", threshold=0 if here else 1)


def autoattack_flags(case: Case) -> list[Evidence]:
    """What AutoAttack's own checks said, as context: the items above measure the same apart."""
    said = [
        (attack, flag)
        for attack, flags in sorted(case.flags.items())
        for flag in flags
        if flag.startswith("AutoAttack")
    ]
    items = []
    for identifier, part in FLAGS.items():
        names = sorted({attack for attack, flag in said if part in flag})
        if names:
            check = Check(identifier, OUTPUT, "AutoAttack raised a flag", AUTOATTACK, "context")
            text = next(flag for _, flag in said if part in flag).partition(": ")[2]
            items.append(
                check.counted((), case.n, f"AutoAttack ({', '.join(names)}): {text}.", threshold=0)
            )
    return items
