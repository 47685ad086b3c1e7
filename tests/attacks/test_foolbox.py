"""The traps of Foolbox, each in a world where it snaps."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import eagerpy as ep
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.api import Attack, Examples
from bench.attacks.blocks import repairs
from bench.attacks.blocks.guard import Guard
from bench.attacks.blocks.within import Remaining
from bench.errors import AttackError, UsageError
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.worlds import (
    SHAPE,
    Function,
    broken,
    column,
    grey,
    linear_problem,
    network_problem,
    pose,
    solve,
)
from tests.commands import ROOT


def test_inputs_a_rounding_above_one_can_be_attacked() -> None:
    """Foolbox asserts its bounds to the last bit; `Examples` clips what is only rounding."""
    world = network_problem(Norm.L2, 0.1)
    raw = world.inputs.clone()
    raw[0, 0, 0, 0] = 1.0000002
    with pytest.raises(AssertionError):
        solve("ddn", replace(world, inputs=raw))
    examples = Examples.of(raw, world.labels, ("a", "b", "c", "d"), "rounded")
    assert solve("ddn", replace(world, inputs=examples.inputs)).candidates.max() <= 1


@pytest.mark.parametrize("name", ["fmn", "cw", "salt-and-pepper"])
def test_minimum_attacks_do_not_depend_on_an_epsilon(name: str) -> None:
    """Whatever the problem says: told an epsilon, Foolbox would clip what it found."""
    told, untold = (network_problem(Norm.LINF, epsilon) for epsilon in (1e-3, None))
    assert solve(name, told).candidates.equal(solve(name, untold).candidates)


def test_a_fixed_epsilon_has_its_own_random_numbers() -> None:
    """The result at an epsilon does not depend on the epsilons that ran before it."""
    problem = network_problem(Norm.LINF, 0.1)
    alone = solve("pgd[steps=2]", problem).candidates
    solve("pgd[steps=2]", replace(problem, epsilon=0.05))
    assert solve("pgd[steps=2]", problem).candidates.equal(alone)


def test_fixed_attack_without_an_epsilon_is_refused() -> None:
    """A bare None would be a type error deep inside Foolbox."""
    with pytest.raises(AttackError, match="needs an epsilon"):
        solve("pgd", network_problem(Norm.LINF, None))


def shell(x: Tensor) -> Tensor:
    """Wrong only while the mean grey is in (0.53, 0.56), with a gradient that always says: up."""
    mean = x.flatten(1).mean(dim=1)
    wrong = (mean > 0.53) & (mean < 0.56)
    margin = torch.where(wrong, -1.0, 1.0) - 10 * (mean - mean.detach())
    return column(margin, torch.zeros_like(margin))


def faint(x: Tensor) -> Tensor:
    """The shell with logits so large that its margin of 1 is within doubt: 0.5 % of them."""
    return shell(x) + 200


@pytest.mark.parametrize("function", [shell, faint])
def test_an_adversarial_iterate_is_kept_when_the_last_one_is_right_again(
    function: Callable[[Tensor], Tensor],
) -> None:
    """PGD walks through the shell and out of it, or leaves there; Foolbox returns where it ends."""
    problem = pose(Function(function), grey(5), torch.zeros(5).long(), epsilon=0.1, classes=2)
    proposal = solve("pgd", problem)
    assert broken(problem, proposal).all()


def test_only_what_is_in_the_ball_and_the_box_is_kept() -> None:
    """Misclassified points outside, and NaN, are nobody's adversarial example."""
    problem = pose(
        Function(lambda x: column(torch.zeros(len(x)), torch.ones(len(x)))),
        torch.tensor([0.5, 0.5, 0.95, 0.5]).reshape(4, 1, 1, 1).expand(4, *SHAPE).contiguous(),
        torch.zeros(4).long(),
        epsilon=0.1,
        classes=2,
    )
    remaining = Remaining(problem)
    step = torch.tensor([0.1, 0.11, 0.1, float("nan")]).reshape(4, 1, 1, 1)
    remaining(ep.astensor(problem.inputs + step))
    assert remaining.catch.found.tolist() == [True, False, False, False]
    assert remaining.catch.best[1:].equal(problem.inputs[1:])


def test_no_starting_point_at_all_is_a_flag_and_no_error() -> None:
    """Where every image is of one class, decision-based attacks return the inputs."""
    problem = pose(
        Function(lambda x: column(torch.ones(len(x)), x.flatten(1).mean(1) - 2)),
        grey(3),
        torch.zeros(3).long(),
        epsilon=None,
        classes=2,
    )
    for name in ("boundary", "hop-skip-jump"):
        proposal = solve(name, problem)
        assert proposal.candidates.equal(problem.inputs)
        assert proposal.flags == ("no starting point for 3 of 3 examples",)


