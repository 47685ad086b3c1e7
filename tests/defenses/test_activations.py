"""k-WTA of every kind against a reference that sorts in plain Python, one group at a time."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from bench.defenses.activations import KWTA, numpy_kwta
from bench.defenses.activations.kinds import KINDS, Kind
from bench.errors import ModelError, UsageError


def groups_of(shape: tuple[int, ...], kind: Kind) -> list[list[tuple[int, ...]]]:
    """The indices that compete with one another, in order."""
    whole = 2 if kind.startswith("channel") and len(shape) > 2 else 1
    heads = itertools.product(*map(range, shape[:whole]))
    tails = list(itertools.product(*map(range, shape[whole:])))
    return [[head + tail for tail in tails] for head in heads]


def reference(
    x: Tensor, gamma: float = 0.1, *, kind: Kind = "layer", k: int | None = None, exact: bool
) -> Tensor:
    """True for winners, by the definition: sort each group, look at its k-th score."""
    mask = torch.zeros(x.shape, dtype=torch.bool)
    for group in groups_of(x.shape, kind):
        score = {i: x[i].item() for i in group}
        if kind != "layer" and kind != "channel":
            score = {i: abs(value) for i, value in score.items()}
        if kind == "smallest":
            score = {i: -value for i, value in score.items()}
        ranked = sorted(group, key=lambda i: -score[i])  # stable: of ties the first index leads
        count = max(1, int(gamma * len(group))) if k is None else min(k, len(group))
        for place, i in enumerate(ranked):
            mask[i] = place < count or (not exact and score[i] >= score[ranked[count - 1]])
    return mask


def draw(name: str) -> Tensor:
    """Inputs (3, 4, 5, 5) or (3, 30)."""
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    return {
        "random": x,
        "linear": x.flatten(1)[:, :30].contiguous(),
        "constant": torch.full_like(x, 0.7),
        "zero": torch.zeros_like(x),
        "tied": (x * 2).round() / 2,
        "negative": -x.abs() - 0.1,
        "float64": x.double(),
        "float16": x.half(),
        "bfloat16": x.bfloat16(),
        "channels_last": x.to(memory_format=torch.channels_last),
        "tied channels_last": x.round().to(memory_format=torch.channels_last),
        "infinite": torch.where(x.abs() > 1.5, torch.inf * x, x),
        "signed zeros": torch.where(x > 1.5, x, torch.where(x > 0, 0.0, -0.0)),
        "subnormal": (x * 5).round() * 2**-149,
        "huge": x.sign() * torch.finfo(x.dtype).max,
    }[name]


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether they are equal in every bit, so that +0 is not −0 and NaN is NaN."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.element_size()]
    return found.dtype == expected.dtype and torch.equal(found.view(bits), expected.view(bits))


INPUTS = [
    "random", "linear", "constant", "zero", "tied", "negative", "float64", "float16", "bfloat16",
    "channels_last", "tied channels_last", "infinite", "signed zeros", "subnormal", "huge",
]  # fmt: skip
EXACT = pytest.mark.parametrize("exact", [False, True])
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EXACT
@EVERY_KIND
def test_equals_the_sorting_reference(kind: Kind, exact: bool) -> None:
    """Values, dtype and memory format are those of the definition on every kind of input."""
    for name, gamma in itertools.product(INPUTS, (0.05, 0.3, 1.0)):
        x = draw(name)

        y = KWTA(gamma, kind=kind, exact=exact)(x)

        expected = torch.where(reference(x, gamma, kind=kind, exact=exact), x, 0)
        assert same(y, expected), (name, gamma)
        assert (y.dtype, y.stride()) == (x.dtype, x.stride()), (name, gamma)


@EXACT
@EVERY_KIND
def test_many_threads_choose_the_same_winners(
    kind: Kind, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How the k largest are found depends on the threads, which ones they are does not."""
    x = draw("tied")
    found = []
    for threads in (1, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(KWTA(0.3, kind=kind, exact=exact)(x))

    assert torch.equal(*found)


@EVERY_KIND
def test_how_many_units_are_looked_at_together_changes_nothing(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are taken in parts that fit a cache, and the last part may be smaller."""
    x = draw("tied")
    found = []
    for units in (1, 200, 10**6):
        monkeypatch.setattr(numpy_kwta, "_UNITS", units)
        found.append(KWTA(0.3, kind=kind)(x))

    assert same(found[0], found[2])
    assert same(found[1], found[2])


@EXACT
@EVERY_KIND
def test_gradient_is_the_masked_identity(kind: Kind, exact: bool) -> None:
    """The incoming gradient passes on winners and is +0 elsewhere, whatever comes in."""
    for name in ("random", "linear", "zero", "tied", "channels_last", "float64", "signed zeros"):
        x = draw(name)
        incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
        incoming[incoming > 1] = torch.inf
        incoming[incoming < -1] = torch.nan
        mask = reference(x, 0.2, kind=kind, exact=exact)
        x.requires_grad_()

        y = KWTA(0.2, kind=kind, exact=exact)(x)

        expected = torch.where(mask, incoming, 0)
        assert same(torch.autograd.grad(y, x, incoming)[0], expected), name


def test_gradient_has_a_gradient() -> None:
    """It is linear in what comes in, and the derivative by that is the mask again."""
    x = draw("random").requires_grad_()
    v, w = (draw("random").roll(shift).requires_grad_() for shift in (1, 2))

    (first,) = torch.autograd.grad(KWTA(0.2)(x), x, v, create_graph=True)
    (second,) = torch.autograd.grad(first, v, w)

    assert same(second, torch.where(reference(x.detach(), 0.2, exact=False), w, 0))


@EVERY_KIND
def test_exact_keeps_exactly_k_of_each_group(kind: Kind) -> None:
    """Whatever is tied: counted by the ones that a gradient of ones leaves."""
    for name in ("zero", "tied", "float16", "tied channels_last"):
        x = draw(name).requires_grad_()

        (passed,) = torch.autograd.grad(KWTA(kind=kind, k=7, exact=True)(x).sum(), x)

        counts = [sum(passed[i].item() for i in group) for group in groups_of(x.shape, kind)]
        assert counts == [7] * len(counts), name


@EXACT
@EVERY_KIND
def test_a_number_of_winners_in_place_of_a_share(kind: Kind, exact: bool) -> None:
    """The k largest of each group, whatever gamma is; all units where there are fewer."""
    x = draw("tied")
    for k in (1, 4, 25, 1000):
        y = KWTA(0.9, kind=kind, k=k, exact=exact)(x)

        assert torch.equal(y, torch.where(reference(x, kind=kind, k=k, exact=exact), x, 0)), k


def test_all_ties_stay_and_exact_keeps_the_first() -> None:
    """Of a constant input the threshold keeps everything, `exact` the k lowest indices."""
    x = torch.full((1, 10), 2.0)

    assert KWTA(0.3)(x).count_nonzero() == 10
    assert KWTA(0.3, exact=True)(x).tolist() == [[2.0] * 3 + [0.0] * 7]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("layer", [[[5.0, 0.0], [2.0, 1.0]], [[0.0, 0.0], [3.0, 0.0]]]),
        ("channel", [[[5.0, 0.0], [2.0, 0.0]], [[-9.0, 0.0], [3.0, 0.0]]]),
        ("magnitude", [[[5.0, 0.0], [0.0, 0.0]], [[-9.0, -9.5], [0.0, -9.75]]]),
        ("channel-magnitude", [[[5.0, -4.0], [0.0, 0.0]], [[0.0, -9.5], [0.0, -9.75]]]),
        ("smallest", [[[0.0, -4.0], [2.0, 1.0]], [[0.0, 0.0], [3.0, 0.0]]]),
    ],
)
def test_the_kinds_by_hand(kind: Kind, expected: list[list[list[float]]]) -> None:
    """Half of two channels of 2×2 units; winners keep their sign, for no ReLU is added."""
    x = torch.tensor([[[[5.0, -4.0], [2.0, 1.0]], [[-9.0, -9.5], [3.0, -9.75]]]])

    assert KWTA(0.5, kind=kind)(x).tolist() == [expected]


@EVERY_KIND
def test_at_least_one_unit_wins(kind: Kind) -> None:
    """Where gamma times the units is under 1, k is 1."""
    assert KWTA(0.01, kind=kind)(torch.tensor([[2.0, 2.0, 2.0]])).count_nonzero() == 3
    assert KWTA(0.01, kind=kind, exact=True)(torch.ones(1, 1, 2, 2)).count_nonzero() == 1


@pytest.mark.parametrize(("units", "k"), [(65536, 6553), (32768, 3276), (16384, 1638), (8192, 819)])
def test_k_of_the_papers_stages(units: int, k: int) -> None:
    """As in the paper's ResNet-18 at gamma 0.1, k is int(gamma · N)."""
    assert KWTA(0.1).winners(units) == k


def test_gamma_may_change_between_passes() -> None:
    """Annealing sets the attribute."""
    x, module = draw("random"), KWTA(0.2)
    module.gamma = 0.05

    assert torch.equal(module(x), torch.where(reference(x, 0.05, exact=False), x, 0))


@EVERY_KIND
def test_examples_do_not_see_each_other(kind: Kind) -> None:
    """An example's output is the same alone and in a batch; an empty batch stays empty."""
    x, module = draw("random"), KWTA(0.1, kind=kind)

    batch = module(x)

    assert all(torch.equal(module(x[i : i + 1])[0], batch[i]) for i in range(len(x)))
    assert module(x[:0]).shape == x[:0].shape


@EXACT
@EVERY_KIND
def test_nan_is_refused(kind: Kind, exact: bool) -> None:
    """A single NaN raises, whether or not it would be among the winners."""
    for name, gamma in itertools.product(("random", "bfloat16"), (0.01, 1.0)):
        x = draw(name)
        x[2, 3, 1, 4] = torch.nan

        with pytest.raises(ModelError, match="k-WTA got NaN"):
            KWTA(gamma, kind=kind, exact=exact)(x)


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        *[
            ({"gamma": share}, rf"gamma has to be greater than 0 and at most 1 \(got {share}\)")
            for share in (0.0, -0.1, 1.01, math.nan)
        ],
        ({"kind": "row"}, r"kind has to be one of layer, .*smallest \(got 'row'\)"),
        ({"k": 0}, r"k has to be at least 1 \(got 0\)"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, float], rule: str) -> None:
    """The error names the parameter, the rule and what was got."""
    with pytest.raises(UsageError, match=rule):
        KWTA(**parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5,), (2, 0)])
def test_inputs_without_units_are_refused(shape: tuple[int, ...]) -> None:
    """A vector has no dimension to choose from."""
    with pytest.raises(ModelError, match="k-WTA needs inputs"):
        KWTA(0.1)(torch.zeros(shape))


def test_kinds_are_named_without_torch() -> None:
    """A plugin reads them when it is listed; the activations are imported when first used."""
    code = (
        "import sys; from bench.defenses.activations.kinds import KINDS, Kind; "
        "import bench.defenses.activations; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kwta_brings_no_compiler() -> None:
    """`torch.compile` takes two seconds to import, which nobody pays who only asks a model."""
    code = (
        "import sys; import torch; from bench.defenses.activations.kwta import KWTA; "
        "x = torch.rand(2, 8, requires_grad=True); KWTA(0.5)(x).sum().backward(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
