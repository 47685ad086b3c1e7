"""Our own engine of AutoAttack takes the library's steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pyautoattack import fab_projections
from pyautoattack.autopgd_base import APGDAttack, L1_projection
from pyautoattack.fab_pt import FABAttack_PT
from torch import nn

from bench.attacks.blocks.auto_pgd import AutoPGD
from bench.attacks.blocks.batches import drive
from bench.attacks.blocks.catch import Catch
from bench.attacks.blocks.levels import into_l1, onto_plane
from bench.attacks.blocks.objectives import cross_entropy, logits_ratio
from bench.threat import Norm
from tests.attacks.worlds import (
    SHAPE,
    Noted,
    distances,
    network_problem,
    solve,
)

EPSILON = {Norm.LINF: 0.02, Norm.L2: 0.15, Norm.L1: 0.8}


@pytest.mark.usefixtures("nobody_leaves")
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", list(Norm))
def test_auto_pgd_walks_where_the_library_walks(
    norm: Norm, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same noise every one of its points is the library's, at a radius for each row."""
    problem = network_problem(norm, EPSILON[norm], 5, 8)
    noise = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(5))
    own, library = Noted(problem.model), Noted(problem.model)
    objective = cross_entropy if loss == "ce" else logits_ratio
    search = AutoPGD(Catch(replace(problem, model=own)), objective, "test", [0])
    start = search._start(torch.arange(8), noise)
    monkeypatch.setattr(search, "_start", lambda rows, noise: start)
    drive(search, torch.arange(8), problem.inputs)

    radius = EPSILON[norm]
    peer = APGDAttack(library, norm=norm.value, eps=radius, seed=0, loss=loss, device="cpu")
    peer.init_hyperparam(problem.inputs)
    if norm is Norm.L1:
        monkeypatch.setattr(torch, "randn_like", lambda x: noise.clone())
        balls = [3 * radius, 2 * radius, radius]
        peer.decr_eps_pgd(problem.inputs, problem.labels, balls, [30, 30, 40])
    else:
        peer.attack_single_run(problem.inputs, problem.labels, x_init=start)

    apart = (torch.stack(own.batches) - torch.stack(library.batches)).abs()
    assert len(apart) == (103 if norm is Norm.L1 else 101)
    assert apart[:60].max() < 2e-5  # later, rounding turns a tie in L2
    assert apart.max() < 5e-3


@pytest.mark.parametrize("norm", list(Norm))
def test_fab_comes_as_near_as_the_library(norm: Norm) -> None:
    """Nine targets in one batch find the distance that the library's find one by one."""
    problem = network_problem(norm, None, 6, 12)
    found = distances(norm, problem.inputs, solve("fab-t", problem).candidates)
    peer = FABAttack_PT(problem.model, norm=norm.value, n_iter=100, device="cpu")
    nearest = np.full(len(found), np.inf)
    for place in range(5):
        peer.target_class = place + 2
        candidates = peer.attack_single_run(problem.inputs, problem.labels, is_targeted=True)
        with torch.no_grad():
            wrong = (problem.model(candidates).argmax(dim=1) != problem.labels).numpy()
        far = np.where(wrong, distances(norm, problem.inputs, candidates), np.inf)
        nearest = np.minimum(nearest, far)
    assert np.median(np.abs(found / nearest - 1)) < 1e-3
    assert (found / nearest).max() < 1.02  # where rounding leads elsewhere, it was nearer


@pytest.mark.parametrize("norm", list(Norm))
def test_steps_onto_a_plane_are_the_library_s(norm: Norm) -> None:
    """Against its projection, for planes within reach and planes that the box keeps away."""
    generator = torch.Generator().manual_seed(3)
    x = (1.4 * torch.rand(60, 20, generator=generator) - 0.2).clamp(0, 1)
    weights = torch.randn(60, 20, generator=generator)
    needed = torch.linspace(-8, 8, 60)
    project = {
        Norm.LINF: fab_projections.projection_linf,
        Norm.L2: fab_projections.projection_l2,
        Norm.L1: fab_projections.projection_l1,
    }[norm]
    expected = project(x, weights, (weights * x).sum(dim=1) + needed)
    step = onto_plane(norm, x, weights, needed)
    assert (step - expected).abs().max() < 2e-5
    assert ((x + step > -1e-6) & (x + step < 1 + 1e-6)).all()


def test_points_go_into_an_l1_ball_as_the_library_s_do() -> None:
    """The nearest point of ball and box, for small balls and for ones with room to spare."""
    generator = torch.Generator().manual_seed(4)
    inputs = (1.4 * torch.rand(50, *SHAPE, generator=generator) - 0.2).clamp(0, 1)
    x = inputs + torch.randn(inputs.shape, generator=generator)
    for radius in (0.1, 2.0, 1000.0):
        expected = x + L1_projection(inputs, x - inputs, radius)
        found = into_l1(inputs, x, torch.full((50,), radius))
        assert (found - expected).abs().max() < 1e-5


def test_settings_are_the_library_s() -> None:
    """The numbers of its standard version, read from it."""
    import pyautoattack

    from bench.attacks.blocks import spending

    for norm in Norm:
        library = pyautoattack.AutoAttack(nn.Identity(), norm=norm.value, eps=1.0, device="cpu")
        assert spending.restarts(norm) == library.apgd.n_restarts
        assert spending.targets(100, norm) == library.apgd_targeted.n_target_classes
        assert spending.targets(100) == library.fab.n_target_classes
        assert library.apgd.n_iter == library.fab.n_iter == spending.STEPS
        assert library.square.n_queries == spending.QUERIES
        assert (len(spending.balls(norm)) > 1) == library.apgd.use_largereps
