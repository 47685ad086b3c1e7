"""The adaptive attack: its backward pass against autograd, its search against closed forms."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.attacks.adaptive import LIMITS
from bench.attacks.blocks import chains, smoothing
from bench.attacks.blocks.chains import Chains
from bench.attacks.blocks.limits import Limits
from bench.attacks.blocks.outlook import Outlook
from bench.attacks.blocks.smoothing import SmoothBackward
from bench.defenses.activations import KWTA, LWTA, MaxPoolActivation
from bench.defenses.activations.smooth import SCORES, Competition, Smoothness
from bench.models.counted import CountedModel
from bench.threat import Norm
from tests.attacks.worlds import Function, broken, linear_problem, pose, solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Problem

SMOOTH = Smoothness(0.3, 0.7)


def by_autograd(x: Tensor, score: str, k: int, smooth: Smoothness, g: Tensor) -> Tensor:
    """The gradient of a soft k-WTA whose threshold moves so that as many win as before.

    Written as torch would differentiate it: x c with c = sigmoid((s − t) / T), T and the starting
    threshold constants, and t moving with the scores by the implicit function theorem.
    """
    x = x.clone().requires_grad_()
    scores = {"value": x, "magnitude": x.abs(), "smallness": -x.abs()}[score]
    ordered = scores.detach().sort(dim=-1, descending=True).values
    start = (ordered[..., k - 1 : k] + ordered[..., k : k + 1]) / 2
    width = smooth.tau * scores.detach().std(dim=-1, keepdim=True, correction=0)
    chosen = torch.sigmoid((scores.detach() - start) / width)
    weight = chosen * (1 - chosen)
    moved = (weight * (scores - scores.detach())).sum(-1, keepdim=True) / weight.sum(-1, True)
    still = torch.sigmoid((scores.detach() - start) / width)
    moving = torch.sigmoid((scores - start - moved) / width)
    # A share `jump` of the derivative of the choice: the rest of it is held still.
    value = x * (smooth.jump * (moving - moving.detach()) + still)
    (gradient,) = torch.autograd.grad((value * g).sum(), x)
    return gradient


def through(
    module: nn.Module, x: Tensor, smooth: Smoothness
) -> tuple[Tensor, Callable[..., Tensor]]:
    """What a module answers under a smooth backward pass, and its gradient for an incoming one."""
    with SmoothBackward(module) as backward:
        backward.smooth = smooth
        point = x.clone().requires_grad_()
        out = module(point)
    return out, lambda g: torch.autograd.grad((out * g).sum(), point)[0]


@pytest.mark.parametrize(
    ("kind", "score", "channels"),
    [
        ("layer", "value", False),
        ("magnitude", "magnitude", False),
        ("smallest", "smallness", False),
        ("channel", "value", True),
        ("channel-magnitude", "magnitude", True),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_the_backward_pass_of_k_wta_is_the_derivative_of_a_soft_choice(
    kind: Any, score: str, channels: bool, exact: bool
) -> None:
    """Against autograd in float64, for each kind; the values are the layer's, bit for bit."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 2, 5, 4, generator=generator, dtype=torch.float64) + 0.2
    g = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    layer = KWTA(0.3, kind=kind, exact=exact)
    out, gradient = through(layer, x, SMOOTH)
    assert torch.equal(out, layer(x))
    how = Competition(score, channels)
    k = layer.winners(20 if channels else 40)
    wanted = by_autograd(how.grouped(x), score, k, SMOOTH, how.grouped(g)).reshape(x.shape)
    torch.testing.assert_close(gradient(g), wanted, rtol=1e-9, atol=1e-12)


def test_without_the_jump_it_is_the_soft_mask() -> None:
    """And as the width falls to nothing, the mask of the winners: the layer's own gradient."""
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, gradient = through(KWTA(0.2), x, Smoothness(1e-6, 0.0))
    torch.testing.assert_close(gradient(torch.ones_like(x)), (KWTA(0.2)(x) != 0).double())


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(), nn.LeakyReLU(), nn.GELU(), nn.Identity(), nn.Dropout(0.5).eval(), nn.Tanh(),
        nn.Hardshrink(0.5), nn.Softmax(dim=1), MaxPoolActivation(), nn.Linear(32, 32),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_other_layers_keep_their_gradient(layer: nn.Module) -> None:
    """Those that gate each unit by itself, and those that do not gate."""
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(3))
    _, gradient = through(layer, x, SMOOTH)
    own = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(layer(own).sum(), own)
    torch.testing.assert_close(gradient(torch.ones(())), wanted)


def test_a_sparse_input_of_an_identity_is_not_taken_for_a_choice() -> None:
    """What comes behind k-WTA answers with equally many zeros without choosing anything."""
    model = nn.Sequential(KWTA(0.2), nn.Identity(), nn.Flatten())
    with SmoothBackward(model) as backward:
        backward.smooth = SMOOTH
        model(torch.randn(8, 1, 6, 6).requires_grad_())
    assert backward.layers == ["1 KWTA"]


