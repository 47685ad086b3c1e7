"""Examples as other tools hold them: the very tensors come out, or one line says what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from bench.api import Examples
from bench.errors import DataError, InputNotice
from bench.run.brought import labelled
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N = 6
#: In 256 levels, so that pictures hold them exactly.
X = (linear_examples(N).inputs * 255).round() / 255
Y = linear_examples(N).labels
ARRAY = X.numpy()
PICTURES = [Image.fromarray((image[0] * 255).round().astype(np.uint8)) for image in ARRAY]


class Map(Dataset[Any]):
    """A data set of `N` things."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Stream(IterableDataset[Any]):
    """Examples without an end that could be known."""

    def __iter__(self) -> Iterator[Any]:
        return zip(X, Y, strict=True)


def fail(_: int) -> Any:
    """What a data set may do."""
    raise AttributeError("no such column")


class Wide(Sum):
    """Answers class 0, of so many."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, classes)."""
        ones = super().forward(x)[:, :1] * 0 + 1
        return torch.nn.functional.pad(ones, (0, self.classes - 1))


PAIRS = TensorDataset(X, Y)


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (DataLoader(PAIRS, batch_size=4), None),
        (DataLoader(PAIRS, batch_size=None), None),
        (DataLoader(Map(lambda i: {"pixel_values": X[i], "labels": int(Y[i])})), None),
        (PAIRS, None),
        (Map(lambda i: (X[i], int(Y[i]))), None),
        (Map(lambda i: (ARRAY[i], np.int64(Y[i]))), None),
        (Map(lambda i: {"image": PICTURES[i], "label": int(Y[i])}), None),
        (Map(lambda i: X[i]), Y),
        ((X, Y), None),
        ([X, Y], None),
        ((ARRAY, Y.tolist()), None),
        ((list(X), list(Y)), None),
        (list(zip(X, Y, strict=True)), None),
        (list(DataLoader(PAIRS, batch_size=4)), None),
        (tuple(DataLoader(PAIRS, batch_size=3)), None),
        ([(ARRAY[:4], Y[:4].numpy()), (ARRAY[4:], Y[4:].numpy())], None),
        ([(X[:4], torch.eye(2)[Y[:4]]), (X[4:], torch.eye(2)[Y[4:]])], None),
        ([[X[:4], X[4:]], [Y[:4], Y[4:]]], None),
        ([(picture, int(y)) for picture, y in zip(PICTURES, Y, strict=True)], None),
        ({"image": X, "label": Y}, None),
        (list(X), Y),
        (tuple(ARRAY), Y),
        ([X[:4], X[4:]], [Y[:4], Y[4:]]),
        (PICTURES, Y),
        (pd.Series(list(ARRAY)), pd.Series(Y.numpy(), index=range(50, 50 + N))),
        (X.tolist(), Y.tolist()),
        (X.to_sparse(), Y),
        (X.clone().requires_grad_(), Y),
        (torch.nn.Parameter(X), Y),
        (ARRAY.astype(np.float64), Y),
        (ARRAY.astype(np.longdouble), Y),
        (ARRAY.astype(">f4"), Y.numpy().astype(">i4")),
        (ARRAY[::-1].copy()[::-1], Y.numpy()[::-1].copy()[::-1]),
        (ARRAY.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0), Y),
    ],
)
def test_examples_are_taken_from_what_holds_them(inputs: Any, labels: Any) -> None:
    """Loaders, data sets, lists, pictures, frames and arrays give the same tensors, in order."""
    images, classes = labelled(inputs, labels)
    assert torch.equal(images.float(), X)
    assert torch.equal(classes, Y)


@pytest.mark.parametrize(
    "labels",
    [
        Y.tolist(), tuple(Y.tolist()), Y.numpy(), Y.byte(), Y.to(torch.uint16), Y.int(), Y.float(),
        Y.numpy().astype(np.uint64), Y.numpy().astype(float), Y[:, None], Y.numpy()[:, None],
        pd.Series(Y.numpy()), pd.Series(Y.numpy(), dtype="Int64"), pd.DataFrame({"y": Y.numpy()}),
        pd.Series(Y.numpy()).astype("category"), list(Y), [y[None] for y in Y], list(Y.numpy()),
        Y.numpy().astype(object),
    ],
)  # fmt: skip
def test_labels_are_taken_in_every_form_of_whole_numbers(labels: Any) -> None:
    """Of any library, width and index, as a column, and as floats that are whole."""
    _, classes = labelled(X, labels)
    assert torch.equal(classes, Y)


