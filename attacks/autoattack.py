"""AutoAttack (Croce and Hein, ICML 2020), by pyautoattack: its four attacks as rows, and whole.

Each row attacks all examples, by default at AutoAttack's standard settings, and FAB-T serves all
epsilons at once. `autoattack` is the standard cascade, each attack on what the ones before left; it
adds to the worst case and is no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.api import Attack, Cost, Proposal
from bench.api.attacks import Loss, radius
from bench.errors import check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.api import Problem

STEPS = 100
QUERIES = 5_000
#: Forwards around an attack: the checks of the model, its accuracy, and the check of the end.
AROUND = 12


class AutoAttackRow(Attack):
    """One attack of AutoAttack at its standard settings."""

    libraries = ("pyautoattack",)
    member: ClassVar[str]
    """The name of the attack in AutoAttack."""

    def run(self, problem: Problem) -> Proposal:
        """Search with AutoAttack.

        Raises:
            AttackError: the problem has no epsilon.
        """
        return _run(problem, [self.member], **self.options())

    def options(self) -> dict[str, int]:
        """The budget of Square, where it is not AutoAttack's standard one."""
        return {}


@register_attack("apgd-ce")
class APGDCE(AutoAttackRow):
    """Auto-PGD on the cross-entropy: 100 steps; in L1 five restarts, as standard has it."""

    summary = "Auto-PGD on the cross-entropy (AutoAttack)"
    lowers: ClassVar[Loss] = "cross-entropy"
    strength = "strong"
    spoken = "APGD-CE"
    examination: ClassVar[tuple[str, ...]] = ("",)
    planted: ClassVar[tuple[str, ...]] = ("",)
    version = 2
    member = "apgd-ce"

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every restart."""
        return _apgd(norm) * (5 if norm is Norm.L1 else 1) + Cost(AROUND)


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
class APGDT(AutoAttackRow):
    """Auto-PGD on the targeted difference of logits ratio: nine targets (L1: five)."""

    summary = "Auto-PGD towards each of the most likely classes (AutoAttack)"
    strength = "strong"
    spoken = "APGD-T"
    examination = ("",)
    version = 2
    member = "apgd-t"

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """The loss compares four logits."""
        if classes < 4:
            return f"its loss needs at least 4 classes (there are {classes})"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step towards every target."""
        targets = _targets(classes, 5 if norm is Norm.L1 else 9)
        return (_apgd(norm) + Cost(1)) * targets + Cost(AROUND)


@register_attack("fab-t")
class FABT(AutoAttackRow):
    """Fast adaptive boundary attack (Croce and Hein, ICML 2020): nine targets, 100 steps each.

    Its search knows no epsilon, and AutoAttack repeats it whole at each. Here it is made once: what
    AutoAttack breaks at an epsilon is what has its smallest perturbation within it. Judged it may
    break more, since the judge brings a candidate beyond epsilon back into the ball.
    """

    summary = "Smallest perturbation towards each of the most likely classes (AutoAttack)"
    strength = "strong"
    kind = "minimum"
    deterministic = True
    version = 2
    member = "fab-t"

    def run(self, problem: Problem) -> Proposal:
        """Search towards each target, and keep the smallest."""
        import torch
        from pyautoattack.fab_pt import FABAttack_PT

        inputs, labels = problem.inputs.float().contiguous(), problem.labels.long()
        search = FABAttack_PT(
            problem.model, norm=problem.norm.value, n_iter=STEPS, device=inputs.device
        )
        best = inputs.clone()
        smallest = torch.full_like(labels, torch.inf, dtype=torch.float64)
        for place in range(_targets(problem.classes)):
            search.target_class = place + 2  # from the end of the sorted logits
            candidates = search.attack_single_run(inputs, labels, is_targeted=True)
            with torch.no_grad():
                wrong = problem.model(candidates).argmax(dim=1) != labels
            distance = problem.norm.distance(inputs, candidates)
            better = wrong & (distance < smallest)
            best[better], smallest[better] = candidates[better], distance[better]
        return Proposal(best)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step towards every target."""
        return Cost(2 * STEPS + 3, STEPS) * _targets(classes)


@register_attack("square")
class Square(AutoAttackRow):
    """Square attack (Andriushchenko et al., ECCV 2020): random search, by default 5,000 queries.

    Args:
        queries: of each restart; the squares shrink on a schedule that spans them.
        restarts: searches, each from its own start and on what is not broken yet.
    """

    summary = "Random search over square patches by scores (AutoAttack)"
    challenge = "square"
    spoken = "Square"
    stand_in = "queries=1000"
    member = "square"
    access = "black-box"

    def __init__(self, *, queries: int = QUERIES, restarts: int = 1) -> None:
        check_positive(queries=queries, restarts=restarts)
        self.queries, self.restarts = queries, restarts

    def options(self) -> dict[str, int]:
        """Its budget."""
        return {"n_queries": self.queries, "n_restarts": self.restarts}

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """Outside Linf it starts from a grid of five by five patches."""
        if norm is not Norm.LINF and min(shape[1:]) < 5:
            return f"needs images of at least 5 x 5 pixels in {norm} (got {shape[1]} x {shape[2]})"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every query of every restart, and its start."""
        return Cost((self.queries + 2) * self.restarts + AROUND)


