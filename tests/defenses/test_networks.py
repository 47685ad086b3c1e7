"""Networks: where the activation stands, and how large they are."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import UnknownNameError, UsageError
from defenses.activations import KWTA
from defenses.networks import build_network, default_network

NETWORKS = [
    ("cnn", (1, 8, 8)),
    ("cnn", (3, 8, 8)),
    ("cnn", (1, 28, 28)),
    ("resnet18", (3, 32, 32)),
]


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
    assert parameters(build_network("resnet18", (3, 32, 32), 10, nn.ReLU)) == 11_173_962


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


def test_unknown_sizes_and_names_are_refused() -> None:
    """The errors name what is allowed."""
    with pytest.raises(UsageError, match=r"16x16; allowed: 8x8 \(cnn\), 28x28 .*, 32x32"):
        default_network((3, 16, 16))
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        build_network("resnet", (3, 32, 32), 10, nn.ReLU)
    with pytest.raises(UsageError, match="takes inputs of 8x8 or 28x28; got 32x32"):
        build_network("cnn", (3, 32, 32), 10, nn.ReLU)


def test_defenses_differ_from_their_twin_in_the_activation_alone() -> None:
    """A twin has the same weights by name and shape, and the same recipe."""
    for name in ("kwta", "kwta-at", "kwta[exact=true,gamma=0.2]"):
        defense = registry.defenses.create(name)
        assert defense.twin is not None
        twin = registry.defenses.create(defense.twin)
        module, other = (
            each.build(network="cnn", shape=(1, 8, 8), classes=10) for each in (defense, twin)
        )
        recipe, control = defense.recipe("digits"), twin.recipe("digits")

        assert {k: v.shape for k, v in module.state_dict().items()} == {
            k: v.shape for k, v in other.state_dict().items()
        }
        assert recipe is not None
        assert control is not None
        assert recipe.describe() == control.describe()
        assert any(isinstance(m, KWTA) for m in module.modules())
        assert not any(isinstance(m, KWTA) for m in other.modules())


def test_parameters_reach_the_activation() -> None:
    """`kwta[gamma=0.2,exact=true]` builds k-WTA with these."""
    model = registry.defenses.create("kwta[gamma=0.2,exact=true]").build(
        network="cnn", shape=(1, 8, 8), classes=10
    )
    found = {(m.gamma, m.exact) for m in model.modules() if isinstance(m, KWTA)}

    assert found == {(0.2, True)}


def test_bad_gamma_is_refused_by_name() -> None:
    """The error names the defense as written."""
    with pytest.raises(UsageError, match=r"kwta\[gamma=2\]: gamma has to be"):
        registry.defenses.create("kwta[gamma=2]")


def test_listing_defenses_does_not_import_torch() -> None:
    """The plugin files import torch only when something is built."""
    code = (
        "import sys; import defenses.adversarial_training, defenses.kwta, defenses.relu; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
