"""Every registered defense that is one of our networks: it builds, trains, and has its twin."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench import train as training
from bench.defenses.activations import KWTA, LWTA, BrokenReLU, MaxPoolActivation
from bench.defenses.activations.kinds import KINDS, Kind
from bench.defenses.networks import NetworkDefense
from bench.defenses.recipes import GammaAnnealing
from bench.models.checkpoints import read_record
from bench.train import TrainConfig, train
from tests.train.toys import FewDigits

Shapes = dict[str, torch.Size]

NAMES = [
    name
    for name in registry.defenses.names()
    if issubclass(registry.defenses.get(name), NetworkDefense)
]
SHAPE = (1, 8, 8)

table = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights that annealing starts from."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_curve", lambda *_: None)
        for name in ("kwta[gamma=0.2]", "kwta-at[gamma=0.2]"):
            train(registry.defenses.create(name), FewDigits(), TrainConfig(epochs=1), out=folder)
    return folder


def module_of(name: str, network: str = "cnn") -> nn.Module:
    """Its module, on the meta device."""
    shape = SHAPE if network == "cnn" else (3, 32, 32)
    with torch.device("meta"):
        return registry.defenses.create(name).build(network=network, shape=shape, classes=10)


def shapes_of(module: nn.Module) -> Shapes:
    """Of its weights, by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def settings_of(name: str, family: str) -> dict[str, object]:
    """Of its training; of an annealed defense those of the recipe whose loss it takes."""
    recipe = registry.defenses.create(name).recipe(family)
    assert recipe is not None
    return (recipe.base if isinstance(recipe, GammaAnnealing) else recipe).describe()


def test_every_activation_is_there_with_every_training() -> None:
    """Five activations trained in five ways, and two annealed ones."""
    activations = ["relu", "kwta", "lwta", "max-pool", "broken-relu"]
    endings = ["", "-at", "-trades", "-free", "-fast"]
    products = {activation + ending for activation in activations for ending in endings}

    assert set(NAMES) >= products | {"kwta-annealed", "kwta-at-annealed"}