def test_the_model_is_left_as_it_was() -> None:
    """After an exception, too."""
    model = nn.Sequential(KWTA(0.2), nn.ReLU())
    with pytest.raises(ZeroDivisionError), SmoothBackward(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


def search(problem: Problem, passes: int = 600) -> Chains:
    """The chains of a problem, run."""
    attack = registry.attacks.create("adaptive")
    found: list[Chains] = []
    with pytest.MonkeyPatch.context() as patch:
        own = Chains.__init__

        def noted(self: Chains, *given: Any, **named: Any) -> None:
            own(self, *given, **named)
            found.append(self)

        patch.setattr(Chains, "__init__", noted)
        vars(attack)["passes"] = passes
        attack.run(problem)
    return found[0]


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("classes", [2, 10])
def test_a_linear_model_is_broken_exactly_and_agreed_upon_at_once(norm: Norm, classes: int) -> None:
    """No example within epsilon survives, none beyond breaks, and those take no hop."""
    problem, exact = linear_problem(classes, norm, 12)
    assert problem.epsilon is not None
    found = search(problem)
    proposal = solve("adaptive", problem)
    hit = broken(problem, proposal)
    # In L1 a single pixel takes it all at last, which steps of any size pass by a little.
    reach = problem.epsilon * (0.97 if norm is Norm.L1 else 1)
    assert hit[exact < reach].all()
    assert not hit[exact > problem.epsilon].any()
    left = torch.from_numpy(exact >= problem.epsilon)
    if norm is Norm.LINF:  # where a step of its sign is all that a linear model asks for
        assert int(found.spent[left].max()) <= chains.BEGINNING


def ruffled(x: Tensor) -> Tensor:
    """Logits of a sum with waves on it, on which searches seldom end equally low."""
    s = (x - 0.5).flatten(1).sum(dim=1) + 2 * torch.sin(40 * x).flatten(1).sum(dim=1)
    return torch.stack([-s, s], dim=1)


@pytest.mark.parametrize("preset", ["light", "default"])
@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0])
def test_its_cost_is_an_upper_bound_that_is_reached(
    preset: str, blind: bool, epsilon: float
) -> None:
    """Where searches do not agree it takes all that it may, with and without a gradient.

    At large epsilons, too, where a ball that shrinks begins with the whole box.
    """
    mixed = torch.randn(36, 36, generator=torch.Generator().manual_seed(5))

    def rough(x: Tensor) -> Tensor:  # never broken, and never twice equally low
        waves = (x.detach() if blind else x).flatten(1) @ mixed
        s = 40 + torch.sin(1000 * waves).sum(dim=1)
        return torch.stack([s, -s], dim=1)

    inputs = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    labels = torch.zeros(4, dtype=torch.int64)
    problem = pose(Function(rough), inputs, labels, epsilon=epsilon, classes=2)
    attack = registry.attacks.create(f"adaptive[preset={preset}]")
    solve(attack.name, problem)
    cost, counted = attack.cost(norm=Norm.LINF, shape=(1, 6, 6), classes=2), problem.model
    assert isinstance(counted, CountedModel)
    assert counted.forwards / 4 <= cost.forwards
    assert counted.backwards / 4 <= cost.backwards
    assert counted.passes.total / 4 >= LIMITS[preset].passes / 2
    assert blind == (counted.backwards / 4 < 10)


def test_an_outcome_depends_neither_on_the_batch_nor_on_its_neighbours() -> None:
    """Each alone finds what all together find, to the last bit; its model is one of sums."""
    inputs = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    labels = ruffled(inputs).argmax(dim=1)
    together = search(pose(Function(ruffled), inputs, labels, epsilon=0.02, classes=2))
    for i in range(len(inputs)):
        part = pose(
            Function(ruffled), inputs[i : i + 1], labels[i : i + 1], epsilon=0.02, classes=2
        )
        alone = search(part)
        assert torch.equal(alone.known.best[0], together.known.best[i])
        assert int(alone.spent[0]) == int(together.spent[i])


def test_without_any_gradient_it_searches_by_scores() -> None:
    """What is well within reach of a linear model breaks though nothing can be differentiated."""
    problem, exact = linear_problem(2, Norm.LINF, 12)
    module: Any = problem.model.module

    def detached(x: Tensor) -> Tensor:
        logits: Tensor = module(x.detach())
        return logits

    assert problem.epsilon is not None
    blind = pose(
        Function(detached), problem.inputs, problem.labels, epsilon=problem.epsilon, classes=2
    )
    far_within = exact < 0.7 * problem.epsilon
    assert far_within.any()
    assert broken(blind, solve("adaptive", blind))[far_within].all()


