"""The smooth backward pass of layers in which the largest win, by differences of a soft choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from bench.defenses.activations import KWTA, LWTA, MaxPoolActivation
from bench.defenses.activations.kinds import KINDS, Kind
from bench.defenses.activations.smooth import (
    JUMP,
    TAU,
    Competition,
    Smoothness,
    WinnersTakeAll,
    soften,
    threshold,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TAU_HERE = 0.3
GROUP = 4


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Random float64 values, none of them tied, a little off the middle."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator) + 0.2


def groups_of(layer: nn.Module, shape: torch.Size) -> list[Tensor]:
    """Flat indices of an example's units that compete with one another, by the definition."""
    places = torch.arange(shape[1:].numel()).reshape(shape[1:])
    if isinstance(layer, KWTA):
        return list(places.flatten(1)) if layer.kind.startswith("channel") else [places.flatten()]
    assert isinstance(layer, LWTA | MaxPoolActivation)
    sets = torch.split(places, layer.group)
    return [column for part in sets for column in part.flatten(1).T]


def score_of(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """By what units compete."""
    kind = layer.kind if isinstance(layer, KWTA) else "layer"
    if kind == "smallest":
        return lambda x: -x.abs()
    return torch.abs if kind.endswith("magnitude") else lambda x: x


class Soft:
    """The smoothed layer at a point: a threshold that moves so that as many win as there.

    Its width stays; the threshold is found anew by bisection for every input.
    """

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer, self.groups, self.scored = layer, groups_of(layer, x.shape), score_of(layer)
        self.widths, self.winning = [], []
        flat = x.flatten()
        for group in self.groups:
            scores = self.scored(flat[group]).sort(descending=True).values
            k = layer.winners(len(group)) if isinstance(layer, KWTA) else 1
            among = self.scored(flat) if len(group) == GROUP else scores
            width = TAU_HERE * float(among.std(correction=0))
            start = (scores[k - 1] + scores[k]) / 2
            self.widths.append(width)
            self.winning.append(float(torch.sigmoid((scores - start) / width).sum()))

    def __call__(self, x: Tensor) -> Tensor:
        """Of one input (1, ...)."""
        flat, out = x.flatten(), torch.zeros_like(x).flatten()
        for group, width, winning in zip(self.groups, self.widths, self.winning, strict=True):
            scores = self.scored(flat[group])
            low, high = float(scores.min()) - 50, float(scores.max()) + 50
            for _ in range(80):
                middle = (low + high) / 2
                many = float(torch.sigmoid((scores - middle) / width).sum()) > winning
                low, high = (middle, high) if many else (low, middle)
            kept = flat[group] * torch.sigmoid((scores - low) / width)
            pooled = isinstance(self.layer, MaxPoolActivation)
            out[group] = kept.sum() if pooled else kept
        return out.reshape(x.shape)


@pytest.mark.parametrize(
    "layer",
    [*(KWTA(0.3, kind=kind) for kind in KINDS), KWTA(k=5, exact=True), LWTA(GROUP),
     MaxPoolActivation(GROUP)],
    ids=str,
)  # fmt: skip
def test_it_is_the_derivative_of_a_soft_choice(layer: WinnersTakeAll) -> None:
    """With the derivative of the threshold, which keeps the number of winners, taken whole."""
    x, incoming = draw(1, 2 * GROUP, 3, 2), draw(1, 2 * GROUP, 3, 2, seed=1)
    soft = Soft(layer, x)
    layer.soften(TAU_HERE, 1.0)
    point = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(layer(point), point, incoming)

    wanted = torch.zeros_like(x).flatten()
    for i in range(x.numel()):
        step = torch.zeros_like(x).flatten()
        step[i] = 1e-5
        step = step.reshape(x.shape)
        wanted[i] = ((soft(x + step) - soft(x - step)) * incoming).sum() / 2e-5
    torch.testing.assert_close(found, wanted.reshape(x.shape), rtol=1e-6, atol=1e-6)


LAYERS: list[Callable[[], WinnersTakeAll]] = [
    *(lambda kind=kind: KWTA(0.2, kind=kind) for kind in KINDS),
    lambda: KWTA(0.2, exact=True), lambda: LWTA(2), lambda: MaxPoolActivation(2),
]  # fmt: skip


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_stay_bit_for_bit(make: Callable[[], WinnersTakeAll], dtype: torch.dtype) -> None:
    """Tied ones, infinite ones, and the order in memory; alone and where a gradient is asked."""
    x = draw(3, 4, 5, 5).to(dtype)
    tied, infinite = (2 * x).round() / 2, torch.where(x > 1.5, torch.inf, x)
    for given in (x, tied, infinite, x.to(memory_format=torch.channels_last)):
        own = make()(given)
        layer = make()
        layer.soften(0.03, 1.0)
        assert torch.equal(layer(given), own)
        found = layer(given.clone().requires_grad_())
        assert torch.equal(found, own)
        assert (found.dtype, found.stride()) == (own.dtype, own.stride())


@pytest.mark.parametrize("make", LAYERS)
def test_the_order_in_memory_changes_no_gradient(make: Callable[[], WinnersTakeAll]) -> None:
    """Whatever lies in channels_last: the input, what comes back, or both."""
    x, incoming = draw(3, 4, 5, 6), draw(3, 4, 5, 6, seed=1)
    layer = make()
    layer.soften(0.3, 1.0)
    found: list[Tensor] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        point = x.to(memory_format=layout).requires_grad_()
        out = layer(point)
        for back in (torch.contiguous_format, torch.channels_last):
            given = incoming.contiguous(memory_format=back)
            found += torch.autograd.grad(out, point, given, retain_graph=True)
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(9, 6, 5, 7), (8, 40), (2, 3, 20, 20)])
def test_numpy_computes_the_formula_bit_for_bit(kind: Kind, shape: tuple[int, ...]) -> None:
    """Who asks for a second derivative is answered by torch: the same first one, ties included."""
    x = draw(*shape).float()
    x[0], x[1, :2] = 0.25, x[1, 2]
    for number, scale in enumerate((1.0, 1e-4, 1e5)):
        point = (scale * x).requires_grad_()
        layer = KWTA(0.2, kind=kind)
        layer.soften(*Smoothness.drawn(0, number))
        out, incoming = layer(point), draw(*shape, seed=1).float()
        (expected,) = torch.autograd.grad(out, point, incoming, create_graph=True)
        (found,) = torch.autograd.grad(out, point, incoming)
        assert torch.equal(found.view(torch.int32), expected.detach().view(torch.int32))


