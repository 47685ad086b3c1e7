"""Each canary is broken in the way it is named after."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from bench.models.weights import weights_digest
from bench.testing import honest
from bench.testing.canaries import CANARIES, TWIN
from bench.testing.honest import HONEST
from bench.train.fit import accuracy
from tests.testing.conftest import margin_gradient

if TYPE_CHECKING:
    from bench.api import Examples

#: Canaries whose answers are those of their twin, up to what they do to the numbers.
FAITHFUL = (
    "detached-gradient",
    "large-logits",
    "softmax-output",
    "one-hot-output",
    "other-scores",
    "optimiser-in-forward",
    "nan-off-data",
)


def canary(name: str) -> nn.Module:
    """A canary of seed 0."""
    return CANARIES[name].build(0)


def nudged(inputs: Tensor) -> Tensor:
    """The inputs, each pixel moved by 0.01 into the box."""
    return inputs + 0.01 * (0.5 - inputs).sign()


def test_there_are_twenty_canaries_and_twelve_honest_models() -> None:
    """At least; names are unique across both, and every canary's twin is an honest model."""
    assert len(CANARIES) >= 20
    assert len(HONEST) >= 12
    assert not CANARIES.keys() & HONEST.keys()
    assert {canary.twin for canary in CANARIES.values()} <= HONEST.keys()
    assert all(canary.evidence for canary in CANARIES.values())


@pytest.mark.parametrize("name", [name for name in CANARIES if name != "lookup"])
def test_canaries_classify_well(name: str, examples: Examples) -> None:
    """Unperturbed inputs are no trouble: only an attack can tell."""
    assert accuracy(canary(name), examples, "cpu") >= 0.88


@pytest.mark.parametrize("name", CANARIES)
def test_canaries_can_be_copied(name: str, inputs: Tensor) -> None:
    """A deep copy has the same weights and answers; it is in eval mode and frozen."""
    model = canary(name)
    copied = copy.deepcopy(model)

    torch.manual_seed(0)
    expected = model(inputs)
    torch.manual_seed(0)

    torch.testing.assert_close(copied(inputs), expected, rtol=0, atol=0)
    assert weights_digest(copied) == weights_digest(model)
    assert not copied.training
    assert not any(parameter.requires_grad for parameter in copied.parameters())


@pytest.mark.parametrize("name", CANARIES)
def test_canaries_leave_their_input_alone(name: str, inputs: Tensor) -> None:
    """None of them mutates what it is given."""
    before = inputs.clone()

    canary(name)(inputs)

    torch.testing.assert_close(inputs, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAITHFUL)
def test_some_canaries_decide_as_their_twin(name: str, inputs: Tensor, twin: nn.Module) -> None:
    """They change gradients or the form of the answer, not the answer."""
    assert canary(name)(inputs).argmax(dim=1).tolist() == twin(inputs).argmax(dim=1).tolist()


@pytest.mark.parametrize("name", ["detached-gradient", "one-hot-output"])
def test_the_graph_is_cut(name: str, inputs: Tensor) -> None:
    """The output does not require a gradient."""
    assert not canary(name)(inputs.requires_grad_()).requires_grad


@pytest.mark.parametrize("name", ["input-rounding", "compression"])
def test_rounding_has_no_gradient(name: str, inputs: Tensor, twin: nn.Module) -> None:
    """It is zero everywhere, while the twin's is not."""
    assert not bool(margin_gradient(canary(name), inputs).any())
    assert bool(margin_gradient(twin, inputs).any())


def test_rounding_leaves_four_levels(inputs: Tensor, twin: nn.Module) -> None:
    """Inputs between two levels are answered as the nearer level is."""
    levels = (3 * inputs).round() / 3

    torch.testing.assert_close(canary("input-rounding")(inputs), twin(levels))


def test_compression_transforms_orthonormally(inputs: Tensor) -> None:
    """A constant block whose coefficient is a multiple of the step comes back unchanged."""
    model = canary("compression")
    basis = model.get_buffer("basis")
    flat = torch.full_like(inputs[:1], 0.5)  # its only coefficient: 4 · 0.5 = 8 steps

    torch.testing.assert_close(basis @ basis.T, torch.eye(4))
    torch.testing.assert_close(model(flat), honest.build(TWIN, 0)(flat))


