"""Thirteen defenses on digits that are broken by design, each in a few lines.

Each looks robust to an attack that trusts it, and is no more robust than the honest CNN inside.
Winnow has to break it that far or to withhold its trust, and to say why: each names the evidence
that gives it away.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from bench.testing import broken, honest

if TYPE_CHECKING:
    from collections.abc import Callable

#: The honest model that the canaries are made of.
TWIN = "cnn"


@dataclass(frozen=True)
class Canary:
    """A defense that Winnow must not believe."""

    name: str
    build: Callable[[int], nn.Module]
    """From a seed to the module, in eval mode, its parameters frozen."""
    evidence: tuple[str, ...]
    """Identifiers of evidence; at least one of them has to be raised."""
    summary: str
    """One line."""
    twin: str = TWIN
    """The name of the honest model that it is no more robust than."""


def _wrap(wrapper: Callable[[nn.Module], nn.Module], seed: int) -> nn.Module:
    return wrapper(honest.build(TWIN, seed)).eval().requires_grad_(False)


def _batch_norm(seed: int) -> nn.Module:
    net = honest.build(TWIN, seed)
    assert isinstance(net, nn.Sequential)
    return broken.BatchNormTraining(net).eval().requires_grad_(False)


#: Trained as the twin is, with its own activations.
KWTA = honest.Trained("kwta", functools.partial(honest.network, "kwta"), "k-WTA", "kwta")


_ZERO = "zero-margin-gradient"
_FIDELITY = "gradient-fidelity"

#: Every canary by its name.
CANARIES = {
    name: Canary(name, build, evidence, summary)
    for name, build, evidence, summary in (
        (
            "detached-gradient",
            functools.partial(_wrap, broken.DetachedGradient),
            (_ZERO, "unavailable-gradients"),
            "The input is detached from the graph",
        ),
        (
            "input-rounding",
            functools.partial(_wrap, broken.InputRounding),
            (_ZERO, _FIDELITY),
            "Pixels rounded to four levels",
        ),
        (
            "large-logits",
            functools.partial(_wrap, broken.LargeLogits),
            ("cross-entropy-zero-gradient",),
            "Logits × 10⁴",
        ),
        (
            "softmax-output",
            functools.partial(_wrap, broken.SoftmaxOutput),
            ("softmax-output",),
            "Probabilities in place of logits",
        ),
        (
            "one-hot-output",
            functools.partial(_wrap, broken.OneHotOutput),
            ("one-hot-output", _ZERO),
            "The decision in place of logits",
        ),
        (
            "additive-noise",
            functools.partial(_wrap, broken.AdditiveNoise),
            ("randomised",),
            "Gaussian noise added to the input",
        ),
        (
            "random-shift",
            functools.partial(_wrap, broken.RandomShift),
            ("randomised",),
            "A random shift of up to 0.6 pixels",
        ),
        ("kwta", KWTA.build, (_FIDELITY,), "k-Winners-Take-All activations, gamma 0.1"),
        (
            "compression",
            functools.partial(_wrap, broken.Compression),
            (_ZERO, "unavailable-gradients"),
            "Rounded cosine transform, no surrogate declared",
        ),
        (
            "optimiser-in-forward",
            functools.partial(_wrap, broken.OptimiserInForward),
            ("optimiser-in-forward",),
            "Gradient steps on the input inside forward",
        ),
        (
            "batch-norm-training",
            _batch_norm,
            ("batch-dependence",),
            "Batch normalisation over the batch at hand",
        ),
        (
            "lookup",
            functools.partial(_wrap, broken.Lookup),
            ("noise-beyond-single-step", _ZERO),
            "Recognises the data set, bit for bit",
        ),
        (
            "nan-off-data",
            functools.partial(_wrap, broken.NaNOffData),
            ("nan-logits",),
            "NaN off the data's pixel levels",
        ),
    )
}