@table
def test_each_trains_for_an_epoch_and_gives_finite_logits(
    name: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real digits; the record names the defense and how it was trained."""
    monkeypatch.setattr(training, "write_curve", lambda *_: None)  # it takes longer than an epoch
    defense = registry.defenses.create(name)
    built: list[nn.Module] = []
    before: list[dict[str, Tensor]] = []
    build = defense.build

    def noted(*, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        built.append(build(network=network, shape=shape, classes=classes))
        before.append({key: tensor.clone() for key, tensor in built[0].state_dict().items()})
        return built[0]

    monkeypatch.setattr(defense, "build", noted)
    result = train(defense, FewDigits(), TrainConfig(epochs=1), out=trained)
    logits: Tensor = built[0].eval()(FewDigits().load("test").inputs)
    record, recipe = read_record(result.path), defense.recipe("digits")

    assert logits.shape == (64, 10)
    assert logits.isfinite().all()
    assert record is not None
    assert recipe is not None
    assert (record.defense, record.recipe["recipe"]) == (name, recipe.name)
    for key, tensor in built[0].state_dict().items():
        assert not torch.equal(tensor, before[0][key])


@table
def test_each_has_a_twin_that_differs_in_the_activation_alone(name: str) -> None:
    """Its name is canonical, its weights have the same shapes, its recipe the same settings."""
    defense = registry.defenses.create(name)
    if name.startswith("relu"):
        assert defense.twin is None
        return
    assert defense.twin is not None

    assert registry.defenses.create(defense.twin).name == defense.twin
    assert shapes_of(module_of(name)) == shapes_of(module_of(defense.twin))
    for family in ("digits", "cifar10"):
        assert settings_of(name, family) == settings_of(defense.twin, family)


@table
def test_a_named_network_is_the_twins_as_well(name: str) -> None:
    """For every size of data, in both names."""
    defense = registry.defenses.create(f"{name}[network=resnet10w16]")
    assert defense.network(shape=SHAPE) == defense.network(shape=(3, 32, 32)) == "resnet10w16"
    if defense.twin is None:
        return
    twin = registry.defenses.create(defense.twin)

    assert (twin.name, twin.twin) == (defense.twin, None)
    assert twin.network(shape=SHAPE) == "resnet10w16"
    assert shapes_of(module_of(defense.name, "resnet10w16")) == shapes_of(
        module_of(twin.name, "resnet10w16")
    )


def is_relu(module: nn.Module) -> bool:
    """Whether it is the control's activation."""
    return isinstance(module, nn.ReLU)


def is_kwta(
    gamma: float = 0.1, kind: Kind = "layer", k: int | None = None, exact: bool = False
) -> Callable[[nn.Module], bool]:
    """Whether a module is k-WTA with these parameters."""
    return lambda module: (
        isinstance(module, KWTA)
        and (module.gamma, module.kind, module.k, module.exact) == (gamma, kind, k, exact)
    )


@pytest.mark.parametrize(
    ("name", "is_expected"),
    [
        ("relu", is_relu),
        ("relu-free", is_relu),
        ("kwta", is_kwta()),
        ("kwta-trades[gamma=0.2,exact=true]", is_kwta(0.2, exact=True)),
        ("kwta[k=3]", is_kwta(k=3)),
        ("kwta-annealed", is_kwta(0.08)),
        ("kwta-at-annealed[gamma=0.05,kind=magnitude]", is_kwta(0.05, "magnitude")),
        ("lwta", lambda m: isinstance(m, LWTA) and m.group == 2),
        ("lwta-at[group=4]", lambda m: isinstance(m, LWTA) and m.group == 4),
        ("max-pool-fast[group=8]", lambda m: isinstance(m, MaxPoolActivation) and m.group == 8),
        ("broken-relu", lambda m: isinstance(m, BrokenReLU) and m.height == 5),
        ("broken-relu[height=1]", lambda m: isinstance(m, BrokenReLU) and m.height == 1),
        *((f"kwta[kind={kind},gamma=0.2]", is_kwta(0.2, kind)) for kind in KINDS),
    ],
)
def test_options_reach_every_place_of_the_activation(
    name: str, is_expected: Callable[[nn.Module], bool]
) -> None:
    """In the network, which has no other activation, and in what figures draw."""
    defense = registry.defenses.create(name)
    assert isinstance(defense, NetworkDefense)
    activation = defense.activation()
    model = module_of(name)
    kinds = KWTA | LWTA | MaxPoolActivation | BrokenReLU | nn.ReLU

    assert is_expected(activation())
    found = [module for module in model.modules() if isinstance(module, kinds)]
    assert len(found) == 3
    assert all(is_expected(module) for module in found)


@pytest.mark.parametrize(
    "name", ["kwta-at", "kwta[k=3]", "kwta[kind=channel]", "kwta-annealed", "lwta", "max-pool-at"]
)
def test_surrogates_differ_in_the_backward_pass_alone(name: str) -> None:
    """Of every layer in which units compete; it takes the same weights."""
    torch.manual_seed(0)
    defense = registry.defenses.create(name)
    own = defense.build(network="cnn", shape=SHAPE, classes=10)
    surrogates = defense.surrogates(network="cnn", shape=SHAPE, classes=10)
    assert list(surrogates) == ["smooth"]
    surrogates["smooth"].load_state_dict(own.state_dict())
    x = torch.rand(4, *SHAPE).requires_grad_()
    logits = [model(x) for model in (own, surrogates["smooth"])]
    gradients = [torch.autograd.grad(each.sum(), x)[0] for each in logits]

    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(gradients[0], gradients[1])


@pytest.mark.parametrize("name", ["relu", "broken-relu-at"])
def test_where_nothing_competes_there_are_no_surrogates(name: str) -> None:
    """Their activations decide unit by unit."""
    assert registry.defenses.create(name).surrogates(network="cnn", shape=SHAPE, classes=10) == {}


def test_k_wta_of_all_units_has_no_surrogates() -> None:
    """Nothing is kinder where every unit wins."""
    defense = registry.defenses.create("kwta[gamma=1]")

    assert defense.surrogates(network="cnn", shape=SHAPE, classes=10) == {}


def test_annealing_starts_from_its_own_kind_and_network() -> None:
    """With the first gamma of the data's family; the rest is as the annealed defense has it."""
    for family, gamma in (("cifar10", "gamma=0.2,"), ("mnist", "")):
        recipe = registry.defenses.create(
            "kwta-at-annealed[kind=channel,exact=true,network=resnet10w16]"
        ).recipe(family)
        assert recipe is not None
        assert recipe.start is not None

        assert registry.defenses.create(recipe.start).name == (
            f"kwta-at[exact=true,{gamma}kind=channel,network=resnet10w16]"
        )
