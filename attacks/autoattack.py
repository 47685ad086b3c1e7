"""AutoAttack (Croce and Hein, ICML 2020): its four attacks as rows, and whole.

Each row attacks all examples, at all epsilons at once and by default at AutoAttack's standard
settings. `autoattack` is the standard cascade, each attack on what the ones before left; it adds to
the worst case and is no row. The engine is our own (`bench.attacks.blocks.standard`), held against
pyautoattack, which `autoattack[engine=pyautoattack]` runs as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api import Attack, Cost, Flag, Proposal
from bench.attacks.blocks.spending import QUERIES, STEPS, balls, restarts, targets
from bench.errors import UsageError, check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from bench.api import Problem
    from bench.api.attacks import Loss

#: Forwards for each query of Square, where several are asked about at once.
VAIN = 1.5
#: Forwards before an attack: the checks of the model.
AROUND = 6
#: Who searches: our own code, for all epsilons at once, or pyautoattack.
ENGINES = ("winnow", "pyautoattack")


class AutoAttackRow(Attack):
    """One attack of AutoAttack at its standard settings."""

    member: ClassVar[str]
    """The name of the attack in AutoAttack."""


class AutoPGDRow(AutoAttackRow):
    """Auto-PGD on one of its losses."""

    each_row = True
    strength = "strong"

    def run(self, problem: Problem) -> Proposal:
        """Search.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.standard import Standard

        standard = Standard(problem)
        standard.run(self.member, standard.catch.left)
        return standard.proposal()


@register_attack("apgd-ce")
class APGDCE(AutoPGDRow):
    """Auto-PGD on the cross-entropy: 100 steps; in L1 five restarts, as standard has it."""

    summary = "Auto-PGD on the cross-entropy (AutoAttack)"
    aliases = ("apgd", "auto-pgd")
    lowers: ClassVar[Loss] = "cross-entropy"
    spoken = "APGD-CE"
    examination: ClassVar[tuple[str, ...]] = ("",)
    planted: ClassVar[tuple[str, ...]] = ("",)
    version = 3
    member = "apgd-ce"

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every restart."""
        return _apgd(norm) * restarts(norm) + Cost(AROUND)


@register_attack("apgd-dlr")
class APGDDLR(APGDCE):
    """Auto-PGD on the difference of logits ratio: 100 steps; in L1 five restarts."""

    summary = "Auto-PGD on the difference of logits ratio (AutoAttack)"
    lowers = "other"
    spoken = ""
    examination = ()
    planted = ()
    member = "apgd-dlr"

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """The loss compares three logits."""
        if classes < 3:
            return f"its loss needs at least 3 classes (there are {classes})"
        return super().why_not(norm=norm, shape=shape, classes=classes)


@register_attack("apgd-t")
class APGDT(AutoPGDRow):
    """Auto-PGD on the targeted difference of logits ratio: nine targets (L1: five)."""

    summary = "Auto-PGD towards each of the most likely classes (AutoAttack)"
    aliases = ("apgd-targeted",)
    spoken = "APGD-T"
    examination = ("",)
    version = 3
    member = "apgd-t"

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """The loss compares four logits."""
        if classes < 4:
            return f"its loss needs at least 4 classes (there are {classes})"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step towards every target."""
        return _apgd(norm) * targets(classes, norm) + Cost(AROUND)


