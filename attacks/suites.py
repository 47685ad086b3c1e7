"""Named lists of attacks."""

from __future__ import annotations

from bench.registry import attacks, register_suite
from bench.threat import Norm


@register_suite("quick", "A first impression in seconds: one attack of each kind")
def quick(norm: Norm) -> list[str]:
    """Single-step, iterative, minimum-norm and noise."""
    if norm is Norm.L1:
        return ["fgsm", "pgd", "sparse-l1-descent", "fmn"]
    return ["fgsm", "pgd", "fmn", "deepfool", "uniform-noise"]


@register_suite("standard", "AutoAttack's four attacks, each over all examples")
def standard(norm: Norm) -> list[str]:
    """The standard version of AutoAttack (Croce and Hein, ICML 2020)."""
    return ["apgd-ce", "apgd-t", "fab-t", "square"]


@register_suite(
    "paper", "The attacks of the k-WTA paper, but single pixel and local search (not in Foolbox 3)"
)
def paper(norm: Norm) -> list[str]:
    """The evaluation of Xiao et al. (ICLR 2020) as far as Foolbox 3 has it.

    PGD of 20 steps from a random start, each a tenth of epsilon (theirs: 0.003 at 0.031), MIM,
    DeepFool, Carlini and Wagner, and of the black-box attacks Boundary and salt-and-pepper noise.
    Its single-pixel and local-search attacks are not in Foolbox 3.
    """
    return ["pgd[steps=20]", "mi-fgsm", "deepfool", "cw", "boundary", "salt-and-pepper"]


#: Attacks that `all` leaves out although they search in the norm: one that only makes sense against
#: a randomised defense, where it is asked for once the defense has been found to be one.
ON_DEMAND = ("eot-pgd",)


@register_suite("all", "Every attack that searches in the norm, and the k-WTA paper's")
def everything(norm: Norm) -> list[str]:
    """Every registered attack native to the norm at its defaults, third-party ones included.

    `autoattack` is left out, because the attacks of its cascade are rows of their own, and so is
    what `ON_DEMAND` names. Attacks that need a surrogate or a twin are skipped where there is none.
    """
    native = [
        name
        for name in attacks.names()
        if norm in attacks.get(name).norms
        and attacks.get(name).scope == "all"
        and name not in ON_DEMAND
    ]
    return list(dict.fromkeys([*native, *paper(norm)]))
