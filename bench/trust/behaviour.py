"""How a defense answers: alike to the same input, whatever else it was asked, and with logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.trust.case import approach, attacked, marked
from bench.trust.evidence import Check, allowed
from bench.trust.indicators import AUTOATTACK, certain, probed

if TYPE_CHECKING:
    import pandas as pd

    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

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