@pytest.mark.parametrize(
    "labels",
    [torch.eye(2)[Y], torch.eye(2).long()[Y], np.eye(2)[Y.numpy()], torch.eye(2)[Y].tolist(),
     list(torch.eye(2)[Y]), torch.eye(2)[Y].bool()],
)  # fmt: skip
def test_one_hot_labels_are_the_class_of_their_one(labels: Any) -> None:
    """Of any library and type; whatever is no single one among zeros is refused below."""
    assert torch.equal(labelled(X, labels)[1], Y)
    pairs = Map(lambda i: (X[i], torch.eye(2)[Y[i]]))
    assert torch.equal(labelled(pairs, None)[1], Y)


@pytest.mark.parametrize(
    "kind", [list, np.array, pd.Series, lambda t: pd.Series(t).astype("category")]
)
def test_labels_by_name_are_numbered_by_the_class_names(kind: Callable[[list[str]], Any]) -> None:
    """In the order that class_names has, not that of the alphabet."""
    names = ["zebra", "ant"]
    texts = [names[y] for y in Y.tolist()]
    assert torch.equal(labelled(X, kind(texts), names)[1], Y)
    pairs = Map(lambda i: (X[i], texts[i]))
    assert torch.equal(labelled(pairs, None, names)[1], Y)
    batches = DataLoader(pairs, batch_size=4)
    assert torch.equal(labelled(batches, None, names)[1], Y)
    assert torch.equal(labelled(list(batches), None, names)[1], Y)
    with pytest.raises(DataError, match="among class_names; got 'zebra', and not ant, bee"):
        labelled(X, ["zebra"] * N, ["ant", "bee"])


def test_a_name_of_two_classes_is_no_label() -> None:
    """ImageNet has two cranes: which one is meant nobody knows, unless no example is one."""
    names = ["crane", "ant", "bee", "crane"]
    message = "got 'crane', which stands 2 times in class_names: give numbers, or a name to each"
    with pytest.raises(DataError, match=message):
        labelled(X, ["ant"] * (N - 1) + ["crane"], names)
    assert labelled(X, ["ant"] * (N - 1) + ["bee"], names)[1].tolist() == [1] * (N - 1) + [2]


