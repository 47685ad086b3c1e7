"""Modules as people bring them: each is evaluated as its plain twin is, or told what to call."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from bench.errors import DataError, ModelError, PluginWarning
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from tests.run.guests import (
    EXAMPLES,
    Activation,
    Calling,
    InPlace,
    Layout,
    Locked,
    Mixed,
    OfEight,
    OfFourInOneBuffer,
    OwnBuffer,
    OwnStatistics,
    Rectified,
    Sized,
    SparseWeights,
    Spoiling,
    Trained,
    Uncopied,
    exported,
    hooked,
    linear,
    of_a_global,
    of_inference_mode,
    parametrized,
    patched,
    traced,
    weight_normed,
)
from tests.toy_models import Sum, attack_only, linf_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPSILON = 0.02
TRUE = float((linf_thresholds(EXAMPLES) > EPSILON).double().mean())


def found(model: nn.Module, attacks: str = "fgsm,apgd-ce", **changes: Any) -> dict[str, Any]:
    """What an evaluation says of a model on the linear examples."""
    given = {"inputs": EXAMPLES.inputs.clone(), "labels": EXAMPLES.labels.clone(), **changes}
    summary = attack_only(model, epsilons=[EPSILON], attacks=attacks, **given).summary
    entry: dict[str, Any] = summary["defenses"]["model"]
    return entry


SCRIPTED = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    "make",
    [
        InPlace,
        Rectified,
        OwnBuffer,
        Spoiling,
        Activation,
        weight_normed,
        parametrized,
        of_inference_mode,
        OfEight,
        OfFourInOneBuffer,
        SparseWeights,
        lambda: linear().half(),
        lambda: linear().bfloat16(),
        lambda: linear().double(),
        Mixed,
        lambda: Sum().requires_grad_(False),
        pytest.param(lambda: torch.jit.script(linear()), marks=SCRIPTED),
        pytest.param(traced, marks=SCRIPTED),
        pytest.param(lambda: torch.jit.freeze(torch.jit.script(linear().eval())), marks=SCRIPTED),
        pytest.param(exported, marks=pytest.mark.whole),
    ],
    ids=lambda make: getattr(make, "__name__", ""),
)
def test_a_module_is_evaluated_as_its_plain_twin(make: Callable[[], nn.Module]) -> None:
    """Its figures are those of the closed form, and nothing of the user's is touched."""
    model, inputs = make(), EXAMPLES.inputs.clone()
    mode, needs = getattr(model, "training", None), [p.requires_grad for p in model.parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("error", PluginWarning)
        entry = found(model, inputs=inputs)

    assert entry["clean_accuracy"] == 1.0
    for attack in entry["attacks"].values():
        assert attack[str(EPSILON)]["robust_accuracy"] == TRUE
    assert torch.equal(inputs, EXAMPLES.inputs)
    assert getattr(model, "training", None) == mode
    assert [p.requires_grad for p in model.parameters()] == needs


@pytest.mark.parametrize("make", [InPlace, Rectified])
@pytest.mark.parametrize("attacks", ["pgd[steps=5]", "fab-t", "square[queries=200]"])
def test_every_kind_of_attack_stands_modules_that_change_their_input(
    make: Callable[[], nn.Module], attacks: str
) -> None:
    """Whatever way it differentiates, in parts or whole, outcomes are the plain model's."""
    plain = found(Sum(), attacks)
    for batch_size in (None, 3):
        entry = found(make(), attacks, batch_size=batch_size)
        assert entry["worst_case"] == plain["worst_case"]
        assert not entry["failed"]


def test_a_model_that_cannot_be_copied_whole_shares_the_rest_and_says_so() -> None:
    """Locks and iterators are named; its generator of random numbers is its own."""
    model = Locked()
    before = model.generator.get_state()
    with pytest.warns(PluginWarning, match=r"cannot be copied whole: generator, lock is shared"):
        entry = found(model)
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE
    assert torch.equal(model.generator.get_state(), before)


@pytest.mark.parametrize(
    ("wrap", "shared"),
    [
        (lambda net: Calling(lambda x: net(x)), True),
        (lambda net: Calling(functools.partial(lambda net, x: net(x), net)), False),
        (lambda net: Calling([net]), False),
        (lambda net: Calling(net.forward), False),
        (patched, True),
        (hooked, True),
        (of_a_global, True),
    ],
    ids=["closure", "partial", "list", "method", "patched", "hook", "global"],
)
def test_a_network_that_is_called_and_not_registered_is_evaluated_too(
    wrap: Callable[[nn.Module], nn.Module], shared: bool
) -> None:
    """In eval mode and without gradients; yours is as it was, and that it is shared is said."""
    net = Trained().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", PluginWarning)
        entry = found(wrap(net))

    told = [str(w.message) for w in said if "Trained is shared between" in str(w.message)]
    assert bool(told) == shared
    assert entry["clean_accuracy"] == 1.0
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE
    assert net.training
    assert net.norm.training
    assert net.scale.requires_grad
    assert net.scale.grad is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_model_that_cannot_be_copied_at_all_is_given_back_as_it_was() -> None:
    """Its mode and its gradients are put back, and a warning says that it was used itself."""
    model = Uncopied().train()
    with pytest.warns(PluginWarning, match="the model itself is shared"):
        entry = found(model)
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantised_module_is_evaluated_without_gradients() -> None:
    """Its packed weights have a digest, and scores alone break what the closed form says."""

    def quantised(factor: float) -> nn.Module:
        model = linear()
        model[1].weight.requires_grad_(False).mul_(factor)  # type: ignore[operator]
        kinds = {nn.Linear}
        made: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, kinds, torch.qint8
        )
        return made

    from bench.models.weights import weights_digest

    assert weights_digest(quantised(1.0)) == weights_digest(quantised(1.0))
    assert weights_digest(quantised(1.0)) != weights_digest(quantised(3.0))
    entry = found(quantised(1.0), "square[queries=200]")
    assert not entry["failed"]
    assert abs(entry["worst_case"][str(EPSILON)]["robust_accuracy"] - TRUE) <= 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (OwnStatistics, "a single image, .* of 2 or 3 .*: batch normalisation has to use its runn"),
        (lambda: Sized(lambda n: n <= 8), "a batch of 20 images, .* 1 or 2 .*; give batch_size=8 "),
        (lambda: Sized(lambda n: n % 2 == 0), "a single image, .* 2 or 4 .*, alone and in a batch"),
        (lambda: Sized(lambda n: 1 < n < 9), "of 20 images, .* 2 or 3 .*, alone and in a batch"),
        (
            lambda: Mixed(torch.float32),
            r"given torch\.float64, as its weights are, it .* call \.float\(\) on it, or give dt",
        ),
        (lambda: linear().to("meta"), "hold no numbers yet: materialise"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), "hold no numbers yet"),
        (lambda: Layout(lambda x: x.shape[3] == 1), r"\(N, H, W, C\).*permute\(0, 2, 3, 1\)"),
        (lambda: Layout(lambda x: x.shape[1] == 3), "three channels.*expand"),
        (lambda: Layout(lambda x: x.ndim == 2), "flat rows.*flatten"),
        (lambda: Layout(lambda x: x.shape[2] == 32), "32 × 32.*resize"),
        (
            lambda: Layout(lambda x: False),
            r"float32 of shape \(20, 1, 4, 4\) it raised ValueError: another layout was",
        ),
    ],
    ids=range(12),
)
def test_a_module_that_cannot_be_asked_is_refused_in_one_line(
    make: Callable[[], nn.Module], says: str
) -> None:
    """It says what was given, and what to do."""
    with pytest.raises(ModelError, match=says) as raised:
        found(make())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", [None, ("below", "above")])
