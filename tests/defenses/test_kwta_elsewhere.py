"""k-WTA where nobody asks for values: on a pretended GPU in its plain form, and in `torch.func`."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.functional import cross_entropy

from bench.defenses.activations import KWTA, kwta
from bench.defenses.activations.kinds import KINDS, Kind
from tests.pretended import GPU, pretended_gpu

EXACT = pytest.mark.parametrize("exact", [False, True])
KIND = pytest.mark.parametrize("kind", KINDS)


def network(kind: Kind, *, exact: bool) -> nn.Sequential:
    """Two layers of k-WTA, in float64, where what is added in another order differs by 1e-16."""
    torch.manual_seed(0)
    first, second = (KWTA(share, kind=kind, exact=exact) for share in (0.2, 0.3))
    layers = [nn.Conv2d(1, 4, 3), first, nn.Flatten(), nn.Linear(64, 20), second, nn.Linear(20, 3)]
    return nn.Sequential(*layers).double()


def batch() -> tuple[Tensor, Tensor]:
    """Tied pixels among them, and labels."""
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    return (x * 4).round() / 4, torch.tensor([0, 1, 2, 0, 1])


@EXACT
@KIND
def test_a_gpu_is_not_waited_for(kind: Kind, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither forwards nor backwards, in the form without kernels; the result is the CPU's."""
    monkeypatch.setattr(kwta, "_kernels", lambda x, first: None)
    module, (x, labels) = network(kind, exact=exact), batch()
    expected = torch.autograd.grad(cross_entropy(module(x), labels), list(module.parameters()))
    with pretended_gpu() as waits:
        there, labels = network(kind, exact=exact).to(GPU), labels.to(GPU)
        inputs = x.to(GPU)
        waits.clear()
        loss = cross_entropy(there(inputs), labels)
        found = torch.autograd.grad(loss, list(there.parameters()))
        assert not waits
        found = tuple(each.cpu() for each in found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@EXACT
@KIND
def test_a_group_with_nan_is_nan_on_a_gpu(
    kind: Kind, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernels have it; the other groups are as ever, and it passes no gradient."""
    monkeypatch.setattr(kwta, "_kernels", lambda x, first: None)
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    module = KWTA(0.3, kind=kind, exact=exact)
    expected = module(x)
    spoilt = (2, 3) if kind.startswith("channel") else (2,)
    expected[spoilt] = torch.nan
    x[2, 3, 1, 4] = torch.nan
    with pretended_gpu():
        given = x.to(GPU).requires_grad_()
        found = module(given)
        (gradient,) = torch.autograd.grad(found.sum(), given)
        found, gradient = found.detach().cpu(), gradient.cpu()
    assert torch.equal(found.nan_to_num(9), expected.nan_to_num(9))
    assert not gradient[spoilt].any()


@pytest.mark.parametrize("smooth", [False, True], ids=["own", "smooth"])
@EXACT
@KIND
def test_gradients_by_torch_func(kind: Kind, exact: bool, smooth: bool) -> None:
    """Of each example by `vmap` of `grad`, and of the weights: those of `torch.autograd.grad`."""
    module, (x, labels) = network(kind, exact=exact), batch()
    for layer in module:
        if isinstance(layer, KWTA) and smooth:
            layer.soften(0.05, 1.0)

    def loss(one: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(module(one[None]), label[None])

    each = [one.clone().requires_grad_() for one in x]
    expected = [
        torch.autograd.grad(loss(*pair), pair[0])[0] for pair in zip(each, labels, strict=True)
    ]
    torch.testing.assert_close(vmap(grad(loss))(x, labels), torch.stack(expected))

    weights = dict(module.named_parameters())
    found = grad(lambda given: cross_entropy(functional_call(module, given, x), labels))(weights)
    of_weights = torch.autograd.grad(cross_entropy(module(x), labels), list(weights.values()))
    torch.testing.assert_close(tuple(found.values()), of_weights)


@EXACT
@KIND
def test_a_derivative_forwards(kind: Kind, exact: bool) -> None:
    """Along a direction: its inner product with the gradient of each logit."""
    module, (x, _) = network(kind, exact=exact), batch()
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()
    values, found = jvp(module, (x,), (along,))[:2]
    given = x.clone().requires_grad_()
    logits = module(given)
    assert torch.equal(values, logits)
    for number in range(logits.shape[1]):
        (slope,) = torch.autograd.grad(logits[:, number].sum(), given, retain_graph=True)
        torch.testing.assert_close(found[:, number], (slope * along).flatten(1).sum(dim=1))