@pytest.mark.parametrize("shape", [(N, 8, 9, 3), (N, 28, 28, 1)])
def test_channels_that_can_only_be_last_are_put_first(shape: tuple[int, ...]) -> None:
    """With one sentence that says what was taken for what."""
    given = torch.rand(shape)
    said = re.escape(f"inputs of shape {shape} have their channels last")
    with pytest.warns(InputNotice, match=said):
        images, _ = labelled(given.numpy(), Y)
    assert torch.equal(images[2, shape[3] - 1], given[2, :, :, shape[3] - 1])
    with pytest.warns(InputNotice, match=said):
        images, _ = labelled(TensorDataset(given, Y), None)
    assert images.shape == (N, shape[3], *shape[1:3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_is_what_it_was(dtype: torch.dtype) -> None:
    """Rounded inputs are taken as they are, not as what they were before."""
    images, _ = labelled(X.to(dtype), Y)
    assert torch.equal(images.float(), X.to(dtype).float())


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (X, None, "labels are missing: give evaluate"),
        (None, None, "labels are missing"),
        (DataLoader(PAIRS), Y, "leave labels out"),
        (PAIRS, Y, "pairs already: leave labels out"),
        (list(DataLoader(PAIRS, batch_size=4)), Y, "pairs already: leave labels out"),
        (Map(lambda i: (X[i], Y[i], i)), None, "a pair .image, label.; got 3 parts"),
        (Map(lambda i: (X[i], torch.tensor([0.3, 0.7]))), None, r"labels.argmax\(1\)"),
        (Map(lambda i: (X[i], "cat")), None, "got text .'cat', ….: give the number of each class"),
        (Map(fail), None, "cannot be read .AttributeError: no such column"),
        (Stream(), None, "has no length"),
        (DataLoader(Stream()), None, "has no length"),
        ({"a": X, "b": Y}, None, "images under one of pixel_values.*; got a, b"),
        ("images", Y, "got str$"),
        (3, Y, "got int$"),
        ((x for x in X), Y, r"got generator \(list"),
        ([X[0], torch.zeros(1, 5, 5)], Y, r"of one shape; got \(1, 4, 4\), \(1, 5, 5\)"),
        ([[1, 2, 3], [4]], Y, "cannot be read"),
        ([X[0], X[1].double()], Y, "of one dtype"),
        ([X[0], None], Y, "got NoneType"),
        ([p.convert("P") for p in PICTURES], Y, r"mode RGB or L; got P: .*convert\('RGB'\)"),
        (X.to(torch.complex64), Y, r"floating point in \[0, 1\]; got torch.complex64"),
        (X.to("meta"), Y, "a meta tensor"),
        (np.ma.masked_less(ARRAY, 0.4), Y, "masked in part"),
        (np.array([None] * N), Y, "have to be numbers"),
        (X, torch.tensor([[0.3, 0.7]] * N), r"labels.argmax\(1\)"),
        (X, torch.tensor([[1, 1]] * N), r"labels.argmax\(1\)"),
        (X, torch.zeros(N, 2), r"labels.argmax\(1\)"),
        (X, ["cat"] * N, r"got text .'cat', ….: give the number of each class, or class_names"),
        (X, pd.Series(["a"] * N, dtype="category"), "text .'a', ….: give the number"),
        (X, Y.bool(), "whole numbers; got torch.bool"),
        (X, Y + 0.5, "whole numbers, the classes; got 0.5"),
        (X, Y * float("nan"), "whole numbers, the classes; got nan"),
        (X, pd.Series([None] * N, dtype="Int64"), "whole numbers, the classes; got nan"),
        (X, (y for y in Y), r"give list\(…\) of it"),
        (X, object(), "got object"),
        (X, {0: 1}, "got dict"),
        (X, [2**70] * N, "have to be numbers"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(inputs: Any, labels: Any, message: str) -> None:
    """With what to do; whatever a data set raises is told, and never thrown raw."""
    with pytest.raises(DataError, match=message) as error:
        labelled(inputs, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(N, 8, 9, 3), r"channels last: permute\(0, 3, 1, 2\) puts them first"),
        (torch.rand(N, 28, 28, 1), r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(N, 32, 32, 3, dtype=torch.uint8), r"by 255, after permute\(0, 3, 1, 2\)"),
        (torch.zeros(N, 3, 32, 32, dtype=torch.uint8), r"divide 8-bit images by 255\)$"),
        (X * 255, "divide by 255"),
        (X * 4 - 2, "put standardisation inside the defense"),
        (X[:, 0], r"got shape \(6, 4, 4\) \(\[:, None\] makes one channel"),
        (X.flatten(1), "reshape rows to images"),
    ],
)
def test_images_in_other_units_and_orders_are_told_how_to_convert(
    inputs: torch.Tensor, message: str
) -> None:
    """Each by the call that does it."""
    with pytest.raises(DataError, match=message):
        Examples.of(inputs, Y, ("a", "b"), "x")


def test_labels_that_count_from_one_are_told_so() -> None:
    """The commonest reason for a label that is one too many."""
    with pytest.raises(DataError, match=r"got 1 to 2 \(subtract 1 where"):
        Examples.of(X, Y + 1, ("a", "b"), "x")


@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_labels_that_mark_what_has_no_class_are_told_so(names: tuple[str, ...] | None) -> None:
    """255, as torchvision has it, is no reason to subtract 1; nor is it among 1,000 classes."""
    labels = torch.tensor([1, 2, 255, 255, 1, 2])
    says = "0 … 2 for 3 classes; 2 are 255, .* to be ignored: leave those examples out"
    with pytest.raises(DataError, match=says):
        attack_only(Wide(3), X, labels, attacks="fgsm", class_names=names)
    result = attack_only(Wide(256), X, labels, attacks="fgsm", epsilons="0.01")
    assert result.summary["defenses"]["model"]["clean_accuracy"] == 0


@pytest.mark.parametrize(
    "shape", [(1, 3, 17), (3, 1, 40), (4, 9, 5), (1, 1, 1), (12, 4, 4), (40, 7, 1), (64, 1, 1)]
)
def test_unusual_shapes_are_not_taken_for_channels_last(shape: tuple[int, int, int]) -> None:
    """Many channels, one column, a single pixel: all are (C, H, W)."""
    assert Examples.of(torch.rand(2, *shape), Y[:2], ("a", "b"), "x").shape == shape
