"""Examples as other tools hold them, made into the tensors that `Examples` checks.

Tensors, arrays, frames, images of PIL, lists of those, a `DataLoader`, a `Dataset`, a pair. Nothing
is guessed about their values: what is in other units is refused by `Examples.of`, which says how to
convert it. Channels that can only be last are put first, and a notice says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.api.examples import channels_last
from bench.errors import DataError, InputNotice, WinnowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

#: The keys under which data sets that give dictionaries have images and labels.
_IMAGES = ("pixel_values", "image", "images", "img", "inputs", "x")
_LABELS = ("label", "labels", "fine_label", "target", "targets", "y")

_FORMS = (
    "give evaluate(model, inputs, labels), or a DataLoader, Dataset or list of (image, label) pairs"
)


def labelled(
    inputs: Any, labels: Any, class_names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Inputs and labels as tensors, still unchecked.

    Args:
        inputs: images, or what holds the labels as well.
        labels: None where `inputs` holds them.
        class_names: in order, by which labels may be called; None where there are no names.

    Returns:
        Inputs of any shape and dtype, and labels, int64 where they are whole numbers.

    Raises:
        DataError: what cannot be read as that.
    """
    try:
        if labels is None:
            inputs, labels = _pair(inputs)
        elif _is_loader(inputs):
            raise DataError("a DataLoader gives the labels as well: leave labels out")
        images = _images(inputs)
        if isinstance(labels, (list, tuple)) and len(labels) == len(images):
            labels = _each(labels)
        return images, _classes(labels, class_names)
    except WinnowError:
        raise
    except Exception as error:  # whatever somebody else's data set or array raises
        said = (str(error).strip().splitlines() or ["no message"])[0]
        raise DataError(
            f"the examples cannot be read ({type(error).__name__}: {said}); {_FORMS}"
        ) from error


def _is_loader(given: Any) -> bool:
    """Whether it gives batches, as torch's `DataLoader` does."""
    return hasattr(given, "dataset") and hasattr(given, "batch_size")


def _pair(given: Any) -> tuple[Any, Any]:
    """Images and labels of what holds both."""
    if _is_loader(given):
        _length(given)
        batches = [_of_one(batch) for batch in given]
        return [batch[0] for batch in batches], [batch[1] for batch in batches]
    if isinstance(given, Mapping):
        return _of_one(given)
    if isinstance(given, (tuple, list)) and len(given) == 2 and not _is_sample(given[0]):
        return given[0], given[1]
    if _is_array(given) or not hasattr(given, "__getitem__"):
        raise DataError(f"labels are missing: {_FORMS} (got {type(given).__name__} alone)")
    samples = [_of_one(given[i]) for i in range(_length(given))]
    return [sample[0] for sample in samples], [sample[1] for sample in samples]


def _each(labels: Sequence[Any]) -> Sequence[Any]:
    """One label an image, each as a batch of one, so that one-hot vectors are seen as such."""
    arrays = any(_is_array(label) for label in labels)
    return [_tensor(label, "labels")[None] for label in labels] if arrays else labels


def _is_sample(given: Any) -> bool:
    """Whether it is an image with its label, or a batch of them with theirs, rather than images."""
    if isinstance(given, Mapping):
        return True
    if not (isinstance(given, (tuple, list)) and len(given) == 2):
        return False
    images, labels = map(_rank, given)
    return labels == 0 or (images == 4 and labels in (1, 2))  # 2 of one-hot rows


def _rank(given: Any) -> int:
    """The number of axes; of what is no array, whether it holds anything at all."""
    found = getattr(given, "ndim", None)
    return found if isinstance(found, int) else int(hasattr(given, "__len__") or _is_picture(given))


def _length(given: Any) -> int:
    try:
        return len(given)
    except TypeError:
        raise DataError(
            f"{type(given).__name__} has no length: take as many examples as the run should have "
            "into lists, and give those"
        ) from None


