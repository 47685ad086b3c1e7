"""Winnow beside the libraries that it drives: the same search, every pass counted, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from bench import registry
from bench.attacks.blocks.adapter import FoolboxAttack
from bench.models.counted import CountedModel
from bench.threat import Norm
from tests.benchmarks.scripts import WIDE, count, printed, right

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def test_counting_agrees_with_the_harness(script: Callable[[str], ModuleType]) -> None:
    """Passes counted at the logits are those that `CountedModel` counts at the inputs."""
    peers = script("peers")
    theirs = CountedModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 3, None, "cpu")
    ours = peers.Counting(theirs)
    with torch.no_grad():
        ours(torch.rand(5, 1, 2, 2))
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    logits = ours(x)
    torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), x)

    assert ours.batches == [[5, 0], [2, 2]]
    assert (ours.forwards, ours.backwards) == (theirs.forwards, theirs.backwards) == (7, 4)


def test_a_replay_makes_the_same_passes(script: Callable[[str], ModuleType]) -> None:
    """What was noted and made again is noted again."""
    peers = script("peers")
    model = peers.Counting(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    batches = [[3, 0], [1, 1], [2, 3]]

    peers.replay(model, torch.rand(3, 1, 2, 2), batches)

    assert model.batches == batches


def test_autoattack(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """Winnow makes the same search until an example breaks; it asks 6 times before, and judges."""
    script("autoattack").main(["--n", "4", "--defenses", "relu", "--epsilon", WIDE])

    (peer, bare, winnow), below = printed(capsys)
    robust = {side["robust accuracy (%), by epsilon"] for side in (peer, winnow)}
    assert [peer["by"], bare["by"], winnow["by"]] == ["pyautoattack", "its passes alone", "Winnow"]
    assert [bare["forwards"], bare["backwards"]] == [peer["forwards"], peer["backwards"]]
    assert robust == {"0"}
    active = right("relu", 4)
    assert active == 4  # else the library would ask about its clean errors, too
    # APGD-CE: its start and 100 steps, each forward with its backward; what is broken leaves.
    saved = count(peer["backwards"]) - count(winnow["backwards"])
    assert count(peer["backwards"]) == 101 * active
    assert 0 < saved <= 100 * active
    # Each candidate is judged in its batch and, being wrong there, alone.
    more = 6 * 4 + 2 * active
    checks = 6 * active  # of the engine, for AutoAttack's flags
    assert count(winnow["forwards"]) == count(winnow["backwards"]) + checks + more
    assert f"n = 4, seed = 0, data = digits, Linf = {WIDE}" in below
    assert "torch " in below


def test_foolbox_sweep(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """PGD has 40 steps and the check of its end, of every example at every epsilon."""
    arguments = ["--n", "4", "--epsilons", "0.001,0.002", "--sweeps", "each", "--attacks", "pgd"]
    script("foolbox_sweep").main(arguments)

    (peer, winnow), below = printed(capsys)
    active = right("relu", 4)
    curve = [float(point) for point in winnow["robust accuracy (%), by epsilon"].split()]
    assert curve == [25 * active] * 2  # nothing breaks, and nothing leaves
    judged = 2 * active
    assert (count(peer["forwards"]), count(peer["backwards"])) == (2 * 41 * 4, 2 * 40 * 4)
    assert count(winnow["forwards"]) == 2 * 41 * active + judged
    assert count(winnow["backwards"]) == 2 * 40 * active
    assert "pgd by Winnow, each" in below


@pytest.mark.usefixtures("gradients_alone")
def test_curve(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where everything breaks there is no floor, and the library pays at each epsilon again."""
    autoattack = script("autoattack")
    monkeypatch.setitem(autoattack.EPSILONS, "digits", "0.3,0.35")
    autoattack.main(["--curve", "--n", "3", "--defenses", "relu"])

    lines, below = printed(capsys)
    by = {line["by"]: line for line in lines}
    each, sweep = by["pyautoattack, each epsilon"], by["Winnow, sweep"]
    assert right("relu", 3) == 3
    # Once over APGD-CE at each of two epsilons; the sweep's examples leave it.
    assert count(each["backwards"]) == 2 * 101 * 3
    assert 0 < count(sweep["backwards"]) < count(each["backwards"])
    assert by["floor"]["of the floor"] == sweep["of the floor"] == "–"
    assert "0 survivals inferred, 0 attacked after all, 0 of them broke" in below
    assert "0 0 by pyautoattack, 0 0 by Winnow, 0.0 points apart at most" in below


@pytest.mark.parametrize("name", ["fgsm", "pgd[steps=3]", "fmn"])
def test_peers_have_the_parameters_of_winnow(
    script: Callable[[str], ModuleType], name: str
) -> None:
    """Foolbox gets as many steps of the size that the attack of that name has here."""
    attack = registry.attacks.create(name)
    assert isinstance(attack, FoolboxAttack)

    peer = script("peers").foolbox_attack(attack)

    for parameter in ("steps", "rel_stepsize", "random_start"):
        expected = attack.options(Norm.LINF).get(parameter)
        assert expected is None or getattr(peer, parameter) == expected