def test_a_threshold_lies_between_those_that_won_and_those_that_lost() -> None:
    """At the lowest winner where nobody lost, at 0 where nobody won."""
    scores = torch.tensor([[[3.0, -2.0, 0.5, -4.0]]] * 4)
    kept = torch.tensor([[[1.0, 0, 1, 0]], [[1.0] * 4], [[0.0] * 4], [[0.0, 0, 0, 1]]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        found = threshold(scores.to(dtype), kept.to(dtype)).flatten().tolist()
        assert found == [-0.75, -4, 0, -0.5]


def test_it_is_set_anew_between_passes() -> None:
    """A pass goes by what was set when its values were computed."""
    x, layer = draw(2, 30).requires_grad_(), KWTA(0.2)
    (own,) = torch.autograd.grad(layer(x).sum(), x)
    found: list[Any] = []
    for tau in (0.05, 0.5, 0.05):
        layer.soften(tau, 1.0)
        out = layer(x)
        layer.soften(9.0, 0.0)
        found += torch.autograd.grad(out.sum(), x)
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], own)


def test_where_every_unit_wins_the_gradient_is_its_own() -> None:
    """There is no threshold; likewise a layer with fewer units than k."""
    for layer in (KWTA(1.0), KWTA(k=50)):
        layer.soften(0.1, 1.0)
        x = draw(2, 30).requires_grad_()
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
        assert torch.equal(gradient, torch.ones_like(x))


def test_soften_reaches_every_layer_that_can_be_told() -> None:
    """Anybody's, by the method alone, however deep inside."""

    class Anybody(nn.Module):
        """Rounds; its backward pass is told how smooth to be."""

        def soften(self, tau: float, jump: float) -> None:
            """Note it."""
            self.told = (tau, jump)

    mine, ours = Anybody(), KWTA()
    assert soften(nn.Sequential(nn.ReLU(), nn.Sequential(mine, ours)), Smoothness(0.2, 0.5))
    assert mine.told == (0.2, 0.5)
    assert ours.smoothness(torch.zeros(1, requires_grad=True)) == (0.2, 0.5)
    assert not soften(nn.Sequential(nn.ReLU()), Smoothness())


def test_draws_stay_within_their_bounds_and_follow_from_seed_and_number() -> None:
    """The width on a logarithmic scale: half of the draws below the geometric mean."""
    drawn = [Smoothness.drawn(3, number) for number in range(400)]
    assert drawn[7] == Smoothness.drawn(3, 7) != Smoothness.drawn(4, 7)
    assert all(TAU[0] <= tau <= TAU[1] and JUMP[0] <= jump <= JUMP[1] for tau, jump in drawn)
    below = sum(tau < (TAU[0] * TAU[1]) ** 0.5 for tau, _ in drawn)
    assert 170 <= below <= 230


@pytest.mark.parametrize(
    "how", [Competition(), Competition(channels=True), Competition("value", False, 3)]
)
def test_groups_are_put_back_where_they_were(how: Competition) -> None:
    """Of images and, where there are no channels to keep apart, of features."""
    for shape in ((2, 6, 4, 5), (2, 6, 7)) if how.channels else ((2, 6, 4, 5), (2, 6), (0, 6, 2)):
        x = torch.arange(torch.Size(shape).numel()).reshape(shape)
        assert torch.equal(how.ungrouped(how.grouped(x), x.shape), x)