@register_attack("fab-t")
class FABT(AutoAttackRow):
    """Fast adaptive boundary attack (Croce and Hein, ICML 2020): nine targets, 100 steps each.

    Its search knows no epsilon, and AutoAttack repeats it whole at each. Here it is made once: what
    AutoAttack breaks at an epsilon is what has its smallest perturbation within it. Judged it may
    break more, since the judge brings a candidate beyond epsilon back into the ball.
    """

    summary = "Smallest perturbation towards each of the most likely classes (AutoAttack)"
    aliases = ("fab",)
    strength = "strong"
    kind = "minimum"
    deterministic = True
    version = 3
    member = "fab-t"

    def run(self, problem: Problem) -> Proposal:
        """Search towards all targets, and keep the smallest."""
        import torch

        from bench.attacks.blocks.batches import drive
        from bench.attacks.blocks.fab import FastBoundary
        from bench.attacks.blocks.standard import likely

        with torch.no_grad():
            towards = likely(problem.model(problem.inputs), targets(problem.classes))
        nothing = torch.zeros_like(problem.labels, dtype=torch.float64)
        search = FastBoundary(problem, towards, nothing)
        rows = torch.arange(len(nothing), device=nothing.device)
        drive(search, rows, problem.inputs)
        return Proposal(search.smallest()[0])

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step towards every target."""
        return Cost(2 * STEPS + 1, STEPS) * targets(classes)


@register_attack("square")
class Square(AutoAttackRow):
    """Square attack (Andriushchenko et al., ECCV 2020): random search, by default 5,000 queries.

    Squares may lie anywhere; pyautoattack leaves out the last row and column.

    Args:
        queries: of each restart; how the squares shrink does not depend on it.
        restarts: searches, each from its own start and on what is not broken yet.
    """

    summary = "Random search over square patches by scores (AutoAttack)"
    aliases = ("square-attack",)
    challenge = "square"
    spoken = "Square"
    stand_in = "queries=1000"
    each_row = True
    version = 2
    member = "square"
    access = "black-box"

    def __init__(self, *, queries: int = QUERIES, restarts: int = 1) -> None:
        check_positive(queries=queries, restarts=restarts)
        self.queries, self.restarts = queries, restarts

    def run(self, problem: Problem) -> Proposal:
        """Search.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.standard import Standard

        standard = Standard(problem)
        standard.square(standard.catch.left, self.queries, self.restarts)
        return standard.proposal()

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """Outside Linf it starts from a grid of five by five patches."""
        if norm is not Norm.LINF and min(shape[1:]) < 5:
            return f"needs images of at least 5 x 5 pixels in {norm} (got {shape[1]} x {shape[2]})"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every query of every restart, its start, and proposals that were asked for in vain."""
        return Cost((VAIN * self.queries + 1) * self.restarts + AROUND)


@register_attack("autoattack")
class AutoAttack(Attack):
    """The standard cascade: APGD-CE, APGD-T, FAB-T, Square, each on what the ones before left.

    Args:
        engine: `winnow` searches at all epsilons at once, FAB-T before APGD-T where there are
            several; `pyautoattack` runs that library's standard version as it is, at each epsilon,
            for whoever needs the official figure. A flag says which one ran.
    """

    summary = "AutoAttack's standard cascade on what no other attack broke"
    aliases = ("aa",)
    approach = "mixed"
    figure = "autoattack"
    version = 3
    scope = "remaining"

    def __init__(self, *, engine: Literal["winnow", "pyautoattack"] = "winnow") -> None:
        if engine not in ENGINES:
            raise UsageError(f"engine has to be one of {', '.join(ENGINES)} (got {engine!r})")
        self.engine = engine
        self.each_row = engine == "winnow"
        if engine == "pyautoattack":
            self.libraries = ("pyautoattack",)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """All four attacks, for an example that survives them."""
        rows, _ = _cascade(norm=norm, shape=shape, classes=classes)
        total = Cost(0)
        for row in rows:
            total = total + row.cost(norm=norm, shape=shape, classes=classes)
        return total

    def run(self, problem: Problem) -> Proposal:
        """Search; a flag names the engine, and each attack that cannot run here.

        Raises:
            AttackError: the problem has no epsilon.
        """
        channels, height, width = problem.inputs.shape[1:]
        rows, flags = _cascade(
            norm=problem.norm, shape=(channels, height, width), classes=problem.classes
        )
        members = [row.member for row in rows]
        if self.engine == "winnow":
            from bench.attacks.blocks.cascade import Cascade

            proposal = Cascade(problem, members, QUERIES).run()
        else:
            from bench.attacks.blocks.reference import by_pyautoattack

            proposal = by_pyautoattack(problem, members)
        said = Flag("autoattack-engine", f"AutoAttack by the engine {self.engine}")
        return replace(proposal, flags=(said, *flags, *proposal.flags))


def _cascade(
    *, norm: Norm, shape: tuple[int, int, int], classes: int
) -> tuple[list[AutoAttackRow], list[str]]:
    """The rows of the standard cascade that can run here, and a flag for each that cannot.

    With three classes APGD-DLR takes the place of APGD-T.
    """
    second = APGDDLR() if classes == 3 else APGDT()
    standard: list[AutoAttackRow] = [APGDCE(), second, FABT(), Square()]
    rows, flags = [], ["apgd-dlr runs instead of apgd-t with 3 classes"] * (classes == 3)
    for row in standard:
        why = row.why_not(norm=norm, shape=shape, classes=classes)
        if why is None:
            rows.append(row)
        else:
            flags.append(f"{row.member} is left out: {why}")
    return rows, flags


def _apgd(norm: Norm) -> Cost:
    """One run of Auto-PGD, which starts anew in each ball."""
    passes = STEPS + len(balls(norm))
    return Cost(passes, passes)