def _of_one(given: Any) -> tuple[Any, Any]:
    """Image and label of a sample, or of a batch."""
    if isinstance(given, Mapping):
        images, labels = ([key for key in keys if key in given] for keys in (_IMAGES, _LABELS))
        if len(images) == 1 and len(labels) == 1:
            return given[images[0]], given[labels[0]]
        raise DataError(
            f"a dictionary has to hold images under one of {', '.join(_IMAGES)} and labels under "
            f"one of {', '.join(_LABELS)}; got {', '.join(map(str, given)) or 'nothing'}"
        )
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return given[0], given[1]
    held = f"{len(given)} parts" if isinstance(given, (tuple, list)) else type(given).__name__
    raise DataError(f"every example or batch has to be a pair (image, label); got {held}")


def _is_array(given: Any) -> bool:
    array = hasattr(given, "shape") and hasattr(given, "dtype")
    return array or hasattr(given, "to_numpy")


def _images(given: Any) -> Tensor:
    if not (_is_array(given) or isinstance(given, (list, tuple))):
        other = isinstance(given, (str, bytes, Mapping))
        if other or not hasattr(given, "__getitem__"):
            listed = isinstance(given, Iterable) and not other
            raise DataError(
                "inputs have to be a tensor, an array or a list of images; got "
                f"{type(given).__name__}{' (list(…) makes one)' if listed else ''}"
            )
        given = [given[i] for i in range(_length(given))]
    if isinstance(given, (list, tuple)) and given and _is_sample(given[0]):
        raise DataError("inputs are (image, label) pairs already: leave labels out")
    found = _tensor(given, "inputs")
    if found.is_complex():
        raise DataError(f"inputs have to be floating point in [0, 1]; got {found.dtype}")
    if found.ndim == 4 and found.is_floating_point() and channels_last(found):
        first = found.permute(0, 3, 1, 2)
        notice = (
            f"inputs of shape {tuple(found.shape)} have their channels last: taken as "
            f"(N, C, H, W), {tuple(first.shape)}"
        )
        warnings.warn(notice, InputNotice, stacklevel=2)
        return first
    return found


def _classes(given: Any, names: Sequence[str] | None) -> Tensor:
    """Labels as they are meant: a column is a row of them, and whole floats are whole numbers.

    One-hot rows stand for the class of their one, and names for the class that is called so.
    """
    import torch

    if isinstance(given, Iterable) and not (_is_array(given) or hasattr(given, "__len__")):
        raise DataError(f"labels are a {type(given).__name__}: give list(…) of it")
    texts = _texts(given)
    if texts is not None:
        return _numbered(texts, names)
    found = _tensor(given, "labels")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and _is_one_hot(found):
        return found.long().argmax(dim=1)
    if found.ndim == 2:
        raise DataError(
            f"labels have to be one whole number per input; got shape {tuple(found.shape)}: where "
            "they are probabilities, give labels.argmax(1)"
        )
    if found.dtype is torch.bool or found.is_complex():
        raise DataError(
            f"labels have to be whole numbers; got {found.dtype} (0 and 1 for false and true)"
        )
    if found.is_floating_point():
        if not bool((found == found.round()).all()):
            odd = found[found != found.round()].flatten()[0].item()
            raise DataError(f"labels have to be whole numbers, the classes; got {odd:.4g}")
        return found.long() if found.numel() else found
    return found.long()


def _is_one_hot(labels: Tensor) -> bool:
    """Whether each of some rows, (N, classes), is a single one among zeros."""
    if labels.is_complex() or not len(labels):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(dim=1) == 1).all())


def _texts(given: Any) -> list[str] | None:
    """The names that labels are, of lists and arrays of them and of batches; None of others."""
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    items = given.tolist() if kind in ("O", "U", "T") else given
    if not isinstance(items, (list, tuple)) or not items:
        return None
    if all(isinstance(item, str) for item in items):
        return list(items)
    parts = [_texts(item) if isinstance(item, (list, tuple)) else None for item in items]
    return None if None in parts else [text for part in parts for text in part or ()]