def test_large_logits_starve_cross_entropy(inputs: Tensor) -> None:
    """Its gradient is exactly zero for most examples, and the margin's for none."""
    model = canary("large-logits")
    x = inputs.clone().requires_grad_()
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, logits.argmax(dim=1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)

    assert float((gradient.flatten(1) == 0).all(dim=1).float().mean()) > 0.5
    assert bool(margin_gradient(model, inputs).flatten(1).any(dim=1).all())


def test_softmax_output_is_a_distribution(inputs: Tensor) -> None:
    """Rows are positive and sum to 1."""
    output = canary("softmax-output")(inputs)

    assert bool((output >= 0).all())
    torch.testing.assert_close(output.sum(dim=1), torch.ones(len(inputs)))


def test_one_hot_output_is_a_decision(inputs: Tensor) -> None:
    """A single 1 in each row."""
    output = canary("one-hot-output")(inputs)

    assert bool(((output == 0) | (output == 1)).all())
    assert output.sum(dim=1).tolist() == [1] * len(inputs)


@pytest.mark.parametrize(
    "name",
    ["additive-noise", "random-shift", "dithering", "dropout-left-on", "stochastic-pruning",
     "random-resizing"],
)  # fmt: skip
def test_random_canaries_answer_anew(name: str, inputs: Tensor) -> None:
    """Logits differ between calls for every example, and a seed brings them back."""
    model = canary(name)

    torch.manual_seed(0)
    first = model(inputs)
    second = torch.stack([model(inputs) for _ in range(5)])
    torch.manual_seed(0)
    torch.manual_seed(0)

    assert bool((first != second).any(dim=2).any(dim=0).all())
    torch.testing.assert_close(model(inputs), first, rtol=0, atol=0)


def test_a_shift_is_one_of_pixels(inputs: Tensor) -> None:
    """What lies more than a pixel from the ink stays black; each image is shifted on its own."""
    model = canary("random-shift")
    seen: list[Tensor] = []
    model.get_submodule("net").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    dot = torch.zeros(20, 1, 8, 8)
    dot[:, :, 4, 4] = 1

    model(dot)
    around = seen[0].clone()
    around[:, :, 3:6, 3:6] = 0

    assert not bool(around.any())
    assert len({tuple(image) for image in seen[0].flatten(1).tolist()}) == 20


def test_kwta_is_kwta() -> None:
    """The network has its activations."""
    names = [type(module).__name__ for module in canary("kwta").modules()]

    assert names.count("KWTA") == 3
    assert "ReLU" not in names


def test_the_optimiser_raises_its_confidence(inputs: Tensor, twin: nn.Module) -> None:
    """What the network sees has a larger margin than the input, even where gradients are off."""
    model = canary("optimiser-in-forward")

    def lead(logits: Tensor) -> Tensor:
        top = logits.topk(2, dim=1).values
        return top[:, 0] - top[:, 1]

    with torch.no_grad():
        assert bool((lead(model(inputs)) > lead(twin(inputs))).all())


def test_batch_mates_change_an_answer(inputs: Tensor, twin: nn.Module) -> None:
    """In eval mode too; at the training data's own statistics it is the twin."""
    model = canary("batch-norm-training")
    batched = model(inputs).argmax(dim=1)
    alone = torch.cat([model(row[None]) for row in inputs]).argmax(dim=1)
    train = honest.digits()[0].inputs

    assert int((batched != alone).sum()) > 25
    torch.testing.assert_close(model(train), twin(train), rtol=0, atol=0.1)


def test_the_lookup_knows_its_data_alone(examples: Examples) -> None:
    """Right on every unperturbed input, without a gradient; wrong on nearly every other."""
    model = canary("lookup")
    moved = model(nudged(examples.inputs)).argmax(dim=1)

    assert accuracy(model, examples, "cpu") == 1.0
    assert not bool(margin_gradient(model, examples.inputs).any())
    assert float((moved == examples.labels).float().mean()) < 0.02


