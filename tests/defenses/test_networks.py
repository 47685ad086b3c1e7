"""Networks: where the activation stands, and how large they are."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.defenses.activations import KWTA
from bench.defenses.networks import build_network, default_network
from bench.errors import UnknownNameError, UsageError

NETWORKS = [
    ("cnn", (1, 8, 8)),
    ("cnn", (3, 8, 8)),
    ("mnist-cnn-pooled", (1, 28, 28)),
    ("resnet18", (3, 32, 32)),
]


def on_meta(
    name: str, shape: tuple[int, int, int], activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """A network of ten classes without memory for its weights, for counting."""
    with torch.device("meta"):
        return build_network(name, shape, 10, activation)


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_default_network_builds_and_gives_logits(name: str, shape: tuple[int, int, int]) -> None:
    """The network for a shape takes it, and its output is (N, classes)."""
    assert default_network(shape) == name
    model = build_network(name, shape, 7, KWTA)

    assert model(torch.rand(2, *shape)).shape == (2, 7)


def test_resnet18_is_the_papers() -> None:
    """The parameter count of ResNet-18 for 32x32 inputs and ten classes."""
    assert parameters(on_meta("resnet18", (3, 32, 32))) == 11_173_962


def test_mnist_cnn_is_the_papers() -> None:
    """Four 3x3 convolutions, 7x7 images of 64 channels, 20,000 hidden units; biases everywhere."""
    convolutions = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (32 + 64)
    linear = (7 * 7 * 64 + 1) * 20_000 + (20_000 + 1) * 10
    model = on_meta("mnist-cnn", (1, 28, 28))

    assert parameters(model) == convolutions + linear
    assert model(torch.empty(2, 1, 28, 28, device="meta")).shape == (2, 10)


def test_mnist_lenet_pools_the_largest_twice() -> None:
    """Two 5x5 convolutions of 12 and 24 channels, 7x7 images in the end; biases everywhere."""
    model = on_meta("mnist-lenet", (1, 28, 28))

    assert parameters(model) == 25 * (12 + 12 * 24) + 12 + 24 + (7 * 7 * 24 + 1) * 10
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.modules()) == 2


def test_pooled_mnist_cnn_is_small_and_begins_as_he_et_al() -> None:
    """3x3 images and 500 hidden units; weights of variance 2 / inputs, biases zero."""
    torch.manual_seed(0)
    model = build_network("mnist-cnn-pooled", (1, 28, 28), 10, nn.ReLU)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    assert layers[-2].weight.shape == (500, 3 * 3 * 64)
    assert parameters(model) * 4 < 1_500_000
    for layer in layers:
        inputs = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.15)
        assert layer.bias is not None
        assert not layer.bias.any()


@pytest.mark.parametrize(("name", "hidden"), [("mnist-dnn", 1000), ("mnist-dnn-300", 300)])
def test_mnist_dnn_begins_as_in_the_papers_code(name: str, hidden: int) -> None:
    """Three layers; weights normal with variance 1 / inputs, biases zero."""
    torch.manual_seed(0)
    model = build_network(name, (1, 28, 28), 10, nn.ReLU)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]

    assert [layer.weight.shape for layer in layers] == [
        (hidden, 784),
        (hidden, hidden),
        (10, hidden),
    ]
    for layer in layers:
        weights = layer.weight.detach()
        assert weights.var().item() * layer.in_features == pytest.approx(1, rel=0.1)
        assert (weights.abs() < layer.in_features**-0.5).double().mean().item() == pytest.approx(
            0.683, abs=0.02
        )
        assert not layer.bias.any()


def test_resnet10w16_has_one_block_a_stage_and_16_channels() -> None:
    """Its parameters, layer by layer."""
    expected, into = 3 * 16 * 9 + 2 * 16, 16
    for width in (16, 32, 64, 128):
        expected += into * width * 9 + width * width * 9 + 2 * 2 * width
        expected += into * width + 2 * width if into != width else 0
        into = width

    assert parameters(on_meta("resnet10w16", (3, 32, 32))) == expected + (128 + 1) * 10


@pytest.mark.parametrize(
    ("name", "shape", "places"),
    [
        ("cnn", (1, 8, 8), 3),
        ("mnist-cnn", (1, 28, 28), 5),
        ("mnist-cnn-pooled", (1, 28, 28), 5),
        ("mnist-lenet", (1, 28, 28), 2),
        ("mnist-dnn", (1, 28, 28), 2),
        ("resnet10w16", (3, 32, 32), 8),
        ("resnet50", (3, 32, 32), 48),
    ],
)
def test_every_place_has_an_activation_of_its_own(
    name: str, shape: tuple[int, int, int], places: int
) -> None:
    """As many instances as places, and each is used once for an input."""
    model = on_meta(name, shape, nn.SiLU).eval()
    used: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.SiLU):
            module.register_forward_hook(lambda place, *_: used.append(place))

    model(torch.empty(1, *shape, device="meta"))

    assert len(used) == len(set(used)) == places


def test_resnet18_has_16_places_and_a_relu_stem() -> None:
    """16 activations of its own instance each; the stem stays ReLU."""
    model = build_network("resnet18", (3, 32, 32), 10, KWTA)
    places = [name for name, module in model.named_modules() if isinstance(module, KWTA)]
    relus = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]

    assert places == [
        f"layer{stage}.{block}.activation{place}"
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
        for place in (1, 2)
    ]
    assert relus == ["relu"]


def test_resnet18_activations_see_the_papers_sizes() -> None:
    """N of the k-WTA places is 65536, 32768, 16384, 8192 in the four stages."""
    model = build_network("resnet18", (3, 32, 32), 10, KWTA).eval()
    units: list[int] = []
    for module in model.modules():
        if isinstance(module, KWTA):
            module.register_forward_hook(lambda _, inputs, __: units.append(inputs[0][0].numel()))

    model(torch.rand(1, 3, 32, 32))

    assert units == [65536] * 4 + [32768] * 4 + [16384] * 4 + [8192] * 4


def test_resnet18_block_sums_before_its_second_activation() -> None:
    """k-WTA after the residual sum: what leaves a block has at most k units of an example."""
    model = build_network("resnet18", (3, 32, 32), 10, KWTA).eval()
    outputs: list[Tensor] = []
    model.get_submodule("layer2.0").register_forward_hook(lambda *seen: outputs.append(seen[2]))

    model(torch.rand(2, 3, 32, 32))

    assert outputs[0].flatten(1).count_nonzero(dim=1).tolist() == [3276, 3276]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28)])
def test_cnn_is_small_and_has_three_activations(shape: tuple[int, int, int]) -> None:
    """Under 1 MB of float32 weights, and a separate instance in each hidden layer."""
    model = build_network("cnn", shape, 10, KWTA)

    assert parameters(model) * 4 < 1_000_000
    assert sum(isinstance(module, KWTA) for module in model.modules()) == 3


def test_unknown_sizes_are_refused() -> None:
    """The errors name what is allowed."""
    with pytest.raises(UsageError, match=r"16x16; allowed: 8x8 \(cnn\), 28x28 .*, 32x32"):
        default_network((3, 16, 16))
    with pytest.raises(UsageError, match="takes inputs of 8x8 or 28x28; got 32x32"):
        build_network("cnn", (3, 32, 32), 10, nn.ReLU)
    with pytest.raises(UsageError, match="'mnist-dnn-50' takes inputs of 28x28; got 8x8"):
        build_network("mnist-dnn-50", (1, 8, 8), 10, nn.ReLU)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet", UnknownNameError, "unknown network 'resnet'; did you mean 'resnet18'"),
        ("resnet19", UnknownNameError, "did you mean 'resnet18'"),
        ("resnet18w0", UsageError, "sizes have to be at least 1"),
        ("resnet18w", UnknownNameError, "did you mean 'resnet18'"),
        ("mnist-dnn-0", UsageError, "sizes have to be at least 1"),
        ("wideresnet-22-0", UsageError, "sizes have to be at least 1"),
        ("wideresnet-22", UnknownNameError, "did you mean 'wideresnet-22-10'"),
        ("wideresnet-23-10", UsageError, r"6n \+ 4: 22 or 28 \(got 23\)"),
    ],
)
def test_unknown_networks_are_refused(name: str, error: type[UsageError], message: str) -> None:
    """When they are built, and already when a defense is named with one."""
    with pytest.raises(error, match=message):
        build_network(name, (3, 32, 32), 10, nn.ReLU)
    with pytest.raises(UsageError, match=rf"kwta\[network={name}\]: .*{message}"):
        registry.defenses.create(f"kwta[network={name}]")


def test_bad_gamma_is_refused_by_name() -> None:
    """The error names the defense as written."""
    with pytest.raises(UsageError, match=r"kwta\[gamma=2\]: gamma has to be"):
        registry.defenses.create("kwta[gamma=2]")


def test_listing_defenses_does_not_import_torch() -> None:
    """The plugin files import torch only when something is built."""
    code = (
        "import sys; import bench.defenses.activated, bench.defenses.activated; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