def _numbered(texts: Sequence[str], names: Sequence[str] | None) -> Tensor:
    """The classes that names stand for.

    Raises:
        DataError: nothing says which number a name has, or two numbers have it.
    """
    import torch

    if names is None:
        raise DataError(
            f"labels have to be numbers; got text ({texts[0]!r}, …): give the number of each "
            "class, or class_names=[…] in the order of the model's outputs"
        )
    numbers = {name: number for number, name in enumerate(names)}
    twice = {name for number, name in enumerate(names) if numbers[name] != number}
    for text in texts:
        if text in twice:
            raise DataError(
                f"labels have to name one class each; got {text!r}, which stands "
                f"{names.count(text)} times in class_names: give numbers, or a name to each class"
            )
        if text not in numbers:
            raise DataError(
                f"labels have to be among class_names; got {text!r}, and not {', '.join(names[:5])}"
                f"{', …' if len(names) > 5 else ''}"
            )
    return torch.tensor([numbers[text] for text in texts])


def _tensor(given: Any, what: str) -> Tensor:
    """An array of whatever library, or a list of arrays, as a tensor."""
    import numpy as np
    import torch

    if isinstance(given, torch.Tensor):
        return _strided(given, what)
    if _is_picture(given):
        return _pixels(given)
    if isinstance(given, (list, tuple)) and any(_is_array(i) or _is_picture(i) for i in given):
        return _stacked([_tensor(item, what) for item in given], what)
    if isinstance(given, np.ma.MaskedArray) and bool(np.any(given.mask)):
        raise DataError(f"{what} are masked in part: give those that are there")
    array = given.to_numpy() if hasattr(given, "to_numpy") else np.asarray(given)
    if array.dtype == object and array.ndim == 0:
        raise DataError(
            f"{what} have to be a tensor, an array or a list; got {type(given).__name__}"
        )
    if array.dtype == object:
        items = list(array)
        if array.ndim == 1 and any(_is_array(i) or _is_picture(i) for i in items):
            return _stacked([_tensor(item, what) for item in items], what)
        array = np.asarray(array.tolist())
    return torch.from_numpy(_numeric(array, what))


def _numeric(array: np.ndarray, what: str) -> np.ndarray:
    """In a dtype and a layout that torch takes, in memory of its own."""
    import numpy as np

    kind = array.dtype.kind
    if kind == "b" or kind in "iu":
        wanted = array.dtype if array.dtype.itemsize == 1 else np.dtype(np.int64)
    elif kind == "f":
        wanted = np.dtype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    else:
        text = "text" if kind in "UST" else str(array.dtype)
        advice = "give the number of each class, from 0" if what == "labels" else "give numbers"
        raise DataError(f"{what} have to be numbers; got {text}: {advice}")
    return np.array(array, dtype=wanted, order="C", copy=True)


def _strided(given: Tensor, what: str) -> Tensor:
    """A plain tensor, without the history of whoever made it."""
    import torch

    if given.is_meta or given.is_nested or given.is_quantized:
        kind = "meta" if given.is_meta else "nested" if given.is_nested else "quantised"
        raise DataError(f"{what} are a {kind} tensor: give a plain one of numbers")
    dense = given if given.layout is torch.strided else given.to_dense()
    return dense.detach().as_subclass(torch.Tensor)


def _stacked(items: Sequence[Tensor], what: str) -> Tensor:
    """One tensor of many: of images or labels, or of batches of them."""
    import torch

    batched = items[0].ndim in ((4,) if what == "inputs" else (1, 2))
    shapes = sorted({tuple(item.shape[1:] if batched else item.shape) for item in items})
    if len(shapes) > 1:
        raise DataError(
            f"{what} have to be of one shape; got {', '.join(map(str, shapes[:3]))}"
            f"{', …' if len(shapes) > 3 else ''}: bring them to one size first"
        )
    kinds = {item.dtype for item in items}
    if len(kinds) > 1:
        raise DataError(f"{what} have to be of one dtype; got {', '.join(sorted(map(str, kinds)))}")
    return torch.cat(list(items)) if batched else torch.stack(list(items))


def _is_picture(given: Any) -> bool:
    from PIL.Image import Image

    return isinstance(given, Image)


def _pixels(picture: Any) -> Tensor:
    """A picture in [0, 1], (C, H, W)."""
    import numpy as np
    import torch

    if picture.mode not in ("L", "RGB"):
        raise DataError(
            f"images of PIL have to be of mode RGB or L; got {picture.mode}: give "
            "image.convert('RGB')"
        )
    array = np.array(picture, dtype=np.float32) / 255
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