def test_a_module_with_a_largest_batch_is_asked_in_such(names: tuple[str, ...] | None) -> None:
    """With `batch_size` it is never asked more, when its classes are counted either."""
    entry = found(Sized(lambda n: n <= 8), batch_size=8, class_names=names)
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE


@pytest.mark.parametrize("size", [18, 20, 28, 60])
def test_a_batch_size_of_its_own_is_found(size: int) -> None:
    """More or fewer than the examples are, and as many: the closed form."""
    entry = found(Sized(lambda n: n == size))
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE


def test_a_batch_size_that_is_not_found_is_asked_for() -> None:
    """And then taken."""
    with pytest.raises(ModelError, match="batches of one size alone, give that as batch_size=…"):
        found(Sized(lambda n: n == 70))
    entry = found(Sized(lambda n: n == 70), batch_size=70)
    assert entry["worst_case"][str(EPSILON)]["robust_accuracy"] == TRUE


def test_tensors_that_stay_on_another_device_are_named() -> None:
    """What `nn.Module.to` leaves behind, and not the sizes of batches."""
    means = [torch.zeros(1), torch.zeros(1, device="meta")]
    model = Sum()
    model.__dict__ |= {"means": means, "own": torch.zeros(1)}
    model.register_forward_pre_hook(lambda own, given: (given[0] - own.means[1],))

    with pytest.raises(ModelError, match="it keeps means on meta, and is asked on cpu") as raised:
        found(model)
    assert "register_buffer" in str(raised.value)
    assert "batch" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda x: x, "got function: put it into the forward of an nn.Module that has the network"),
        (functools.partial(torch.mul, 2), "got partial: put it into the forward"),
        (object(), "got object: put it into the forward"),
        (Sum, r"got the class Sum: give what Sum\(…\) makes"),
    ],
    ids=["function", "partial", "object", "class"],
)
def test_what_is_no_module_is_told_how_to_be_one(model: Any, says: str) -> None:
    """A network that a function closes over would be called as it is, dropout and all."""
    with pytest.raises(ModelError, match=says) as raised:
        found(model)
    assert "\n" not in str(raised.value)


def test_data_are_checked_before_the_model_is_asked() -> None:
    """Images without a channel are the fault of the data, not of the model."""
    with pytest.raises(DataError, match=r"have to be \(N, C, H, W\)"):
        found(Layout(lambda x: False), inputs=EXAMPLES.inputs[:, 0])


def test_of_several_defenses_the_others_go_on(tmp_path: Path) -> None:
    """One that raises has failed cells with its reason; alone it is refused."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n\n\nclass Raises(nn.Module):\n"
        "    def forward(self, x):\n        raise ValueError('not today')\n\n\n"
        "class Answers(nn.Module):\n"
        "    def forward(self, x):\n        return x.flatten(1)[:, 20:30]\n"
    )

    def of(*names: str) -> RunConfig:
        return RunConfig(
            defenses=tuple(f"file:{file}:{name}" for name in names), attacks="fgsm", n=10,
            epsilons=("0.05",), examine=False, workers=1, out=tmp_path,
        )  # fmt: skip

    result = run(prepare(of("Raises", "Answers")))
    bad, good = (result.summary["defenses"][f"file:{file}:{x}"] for x in ("Raises", "Answers"))
    assert all("not today" in cell["reason"] for cell in bad["failed"])
    assert len(bad["failed"]) == 2
    assert not good["failed"]
    with pytest.raises(ModelError, match="not today"):
        run(prepare(of("Raises")))
