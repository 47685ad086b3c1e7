"""What a run may have found, situation by situation, and the verdict of each."""

from __future__ import annotations

from typing import Any

from tests.trust.frames import BEHAVIOUR, GRADIENTS, HONEST, TRACE, N, at, frame

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