def test_a_randomised_linear_model_is_moved_by_its_mean_gradient() -> None:
    """Half of the pixels drop out in each answer; in the mean it is linear, and solved by signs."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(1, 8, 8, generator=generator)
    inputs = 0.3 + 0.4 * torch.rand(6, 1, 8, 8, generator=generator)
    means = (weights * inputs).flatten(1).sum(dim=1)
    inputs -= weights * (means / weights.square().sum()).reshape(-1, 1, 1, 1)  # their means: 0
    offset = 1.5 * 0.1 * weights.abs().sum()  # beyond reach in the mean

    def dropped(x: Tensor) -> Tensor:
        kept = 2 * (torch.rand(x.shape) < 0.5)
        s = (weights * kept * x).flatten(1).sum(dim=1) + offset
        return torch.stack([s, -s], dim=1) / 2

    labels = torch.zeros(6, dtype=torch.int64)
    problem = pose(Function(dropped), inputs, labels, epsilon=0.1, classes=2)
    problem = dataclasses.replace(problem, randomised=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = solve("adaptive", problem).candidates
    moved = (weights * (found - inputs)).flatten(1).sum(dim=1)
    assert (moved < -0.85 * 0.1 * weights.abs().sum()).all()


def test_a_randomised_model_s_lowest_point_outlives_the_chains_that_found_it() -> None:
    """Chains that began once more end higher: the point before them is chosen all the same."""
    generator = torch.Generator().manual_seed(8)
    inputs = 0.3 + 0.4 * torch.rand(3, 1, 6, 6, generator=generator)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        s = 10 + x.flatten(1).sum(dim=1) + 0.01 * torch.randn(len(x))
        return torch.stack([s, -s], dim=1)

    labels = torch.zeros(3, dtype=torch.int64)
    posed = pose(Function(noisy), inputs, labels, epsilon=0.1, classes=2)
    problem = dataclasses.replace(posed, randomised=True)
    kept = Chains(problem, Outlook(problem, None), Limits(400, 0.003))
    lowest = inputs - 0.1
    kept.begin()
    known = kept.known
    known.best, known.lowest = lowest.clone(), known.lowest - 50
    known.ends[:], known.heights[:, :2] = inputs[:, None], torch.inf
    kept.choose()
    assert torch.equal(known.best, lowest)


@pytest.mark.whole
def test_it_breaks_what_the_gradient_of_k_wta_hides() -> None:
    """On the committed network far more than descents by its own gradient for as many passes."""
    from bench.data import open_dataset, subset
    from bench.models.contenders import Lineup

    examples = subset(open_dataset("digits").load("test"), 40)
    (kwta,) = Lineup("digits", examples).asked(["kwta"])
    module = kwta.load()
    with torch.no_grad():
        right = module(examples.inputs).argmax(dim=1) == examples.labels
    world = pose(module, examples.inputs[right], examples.labels[right], epsilon=0.1, classes=10)
    smooth, own = (
        int(broken(world, solve(name, world)).sum())
        for name in ("adaptive", "margin-pgd[restarts=60]")
    )
    assert smooth >= own + 6


def test_scores_have_their_own_derivatives() -> None:
    """Of each score by finite differences."""
    x = torch.tensor([-1.5, -0.2, 0.3, 2.0], dtype=torch.float64)
    for scored, slope in SCORES.values():
        numeric = (scored(x + 1e-6) - scored(x - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope(x), numeric, rtol=1e-6)


def test_recognition_wants_equally_many_winners() -> None:
    """A gate whose number of open units varies is no competition, whatever its threshold."""
    x = torch.randn(30, 50, generator=torch.Generator().manual_seed(5))
    assert smoothing.recognise(x, torch.where(x > 0.7, x, 0)) is None
    assert smoothing.recognise(x, KWTA(0.24)(x)) == Competition("value", channels=False)
    tied = x.clone()
    tied[:8, :30] = 0.5  # a constant background, which wins or loses as a whole
    out = KWTA(0.24)(tied)
    assert len((out != 0).sum(dim=1).unique()) > 1
    assert smoothing.recognise(tied, out) == Competition("value", channels=False)


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 5, 4)])
@pytest.mark.parametrize("group", [2, 3, 4])
def test_local_winners_are_recognised(shape: tuple[int, ...], group: int) -> None:
    """One of each group of neighbouring channels wins, and gets the gradient that LWTA declares."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    assert smoothing.recognise(x, LWTA(group)(x)) == Competition(neighbours=group)
    out, gradient = through(LWTA(group), x, SMOOTH)
    layer, point = LWTA(group), x.clone().requires_grad_()
    layer.soften(*SMOOTH)
    declared = layer(point)
    assert torch.equal(out, declared)
    assert torch.equal(gradient(2 * x), torch.autograd.grad(declared, point, 2 * x)[0])


def test_pairs_of_opposite_units_are_no_competition() -> None:
    """ReLU keeps one of each pair, too, and its threshold is 0."""
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(7))
    pairs = torch.stack([x, -x], dim=2).flatten(1)
    assert smoothing.recognise(pairs, pairs.relu()) is None