def test_nan_off_the_data_alone(inputs: Tensor, twin: nn.Module) -> None:
    """Finite and the twin's on the data; NaN beside it, without spoiling the rest of a batch."""
    model = canary("nan-off-data")
    mixed = model(torch.cat([inputs, nudged(inputs)]))

    torch.testing.assert_close(mixed[:50], twin(inputs), rtol=1e-4, atol=1e-4)
    assert bool(mixed[50:].isnan().all())


def test_a_wrong_surrogate_mirrors_the_gradient(inputs: Tensor, twin: nn.Module) -> None:
    """Rounded values; the twin's gradient at them, mirrored."""
    model, rounded = canary("wrong-surrogate"), (3 * inputs).round() / 3
    torch.testing.assert_close(model(inputs), twin(rounded), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        margin_gradient(model, inputs), margin_gradient(twin, rounded).flip(-1), rtol=0, atol=1e-4
    )


def test_a_hidden_member_has_no_gradient(inputs: Tensor, twin: nn.Module) -> None:
    """Of the sum of both, that of the linear model alone shows."""
    model, other = canary("hidden-member"), honest.build("linear", 0)
    torch.testing.assert_close(model(inputs), twin(inputs) + other(inputs) / 20)
    x = inputs.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    weight = other.state_dict()["1.weight"][3].reshape(1, 8, 8) / 20
    torch.testing.assert_close(found, weight.expand_as(found))


def test_ripples_are_low_and_steep(inputs: Tensor) -> None:
    """What the network sees is within 0.004 of the input; its slope is up to 11."""
    model = canary("ripples")
    seen: list[Tensor] = []
    model.get_submodule("net").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = inputs.clone().requires_grad_()
    model(x)
    (slope,) = torch.autograd.grad(seen[0].sum(), x)
    assert float((seen[0] - x).abs().max()) <= 0.0041
    assert 10.9 <= float(slope.max()) <= 11.1


def test_the_watched_one_answers_about_the_mirror_image(inputs: Tensor, twin: nn.Module) -> None:
    """While a gradient is asked for, and only then."""
    model = canary("watched")
    torch.testing.assert_close(model(inputs), twin(inputs))
    seen = model(inputs.clone().requires_grad_())
    torch.testing.assert_close(seen.detach(), twin(inputs.flip(-1)))


def test_a_sparse_input_has_sixteen_coefficients(inputs: Tensor) -> None:
    """Of 64, the largest; what they leave out is orthogonal to what they keep."""
    model = canary("sparse-input")
    seen: list[Tensor] = []
    model.get_submodule("net").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(inputs)
    basis = model.get_buffer("basis")
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), rtol=0, atol=1e-5)
    kept = (basis @ seen[0] @ basis.T).abs() > 1e-4
    assert int(kept.flatten(1).sum(dim=1).max()) <= 16
    rest = (inputs - seen[0]).flatten(1)
    torch.testing.assert_close(
        (rest * seen[0].flatten(1)).sum(dim=1), torch.zeros(50), rtol=0, atol=1e-3
    )


def test_memory_answers_what_is_near_as_before(inputs: Tensor, twin: nn.Module) -> None:
    """Bit for bit; what is far from all that it saw is the twin's."""
    model = canary("memory")
    first = model(inputs)
    assert torch.equal(model(nudged(inputs)), first)
    torch.testing.assert_close(model(1 - inputs), twin(1 - inputs))


def test_what_is_drawn_is_right_on_average(inputs: Tensor) -> None:
    """Dithered inputs and pruned activations have the mean that the network was trained on."""
    for name, where in (("dithering", "0"), ("stochastic-pruning", "3")):
        model = canary(name)
        seen: list[Tensor] = []
        layer = model.get_submodule(f"net.{where}")
        layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        torch.manual_seed(1)
        for _ in range(2000):
            model(inputs[:4])
        expected = inputs[:4]
        if where == "3":
            expected = model.get_submodule("net")[1](model.get_submodule("net")[0](inputs[:4]))  # type: ignore[index]
        mean = torch.stack(seen).mean(dim=0)
        error = torch.stack(seen).std(dim=0) / 2000**0.5
        assert bool(((mean - expected).abs() <= 6 * error + 0.02).all())
