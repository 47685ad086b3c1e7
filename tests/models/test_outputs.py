"""What models answer: other tools' forms give the closed form of the plain model, or one line."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import ModelError, NonFiniteLogitsError
from bench.models.counted import CountedModel
from bench.models.outputs import count_classes, logits_of, without_masks
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
INFINITY = float("inf")
Both = namedtuple("Both", "logits aux")
Plain = namedtuple("Plain", "first second")
Features = namedtuple("Features", "features logits")


class Own(torch.Tensor):
    """As libraries of images return it."""


@dataclass
class Output:
    """As libraries of transformers return it."""

    logits: Any
    hidden: Any = None


class Answering(Sum):
    """`Sum`, whose logits are answered in another form, and to batches of one size alone if so."""

    def __init__(self, form: Callable[[Tensor], Any], size: int | None = None) -> None:
        super().__init__()
        self.form, self.size = form, size

    def forward(self, x: Tensor) -> Any:
        """The logits of `Sum`, in that form."""
        if len(x) != (self.size or len(x)):
            raise ValueError("another batch size was expected")
        return self.form(super().forward(x))


def masks(logits: Tensor) -> Tensor:
    """Two classes before and one behind that are masked."""
    away = torch.full_like(logits, -INFINITY)
    return torch.cat([logits, away], dim=1)


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "object": Output,
    "ordered": lambda z: OrderedDict(logits=z, hidden=z),
    "dict": lambda z: {"hidden": z[:, :1], "logits": z},
    "tuple": lambda z: (z, z[:, :1]),
    "list": lambda z: [z],
    "named": lambda z: Both(z, z),
    "unnamed": lambda z: Plain(z, None),
    "auxiliary": lambda z: (z, -z),
    "features named": lambda z: Features(torch.zeros(len(z), 8), z),
    "column": lambda z: z[:, 1:] - z[:, :1],
    "row": lambda z: z[:, 1] - z[:, 0],
    "squeezed": lambda z: z.squeeze(),
    "squeezed row": lambda z: (z[:, 1:] - z[:, :1]).squeeze(),
    "float64": lambda z: z.double(),
    "sparse": lambda z: z.to_sparse(),
    "subclass": lambda z: z.as_subclass(Own),
    "subclass in a tuple": lambda z: (z.as_subclass(Own), z[:, :1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_in_other_forms_give_the_figure_of_plain_ones(form: str) -> None:
    """The share of thresholds beyond epsilon, in batches of any size, by gradients, in Foolbox."""
    examples = linear_examples()
    result = attack_only(
        Answering(FORMS[form]),
        examples.inputs,
        examples.labels,
        epsilons="0.02",
        attacks="fgsm",
        batch_size=7,
        shard_size=11,
    )
    exact = float((linf_thresholds(examples) > 0.02).double().mean())
    worst = result.summary["defenses"]["model"]["worst_case"]["0.02"]
    assert (worst["robust_accuracy"], worst["complete"]) == (exact, True)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_a_fixed_batch_size_leaves_logits_in_other_forms_what_they_are(
    form: str, size: int
) -> None:
    """Cut into such batches and joined, the last one filled up: row by row the plain logits."""
    examples = linear_examples()
    model = CountedModel(Answering(FORMS[form], size), 2, None, "cpu")
    plain = CountedModel(Answering(FORMS[form]), 2, None, "cpu")
    assert torch.equal(model(examples.inputs), plain(examples.inputs))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("kind", [tuple, list])
def test_of_parts_of_several_widths_the_logits_are_as_wide_as_the_data_have_classes(
    kind: type, order: tuple[int, int]
) -> None:
    """With the names of the classes: the closed form. Without them the model is asked which."""
    examples = linear_examples()

    def form(z: Tensor) -> Any:
        parts = (torch.zeros(len(z), 8), z)
        return kind(parts[i] for i in order)

    given = (Answering(form), examples.inputs, examples.labels)
    result = attack_only(
        *given, epsilons="0.02", attacks="fgsm", class_names=examples.class_names, batch_size=7
    )
    exact = float((linf_thresholds(examples) > 0.02).double().mean())
    worst = result.summary["defenses"]["model"]["worst_case"]["0.02"]
    assert (worst["robust_accuracy"], worst["complete"]) == (exact, True)
    with pytest.raises(ModelError, match=r"which of .*\(20, 8\).* is the logits: return it alone"):
        attack_only(*given, epsilons="0.02", attacks="fgsm")


def test_a_part_of_a_squeezed_batch_of_one_is_found_as_in_a_larger_one() -> None:
    """By its length, where the axis of inputs is gone from all parts."""
    features, z = torch.zeros(8), torch.tensor([1.0, 2.0])
    assert torch.equal(logits_of((features, z), 1, 2, CPU), z[None])
    with pytest.raises(ModelError, match=r"which of tuple of \(8,\), \(2,\) is the logits"):
        count_classes((features, z), 1)


@pytest.mark.parametrize("scale", [1.0, 1e10, 1e-12])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-ce", "test-best"])
def test_masked_classes_leave_the_figure_of_the_others(attack: str, scale: float) -> None:
    """At every scale of the logits, each attack finds what it finds without the masked classes."""
    examples = linear_examples()
    plain, masked = (
        attack_only(
            Answering(form), examples.inputs, examples.labels, epsilons="0.02", attacks=attack
        ).summary["defenses"]["model"]
        for form in (lambda z: z * scale, lambda z: masks(z) * scale)
    )
    exact = float((linf_thresholds(examples) > 0.02).double().mean())
    row = masked["attacks"][attack]["0.02"]
    assert masked["clean_accuracy"] == 1.0
    assert row["status"] == "ok"
    assert row["robust_accuracy"] == plain["attacks"][attack]["0.02"]["robust_accuracy"]
    if scale <= 1 or attack == "test-best":  # beyond, cross-entropy has no gradient in float32
        assert row["robust_accuracy"] == exact


def test_a_label_that_is_masked_is_a_clean_error() -> None:
    """The model can never answer with it; the others are counted as they are."""
    examples = linear_examples()
    away = torch.tensor([0.0, -INFINITY])
    result = attack_only(
        Answering(lambda z: z + away), examples.inputs, examples.labels, epsilons="0.02",
        attacks="fgsm",
    )  # fmt: skip
    clean = float((examples.labels == 0).double().mean())
    assert result.summary["defenses"]["model"]["clean_accuracy"] == clean


def test_a_mask_changes_neither_prediction_nor_the_gradient_of_the_others() -> None:
    """The order of the classes stays, what is masked gets none, and the loss is finite."""
    logits = torch.tensor([[1.0, -INFINITY, -2.0], [-INFINITY, -1e30, -INFINITY]])
    logits.requires_grad_()
    found = without_masks(logits)
    assert bool(torch.isfinite(found).all())
    assert found.argmax(1).tolist() == [0, 1]
    assert torch.equal(found[0, [0, 2]], logits[0, [0, 2]])
    nn.functional.cross_entropy(found, torch.tensor([2, 1])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    alone = torch.tensor([[1.0, -2.0]], requires_grad=True)
    nn.functional.cross_entropy(alone, torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
    assert alone.grad is not None
    torch.testing.assert_close(logits.grad[0, [0, 2]], alone.grad[0] / 2)
    assert logits.grad[0, 1] == 0


@pytest.mark.parametrize(
    "bad",
    [
        lambda z: z * float("nan"),
        lambda z: z.abs() / 0,
        lambda z: torch.full_like(z, -INFINITY),
        lambda z: torch.stack([z[:, 0], z[:, 0] * float("nan")], 1),
        lambda z: torch.cat([masks(z)[:, 2:], z * float("nan")], 1),
    ],
)
def test_what_is_not_finite_otherwise_is_still_refused(bad: Callable[[Tensor], Tensor]) -> None:
    """+inf, NaN, and a row without any finite logit."""
    model = CountedModel(Answering(bad), bad(torch.ones(1, 2)).shape[1], None, "cpu")
    with pytest.raises(NonFiniteLogitsError, match="NaN or infinity"):
        model(linear_examples().inputs)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "got NoneType: return a tensor, or something that has it as `logits` or first"),
        (torch.zeros(4, 2).numpy(), "got ndarray: return a tensor"),
        ({}, "got dict of nothing"),
        ({"features": torch.zeros(4, 8)}, r"got dict of 'features': \(4, 8\)"),
        ((), "got tuple of nothing"),
        ((None, torch.zeros(4, 2)), r"got tuple of NoneType, \(4, 2\)"),
        ((torch.zeros(4, 8), torch.zeros(4, 3)), r"\(4, 2\), .*; got tuple of \(4, 8\), \(4, 3\)"),
        ([torch.zeros(4, 2)] * 2, r"which of list of \(4, 2\), \(4, 2\) is the logits: return it"),
        ((torch.zeros(4, 2),) * 3, r"which of tuple of .* alone, or as `logits`"),
        (Output(None), "got Output"),
        (Output("logits"), "got Output"),
        (torch.zeros(4, 3), r"shape \(4, 2\), one row per input .* got \(4, 3\); where the data"),
        (torch.zeros(3, 2), r"got \(3, 2\)"),
        (torch.zeros(4, 2, 1, 1), r"got \(4, 2, 1, 1\) \(flatten\(1\) makes it that\)"),
        (torch.zeros(4, 2, dtype=torch.complex64), "real numbers; got complex numbers"),
        (torch.zeros(4, 2, device="meta"), "got no values .meta."),
        (torch.zeros(()), r"got \(\)"),
        (torch.zeros(0, 2), r"got \(0, 2\)"),
    ],
)
def test_what_is_no_logits_is_refused_with_what_it_is(answer: Any, message: str) -> None:
    """And with what to do where that can be known."""
    with pytest.raises(ModelError, match=message) as error:
        logits_of(answer, 4, 2, CPU)
    assert "\n" not in str(error.value)


def test_one_logit_is_for_two_classes_alone() -> None:
    """With three the error says so."""
    with pytest.raises(ModelError, match=r"one logit for each input is for two classes\)$"):
        logits_of(torch.full((4, 1), 0.5), 4, 3, CPU)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
@pytest.mark.parametrize("names", [None, ("below", "above", "beyond")])
def test_a_model_that_answers_with_classes_is_told_so(
    names: tuple[str, ...] | None, dtype: torch.dtype, column: bool
) -> None:
    """Of three classes, where one number for each input is no logit: not the labels are wrong."""
    examples = linear_examples()
    labels = examples.labels.clone()
    labels[0] = 2
    model = Answering(lambda z: z.argmax(1, keepdim=column).to(dtype))
    with pytest.raises(
        ModelError, match="seems to return classes, all being whole numbers"
    ) as error:
        attack_only(
            model, examples.inputs, labels, epsilons="0.02", attacks="fgsm", class_names=names
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int8, torch.float16, torch.bfloat16, torch.bool]
)
def test_logits_of_any_real_type_are_taken(dtype: torch.dtype) -> None:
    """Votes are whole numbers; the counted model makes all of them float32."""
    examples = linear_examples(4)
    wanted = (torch.eye(2)[examples.labels] * 3).to(dtype)
    model = CountedModel(
        Answering(lambda z: (torch.eye(2)[z.argmax(1)] * 3).to(dtype)), 2, None, "cpu"
    )
    assert torch.equal(model(examples.inputs), wanted.float())


def test_classes_are_counted_in_every_form() -> None:
    """From an answer to one image, whose axis may be gone, or to several."""
    z = torch.zeros(1, 5)
    for answer in (z, Output(z), {"logits": z}, (z, None), z.squeeze()):
        assert count_classes(answer, 1) == 5
    assert count_classes(torch.zeros(1, 1), 1) == count_classes(torch.zeros(()), 1) == 2
    assert count_classes(torch.zeros(7), 7) == 2
    with pytest.raises(ModelError, match=r"classes ≥ 2\); got \(1, 3, 1, 1\) for N = 1 .flatten"):
        count_classes(torch.zeros(1, 3, 1, 1), 1)


def test_a_probability_is_not_taken_for_a_logit() -> None:
    """Behind a sigmoid every input would be of class 1: refused, with what to return instead."""
    examples = linear_examples(n=40)
    model = Answering(lambda z: torch.sigmoid(z[:, 1:] - z[:, :1]))
    order = examples.labels.argsort()
    ones = examples.labels == 1
    for inputs, labels in (
        (examples.inputs, examples.labels),
        (examples.inputs[order], examples.labels[order]),
        (examples.inputs[ones], examples.labels[ones]),
    ):
        with pytest.raises(ModelError, match=r"as behind a sigmoid.*: return the logit in front"):
            attack_only(model, inputs, labels, epsilons="0.02", attacks="fgsm", shard_size=10)


def test_small_logits_of_one_shard_are_no_probabilities() -> None:
    """Where those of another are negative."""
    examples = linear_examples(n=40)
    model = Answering(lambda z: 0.01 * (z[:, 1:] - z[:, :1]))
    right = model(examples.inputs).flatten() > 0
    order = right.float().argsort(descending=True)
    inputs, labels = examples.inputs[order], right[order].long()
    result = attack_only(model, inputs, labels, epsilons="0.02", attacks="fgsm", shard_size=10)
    assert right[order][:10].all()
    assert result.worst_case is not None