@pytest.mark.parametrize("name", ["boundary", "hop-skip-jump"])
def test_examples_with_a_starting_point_are_attacked_without_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one draw of noise some find a start and some do not: Foolbox would raise for all."""
    monkeypatch.setattr(repairs, "DRAWS", 1)
    problem = pose(
        Function(lambda x: column(torch.full((len(x),), 0.7), x[:, 0, 0, 0])),
        grey(20, 0.3),
        torch.zeros(20).long(),
        epsilon=None,
        classes=2,
    )
    proposal = solve(name, problem)
    found = broken(problem, proposal)
    assert 0 < found.sum() < 20
    assert proposal.flags == (f"no starting point for {20 - found.sum()} of 20 examples",)
    assert proposal.candidates[~found].equal(problem.inputs[~found])


def test_starting_points_are_adversarial_and_near_the_border() -> None:
    """They come from inputs of other classes, and bisection leaves a thousandth of the way."""
    problem, _ = linear_problem(4, Norm.L2, 20)
    points, usable = repairs.starting_points(problem, wanted=torch.ones(20).bool())
    assert usable.tolist() == list(range(20))
    assert (problem.model(points).argmax(dim=1) != problem.labels).all()
    back = problem.inputs + 0.99 * (points - problem.inputs)
    assert (problem.model(back).argmax(dim=1) == problem.labels).all()


def test_starting_points_are_judged_in_the_batch_that_the_attack_gets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Foolbox raises when one point is right in its batch, though it was wrong in another."""
    monkeypatch.setattr(repairs, "DRAWS", 1)

    def stricter_in_small_batches(x: Tensor) -> Tensor:
        threshold = 0.7 if len(x) == 20 else 0.9
        return column(torch.full((len(x),), threshold), x[:, 0, 0, 0])

    problem = pose(
        Function(stricter_in_small_batches),
        grey(20, 0.3),
        torch.zeros(20).long(),
        epsilon=None,
        classes=2,
    )
    proposal = solve("boundary", problem)
    assert proposal.candidates.equal(problem.inputs)
    assert proposal.flags == ("no starting point for 20 of 20 examples",)


def test_black_images_of_failed_examples_are_not_adversarial() -> None:
    """C&W and EAD call black images successes where they found nothing and black is wrong."""

    def only_black_is_wrong(x: Tensor) -> Tensor:
        black = (x.flatten(1).amax(dim=1) == 0).float()
        return column(1 - 2 * black, 0 * x.flatten(1).sum(dim=1))

    problem = pose(
        Function(only_black_is_wrong), grey(3), torch.zeros(3).long(), epsilon=0.4, classes=2
    )
    for name in ("cw", "ead"):
        proposal = solve(name, problem)
        assert proposal.candidates.eq(0).all()
        assert not broken(problem, proposal).any()


def test_an_endless_loop_is_stopped() -> None:
    """HopSkipJump waits until all are adversarial; a model that never agrees is given up."""
    problem = network_problem(Norm.L2, None)
    guard = Guard(problem.model, limit=2)
    guard(problem.inputs)
    guard(problem.inputs)
    with pytest.raises(AttackError, match="does not end"):
        guard(problem.inputs)


def test_uniform_noise_has_the_size_of_epsilon() -> None:
    """Foolbox scales its largest value, so that half of all draws leave the ball."""
    problem = pose(
        Function(lambda x: column(torch.ones(len(x)), x.flatten(1).mean(1))),
        grey(50),
        torch.zeros(50).long(),
        epsilon=0.2,
        classes=2,
    )
    attack = repairs.LinfRepeatedAdditiveUniformNoiseAttack(repeats=1, check_trivial=False)
    noise = attack.sample_noise(ep.astensor(problem.inputs))
    factor = attack.get_epsilons(None, noise, 0.2, 0.0, 1.0)
    sizes = (factor * noise).raw.flatten(1).abs().amax(dim=1)
    np.testing.assert_allclose(sizes.numpy(), 0.2, rtol=1e-6)


def test_presets_are_light_unless_full_is_asked_for() -> None:
    """The full preset is Foolbox's default, whose cost is why the light one is there."""
    for name, steps in (("boundary", 25_000), ("hop-skip-jump", 64), ("cw", 10_000)):
        light, full = (attacks.create(text) for text in (name, f"{name}[preset=full]"))
        assert foolbox_default(full) == steps
        assert cost(full) > 9 * cost(light)


def foolbox_default(attack: Attack) -> object:
    """The steps that this attack hands to Foolbox."""
    return attack.build(Norm.L2).steps  # type: ignore[attr-defined]


def cost(attack: Attack) -> float:
    """Passes on digits."""
    return attack.cost(norm=Norm.L2, shape=(1, 8, 8), classes=10).total


@pytest.mark.parametrize("text", ["pgd[steps=0]", "mi-fgsm[rel_stepsize=-1.0]", "fmn[steps=0]"])
def test_parameters_out_of_range_are_refused(text: str) -> None:
    """The message names the parameter and what it has to be."""
    with pytest.raises(UsageError, match="greater than 0"):
        attacks.create(text)


def test_brendel_bethge_needs_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the cell is skipped with the reason."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    why = attacks.create("brendel-bethge").why_not(norm=Norm.L2, shape=SHAPE, classes=4)
    assert why is not None
    assert "needs numba" in why


@pytest.mark.parametrize("said", [None, "quiet"])
def test_foolbox_is_imported_where_there_is_no_git(said: str | None, tmp_path: Path) -> None:
    """GitPython, by which it would fetch models, refuses to be imported there; see `library`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_PYTHON_")}
    environment |= {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= {} if said is None else {"GIT_PYTHON_REFRESH": said}

    def started(source: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", source], env=environment, capture_output=True, text=True
        )

    plain = started("import foolbox")
    assert (plain.returncode != 0) == (said is None)
    ours = started(
        "import os\n"
        "from bench.attacks.blocks import repairs, within\n"
        "print(os.environ.get('GIT_PYTHON_REFRESH'))"
    )
    assert (ours.returncode, ours.stdout.strip()) == (0, str(said)), ours.stderr


def test_foolbox_is_imported_in_one_place() -> None:
    """Elsewhere the import would fail without git."""
    sources = {p: p.read_text(encoding="utf-8") for p in (ROOT / "attacks").rglob("*.py")}
    pattern = re.compile(r"^\s*(import|from) foolbox\b", re.MULTILINE)
    assert [p.name for p, text in sources.items() if pattern.search(text)] == ["library.py"]
