"""Suites: what they hold in each norm, and that a third-party attack joins `all` by itself."""

import pytest

from bench.api import Attack, Cost, Problem, Proposal
from bench.registry import attacks, create_attacks, suites
from bench.threat import Norm


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("suite", ["quick", "standard", "paper-published", "paper", "all"])
def test_every_member_exists_and_can_run_in_the_norm(suite: str, norm: Norm) -> None:
    """Names resolve, each once, and nothing is left out but for a missing library."""
    members = create_attacks(suite, norm)
    names = [attack.name for attack in members]
    assert len(names) == len(set(names)) == len(suites[suite].members(norm))
    reasons = [attack.why_not(norm=norm, shape=(1, 8, 8), classes=10) for attack in members]
    assert all(reason is None or "numba" in reason for reason in reasons)


@pytest.mark.parametrize("norm", list(Norm))
def test_all_holds_every_native_row_and_the_papers_attacks(norm: Norm) -> None:
    """Not the cascade, whose attacks are rows, nor EOT; the paper's attacks come along."""
    names = suites["all"].members(norm)
    assert "autoattack" not in names
    assert "eot-pgd" not in names
    own = {"fd-pgd", "margin-pgd", "averaged-pgd", "surrogate", "transfer"}
    assert (own <= set(names)) == (norm is not Norm.L1)
    assert set(suites["standard"].members(norm)) <= set(names)
    assert set(suites["paper"].members(norm)) - set(names) == {"cw[preset=converged]"}
    assert set(suites["paper-published"].members(norm)) <= set(names)
    assert ("sparse-l1-descent" in names) == (norm is Norm.L1)
    assert ("gaussian-noise" in names) == (norm is Norm.L2)


def test_a_third_party_attack_is_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be registered, and nothing else."""

    class Idle(Attack):
        summary = "Returns the inputs"
        norms = frozenset({Norm.L2})

        def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
            return Cost(0)

        def run(self, problem: Problem) -> Proposal:
            return Proposal(problem.inputs)

    monkeypatch.setattr(attacks, "_classes", {**attacks._classes, "idle": Idle})
    assert "idle" in suites["all"].members(Norm.L2)
    assert "idle" not in suites["all"].members(Norm.LINF)
