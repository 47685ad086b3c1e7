"""Attack plugins: one module a source; building blocks are the packages inside.

Their name is `bench.attacks`; the folder lies at the top of the repository. Python files in
`./attacks` of the working directory join them: see `bench.registry.discovery`. The suites, named
lists of attacks, are here.
"""

from __future__ import annotations

from bench.registry import attacks, join_local, register_suite
from bench.threat import Norm

if __name__ != "bench.attacks":
    raise ImportError(f"{__name__} is called bench.attacks: write `from bench.attacks… import …`")


join_local(__name__, __path__)


@register_suite("quick", "A first impression in seconds: one attack of each kind")
def quick(norm: Norm) -> list[str]:
    """Single-step, iterative, minimum-norm and noise."""
    if norm is Norm.L1:
        return ["fgsm", "pgd", "sparse-l1-descent", "fmn"]
    return ["fgsm", "pgd", "fmn", "deepfool", "uniform-noise"]


@register_suite(
    "standard", "AutoAttack's four attacks, each over all examples", figure="autoattack"
)
def standard(norm: Norm) -> list[str]:
    """The standard version of AutoAttack (Croce and Hein, ICML 2020)."""
    return ["apgd-ce", "apgd-t", "fab-t", "square"]


#: The epsilons of the k-WTA paper by family of data sets, and one for digits, which it has not.
PAPER_EPSILONS = {
    ("cifar10", Norm.LINF): "0.031",
    ("cifar100", Norm.LINF): "0.031",
    ("svhn", Norm.LINF): "0.047",
    ("mnist", Norm.LINF): "0.3",
    ("fashion-mnist", Norm.LINF): "0.3",
    ("digits", Norm.LINF): "0.1",
}


#: What `all` leaves out of the paper's evaluation.
CONVERGED = "cw[preset=converged]"


@register_suite(
    "paper-published",
    "The k-WTA paper's attacks in its own settings: PGD, MIM, DeepFool, C&W, transfer",
    epsilons=PAPER_EPSILONS,
)
def paper_published(norm: Norm) -> list[str]:
    """The attacks of Xiao et al. (ICLR 2020), each on the same examples and within the box.

    Sizes are relative to epsilon, 0.031 in the paper: PGD of 20 steps of 0.003 from a random start;
    MIM of 10 steps of 0.007; DeepFool of 20; Carlini and Wagner as published, far from converged;
    transfer from ReLU on the same network, trained naturally and adversarially, where `transfer`
    takes PGD, APGD and MIM to their ends (and none in L1).
    """
    transfer = ["transfer[source=relu]", "transfer[source=relu-at]"]
    return [
        "pgd[steps=20]",
        "mi-fgsm[accumulate=gradients,rel_stepsize=0.2258]",
        "deepfool[steps=20]",
        "cw[preset=published]",
        *(transfer if norm is not Norm.L1 else []),
    ]


@register_suite(
    "paper",
    "The evaluation of the k-WTA paper, mended; alone in --attacks, at the paper's Linf epsilons: "
    "0.031 (CIFAR), 0.047 (SVHN), 0.3 (MNIST, Fashion-MNIST), 0.1 (digits)",
    epsilons=PAPER_EPSILONS,
)
def paper(norm: Norm) -> list[str]:
    """Its attacks as published, C&W run to convergence beside them, and its black-box attacks."""
    black_box = ["boundary", "single-pixel", "local-search"]
    return [*paper_published(norm), CONVERGED, *black_box]


@register_suite("all", "Every attack that searches in the norm, and the k-WTA paper's")
def everything(norm: Norm) -> list[str]:
    """Every registered attack native to the norm at its defaults, third-party ones included.

    Of the k-WTA paper's, C&W run to convergence is left out: it takes up to 18,000 passes for every
    example. `autoattack` is left out, because the attacks of its cascade are rows of their own,
    and so are attacks over draws, which an examination asks for where a defense is found to be
    randomised. Attacks that need a surrogate or a twin are skipped where
    there is none.
    """
    native = [
        name
        for name in attacks.names()
        if norm in attacks.get(name).norms
        and attacks.get(name).scope == "all"
        and not attacks.get(name).over_draws
    ]
    members = dict.fromkeys([*native, *paper(norm)])
    members.pop(CONVERGED, None)
    return list(members)
