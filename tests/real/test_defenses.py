"""Every activation, recipe and network: trained and run by one command each, on real images."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest

from bench.errors import CheckpointError
from tests.real.commands import record_of, train, train_and_run, winnow

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("workplace")]

ACTIVATIONS = (
    "relu",
    "kwta",
    "kwta[kind=channel]",
    "kwta[kind=magnitude]",
    "kwta[kind=channel-magnitude]",
    "kwta[kind=smallest]",
    "kwta[k=50]",
    "kwta[exact=true]",
    "lwta",
    "max-pool",
    "broken-relu",
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, mnist: str) -> None:
    """Natural training of MNIST's default network, beside its ReLU twin."""
    trained, evaluated = train_and_run(name, mnist)

    assert (trained.recipe["recipe"], trained.network) == ("natural", "mnist-cnn-pooled")
    assert evaluated.record.defenses[trained.defense].twin == (None if name == "relu" else "relu")


@pytest.mark.parametrize("activation", ["relu", "kwta"])
@pytest.mark.parametrize(
    ("ending", "recipe"),
    [("at", "pgd-at"), ("trades", "trades"), ("free", "free-at"), ("fast", "fast-at")],
)
def test_recipe(activation: str, ending: str, recipe: str, mnist: str) -> None:
    """Each adversarial training, of k-WTA and of the twin that it names."""
    trained, evaluated = train_and_run(f"{activation}-{ending}", mnist)

    twin = None if activation == "relu" else f"relu-{ending}"
    assert (trained.recipe["recipe"], trained.recipe["epsilon"]) == (recipe, 0.3)
    assert evaluated.record.defenses[trained.defense].twin == twin


@pytest.mark.parametrize(
    ("name", "start", "loss"),
    [("kwta-annealed", "kwta", "natural"), ("kwta-at-annealed", "kwta-at", "pgd-at")],
)
def test_annealing(name: str, start: str, loss: str, mnist: str) -> None:
    """It wants the weights that it starts from, and the command that it names makes them."""
    with pytest.raises(CheckpointError, match=f"there are no weights of {start} ") as missing:
        train(name, mnist)
    command = re.search(r"python -m bench (train .*?)( \(or|$)", str(missing.value))
    assert command is not None
    winnow(*shlex.split(command[1]), "--epochs", 1, "--device", "cpu")

    trained, _ = train_and_run(name, mnist)

    recipe = trained.recipe
    assert (recipe["recipe"], recipe["loss"]) == ("gamma-annealing", loss)
    assert (recipe["first_gamma"], recipe["last_gamma"]) == (0.1, 0.08)
    assert recipe["start_weights"] == record_of(start).weights_digest


class Case(NamedTuple):
    """A network, and so many images as it deals with in a few seconds."""

    network: str
    data: str
    train: int
    test: int
    n: int


NETWORKS = (
    Case("mnist-cnn", "mnist", 2, 2, 2),
    Case("mnist-cnn-pooled", "mnist", 100, 20, 10),
    Case("mnist-dnn", "mnist", 100, 20, 10),
    Case("resnet10w16", "cifar10-jpeg", 40, 20, 10),
    Case("resnet18", "cifar10-jpeg", 6, 4, 2),
    Case("resnet34", "cifar10-jpeg", 4, 2, 2),
    Case("resnet50", "cifar10-jpeg", 4, 2, 2),
    Case("densenet121", "cifar10-jpeg", 4, 2, 2),
    Case("wideresnet-10-2", "cifar10-jpeg", 6, 4, 2),
    Case("wideresnet-22-10", "cifar10-jpeg", 2, 2, 2),
)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: str(case.network))
def test_network(case: Case, real_subset: Callable[[str, int, int], str]) -> None:
    """k-WTA in each network, by its name alone."""
    data = real_subset(case.data, case.train, case.test)

    trained, evaluated = train_and_run(f"kwta[network={case.network}]", data, n=case.n)

    assert trained.network == case.network
    assert trained.shape == {"mnist": (1, 28, 28), "cifar10-jpeg": (3, 32, 32)}[case.data]
    assert f"relu[network={case.network}]" == evaluated.record.defenses[trained.defense].twin
