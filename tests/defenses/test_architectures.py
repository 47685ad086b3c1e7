"""ResNets, DenseNets and WideResNets against their papers, written anew or taken elsewhere."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.defenses.activations import KWTA
from bench.defenses.networks import build_network
from bench.defenses.networks.deep import densenet, wideresnet
from bench.errors import UsageError
from tests.defenses.references import (
    Function,
    densenet121_units,
    densenet_forward,
    torchvision_densenet,
    torchvision_resnet,
    wideresnet_forward,
    wideresnet_parameters,
)

Activation = Callable[[], nn.Module]

IMAGE = (3, 32, 32)

#: As plain ReLU hides a second one after it, the order of layers shows with another function too.
ACTIVATIONS = [
    pytest.param(nn.ReLU, F.relu, id="relu"),
    pytest.param(nn.SiLU, F.silu, id="silu"),
]

#: Small ones of every kind.
SMALL: dict[str, Callable[[Activation], nn.Module]] = {
    "densenet": lambda activation: densenet(
        (2, 2, 2, 2), 8, shape=IMAGE, classes=10, activation=activation
    ),
    **{
        name: partial(build_network, name, IMAGE, 10)
        for name in ("wideresnet-10-1", "wideresnet-16-2", "resnet10w16", "resnet50w4")
    },
}


def randomised(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, no two layers normalised alike."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for scale in (module.weight.data, module.running_var):
                assert scale is not None
                scale.uniform_(0.5, 1.5, generator=generator)
            for shift in (module.bias.data, module.running_mean):
                assert shift is not None
                shift.normal_(0, 0.2, generator=generator)
    return model.double().eval()


def images(count: int = 3) -> Tensor:
    """Inputs (count, 3, 32, 32) in float64."""
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(1)).double()


class Place(nn.Module):
    """An activation that notes how many units of an example it sees; on any device."""

    def __init__(self, units: list[int]) -> None:
        super().__init__()
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        """ReLU, noted."""
        self.units.append(x[0].numel())
        return x.relu()


def units_of(name: str) -> list[int]:
    """What each place of a network's activation sees in turn; every instance once."""
    units: list[int] = []
    made: list[Place] = []

    def activation() -> nn.Module:
        made.append(Place(units))
        return made[-1]

    with torch.device("meta"):
        model = build_network(name, IMAGE, 10, activation).eval()
        model(torch.empty(1, *IMAGE))
    places = [module for module in model.modules() if isinstance(module, Place)]

    assert {id(place) for place in places} == {id(place) for place in made}
    assert len(places) == len(made) == len(units)
    return units


def parameters(name: str) -> int:
    """How many numbers a network trains."""
    with torch.device("meta"):
        model = build_network(name, IMAGE, 10, nn.ReLU)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("layer", "function"), ACTIVATIONS)
def test_densenet_computes_what_its_paper_defines(layer: Activation, function: Function) -> None:
    """The same logits as a functional forward; the last ReLU stays whatever the activation."""
    blocks = (2, 3, 1, 2)
    model = randomised(densenet(blocks, 8, shape=IMAGE, classes=10, activation=layer))

    expected = densenet_forward(images(), model.state_dict(), blocks, function)
    torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize(("layer", "function"), ACTIVATIONS)
@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_wideresnet_computes_what_its_paper_defines(
    depth: int, width: int, layer: Activation, function: Function
) -> None:
    """The same logits as a functional forward, with and without a shortcut in the first block."""
    model = randomised(wideresnet(depth, width, shape=IMAGE, classes=10, activation=layer))

    expected = wideresnet_forward(images(), model.state_dict(), depth, function)
    torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize("depth", [34, 50])
def test_resnet_computes_what_torchvision_does(depth: int) -> None:
    """The same logits with the same weights, copied in their order."""
    model = randomised(build_network(f"resnet{depth}", IMAGE, 10, nn.ReLU))
    with torch.device("meta"):
        other = torchvision_resnet(depth).eval()
    other.load_state_dict(
        dict(zip(other.state_dict(), model.state_dict().values(), strict=True)), assign=True
    )

    with torch.no_grad():
        torch.testing.assert_close(model(images(1)), other(images(1)))