@register_attack("autoattack")
class AutoAttack(Attack):
    """The standard cascade: APGD-CE, APGD-T, FAB-T, Square, each on what the ones before left."""

    summary = "AutoAttack's standard cascade on what no other attack broke"
    approach = "mixed"
    figure = "autoattack"
    version = 2
    scope = "remaining"
    libraries = ("pyautoattack",)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """All four attacks, for an example that survives them."""
        rows, _ = _cascade(norm=norm, shape=shape, classes=classes)
        total = Cost(0)
        for row in rows:
            total = total + row.cost(norm=norm, shape=shape, classes=classes)
        return total

    def run(self, problem: Problem) -> Proposal:
        """Search with AutoAttack; a flag names each attack that cannot run here.

        Raises:
            AttackError: the problem has no epsilon.
        """
        channels, height, width = problem.inputs.shape[1:]
        rows, flags = _cascade(
            norm=problem.norm, shape=(channels, height, width), classes=problem.classes
        )
        proposal = _run(problem, [row.member for row in rows])
        return Proposal(proposal.candidates, flags=(*flags, *proposal.flags))


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


def _targets(classes: int, most: int = 9) -> int:
    """How many classes a targeted attack goes towards."""
    return min(most, classes - 1)


def _apgd(norm: Norm) -> Cost:
    """One run of Auto-PGD; in L1 it starts anew at three and two times epsilon."""
    starts = 3 if norm is Norm.L1 else 1
    return Cost(STEPS + starts, STEPS + starts)


def _run(problem: Problem, members: Sequence[str], **options: int) -> Proposal:
    """Run these attacks of AutoAttack, all examples in one batch.

    Args:
        problem: with an epsilon.
        members: names of the attacks, in their order.
        options: attributes of Square; the other attacks run at standard settings.
    """
    import pyautoattack

    from bench.attacks.blocks.watching import leave_when_settled, listening

    inputs, labels = problem.inputs.float().contiguous(), problem.labels.long()
    with listening() as flags:
        adversary = pyautoattack.AutoAttack(
            problem.model,
            norm=problem.norm.value,
            eps=radius(problem),
            version="standard",
            seed=problem.seed,
            device=inputs.device,
        )
        adversary.attacks_to_run = list(members)
        for targeted in (adversary.apgd_targeted, adversary.fab):
            targeted.n_target_classes = _targets(problem.classes, targeted.n_target_classes)
        for gradient in (adversary.apgd, adversary.apgd_targeted):
            leave_when_settled(gradient, problem)
        for name, value in options.items():
            setattr(adversary.square, name, value)
        candidates, predicted = adversary.run_standard_evaluation(
            inputs, labels, batch_size=len(inputs)
        )
    candidates[predicted == labels] = inputs[predicted == labels]
    return Proposal(candidates.detach(), flags=tuple(flags))