def test_densenet121_has_torchvisions_weights() -> None:
    """Shape by shape, in the order of the layers."""
    with torch.device("meta"):
        ours = build_network("densenet121", IMAGE, 10, nn.ReLU).state_dict().values()
        other = torchvision_densenet().state_dict().values()

    assert [weight.shape for weight in ours] == [weight.shape for weight in other]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("densenet121", 6_956_298),
        ("wideresnet-28-10", 36_479_194),
    ],
)
def test_parameters_are_as_published(name: str, count: int) -> None:
    """For 32x32 inputs and ten classes."""
    assert parameters(name) == count


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 4), (22, 10), (22, 12), (28, 10)])
def test_wideresnet_parameters_follow_the_closed_form(depth: int, width: int) -> None:
    """Those that k-WTA's paper trains among them."""
    assert parameters(f"wideresnet-{depth}-{width}") == wideresnet_parameters(depth, width)


def test_densenet121_activations_see_the_papers_sizes() -> None:
    """119 places, an instance each: two in every bottleneck, one in every transition."""
    units = units_of("densenet121")

    assert len(units) == 119
    assert units == list(densenet121_units())


def test_wideresnet_activations_see_the_papers_sizes() -> None:
    """19 places at depth 22, an instance each; a stage's first one sees the stage before."""
    first, second, third = 160 * 32**2, 320 * 16**2, 640 * 8**2

    assert units_of("wideresnet-22-10") == (
        [16 * 32**2] + [first] * 5 + [first] + [second] * 5 + [second] + [third] * 5 + [third]
    )


@pytest.mark.parametrize(("name", "blocks"), [("resnet10", (1,) * 4), ("resnet34", (3, 4, 6, 3))])
def test_resnet_activations_see_the_papers_sizes(name: str, blocks: tuple[int, ...]) -> None:
    """Two places a block, an instance each; N is 65536, 32768, 16384, 8192 in the four stages."""
    expected: list[int] = []
    for count, size in zip(blocks, (65536, 32768, 16384, 8192), strict=True):
        expected += [size] * 2 * count

    assert units_of(name) == expected


def test_resnet50_activations_see_its_bottlenecks() -> None:
    """Three places a block, an instance each; the first of a stage is still at the size before."""
    expected: list[int] = []
    for stage, count in enumerate((3, 4, 6, 3)):
        size = 65536 // 2**stage
        expected += [size, size, 4 * size] * count
        if stage:
            expected[-3 * count] = 4 * size

    assert units_of("resnet50") == expected


@pytest.mark.parametrize("activation", [nn.ReLU, KWTA])
@pytest.mark.parametrize("name", SMALL)
def test_an_example_alone_gets_its_logits_in_a_batch(name: str, activation: Activation) -> None:
    """In eval mode nothing passes from one example to another."""
    model = randomised(SMALL[name](activation))

    alone = torch.cat([model(image[None]) for image in images()])
    torch.testing.assert_close(model(images()), alone)


@pytest.mark.parametrize("activation", [nn.ReLU, KWTA])
@pytest.mark.parametrize("name", SMALL)
def test_channels_last_gives_the_same_logits(name: str, activation: Activation) -> None:
    """The memory format is no part of the result, nor is it refused."""
    model = randomised(SMALL[name](activation))
    expected = model(images())

    model = model.to(memory_format=torch.channels_last)
    logits = model(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected)


def test_wideresnet_starts_from_hes_distribution() -> None:
    """Weights of variance 2 / fan-out, so sqrt(2 / (k² · outputs)); a linear bias of zero."""
    torch.manual_seed(0)
    model = wideresnet(10, 4, shape=IMAGE, classes=10, activation=nn.ReLU)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert not model.get_parameter("linear.bias").any()


@pytest.mark.parametrize(
    ("depth", "closest"),
    [(20, "16 or 22"), (23, "22 or 28"), (9, "10"), (4, "10")],
)
def test_wideresnet_refuses_a_depth_that_does_not_split(depth: int, closest: str) -> None:
    """The error names the depths next to it."""
    with pytest.raises(UsageError, match=rf"6n \+ 4: {closest} \(got {depth}\)"):
        build_network(f"wideresnet-{depth}-1", IMAGE, 10, nn.ReLU)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "wideresnet-10-1"])
def test_channels_and_classes_are_the_datas(name: str) -> None:
    """One channel in and seven classes out."""
    with torch.device("meta"):
        model = build_network(name, (1, 32, 32), 7, nn.ReLU)

        assert model(torch.empty(2, 1, 32, 32)).shape == (2, 7)
