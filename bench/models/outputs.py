"""What models answer, as logits: the forms of other tools are unpacked, and nothing is guessed.

- An object with `.logits` (Hugging Face, Inception), a dictionary with `logits`, and a tuple or
  list whose first part is the logits stand for those. Where several parts could be them (features,
  other exits), see `_part`.
- One logit per input, (N, 1) or (N,), is a binary classifier's: `[0, z]`, so that its class is 1
  where z > 0. What a sigmoid made of it is none, see `is_sigmoid`.
- The logits of a batch of one may lack its axis, as after `squeeze()`.
- Whole numbers and half precision are logits; complex numbers are none.
- Classes that are masked by -inf stay beneath all others, the label too: see `without_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: How far a masked class lies below the lowest one that is not, at least, in units of 1 + the range
#: of these: no softmax in float32 gives it anything, and no loss becomes infinite.
DEPTH = 100.0
#: What a whole number for each input most likely is.
CLASSES = (
    ": it seems to return classes, all being whole numbers: return what the argmax is taken of"
)


def logits_of(answer: Any, rows: int, classes: int, device: torch.device) -> Tensor:
    """The logits, (rows, classes), on the device, in the dtype that the model gave them.

    Args:
        answer: whatever the module returned.
        rows: the inputs it was asked about.
        classes: of the data.
        device: where the inputs are.

    Raises:
        ModelError: no logits of this shape can be read from it.
    """
    logits = _by_row(_tensor(answer, rows, classes), rows, classes)
    if logits.shape != (rows, classes):
        raise ModelError(
            f"the model has to return logits of shape ({rows}, {classes}), one row per input and "
            f"one column per class; got {told(answer)}{_advice(logits, rows, classes)}"
        )
    return logits.to(device)


def kept(answer: Any) -> Any:
    """What of an answer may be its logits, in memory of its own: the next one may overwrite it."""
    import torch

    if isinstance(answer, torch.Tensor):
        return _plain(answer).clone()
    if _named(answer) is not None:
        return {"logits": kept(_named(answer))}
    if isinstance(answer, (tuple, list)):
        parts = map(kept, answer)
        return list(parts) if isinstance(answer, list) else tuple(parts)
    return answer


def joined(answers: Sequence[Any], size: int, rows: int) -> Any:
    """One answer of those to parts of a batch, so that the same logits are found in it.

    Args:
        answers: whatever the module returned for each, as `kept` keeps it.
        size: the inputs in each part.
        rows: the inputs that count, from the first on; the last part is filled up with others.
    """
    import torch

    first = answers[0]
    if isinstance(first, torch.Tensor):
        parts = [*answers]
        if size == 1 and first.ndim < 2:  # the axis of inputs was squeezed
            parts = [part.reshape(1, -1) for part in parts]
        return torch.cat(parts)[:rows] if parts[0].shape[:1] == (size,) else first
    if _named(first) is not None:
        return {"logits": joined([_named(answer) for answer in answers], size, rows)}
    if isinstance(first, (tuple, list)):
        each = (joined(part, size, rows) for part in zip(*answers, strict=True))
        return list(each) if isinstance(first, list) else tuple(each)
    return first


def count_classes(answer: Any, rows: int, named: int = 2) -> int:
    """The number of classes that an answer to so many inputs is about.

    Args:
        answer: whatever the module returned.
        rows: the inputs it was asked about.
        named: the classes that labels name, at least; beyond two a class is told from a logit.

    Raises:
        ModelError: it is no logits.
    """
    found = _tensor(answer, rows, None)
    if named > 2 and _are_classes(found, rows):
        raise ModelError(f"the model has to return logits; got {told(answer)}{CLASSES}")
    logits = _by_row(found, rows, None)
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] < 2:
        raise ModelError(
            f"the model has to return logits (N, classes ≥ 2); got {told(answer)} for N = {rows}"
            f"{_advice(logits, rows)}"
        )
    return int(logits.shape[1])


def told(answer: Any) -> str:
    """What an answer is, for a message: the shape of a tensor, the parts of anything else."""
    import torch

    if isinstance(answer, torch.Tensor):
        return str(tuple(answer.shape))
    if isinstance(answer, Mapping):
        parts = [f"{key!r}: {told(value)}" for key, value in list(answer.items())[:5]]
        return f"{type(answer).__name__} of {', '.join(parts) or 'nothing'}"
    if isinstance(answer, (tuple, list)):
        return f"{type(answer).__name__} of {', '.join(map(told, answer[:5])) or 'nothing'}"
    return type(answer).__name__


def _tensor(answer: Any, rows: int, classes: int | None) -> Tensor:
    """The tensor of logits in an answer, of any shape; classes of the data, None for unknown."""
    import torch

    found = answer
    if not isinstance(answer, torch.Tensor):
        found = _named(answer)
        if found is None and isinstance(answer, (tuple, list)) and answer:
            found = _part(answer, rows, classes)
    if not isinstance(found, torch.Tensor):
        raise ModelError(
            f"the model has to return logits (N, classes); got {told(answer)}: return a tensor, or "
            "something that has it as `logits` or first"
        )
    if found.is_complex() or found.is_meta:
        kind = f"complex numbers ({found.dtype})" if found.is_complex() else "no values (meta)"
        raise ModelError(f"the model has to return logits, real numbers; got {kind}")
    return _plain(found)


def _plain(found: Tensor) -> Tensor:
    """The same numbers as any library takes them: neither quantised nor sparse, of no subclass."""
    import torch

    if found.is_quantized:
        found = found.dequantize()
    dense = found if found.layout is torch.strided else found.to_dense()
    return dense.as_subclass(torch.Tensor)


def _named(answer: Any) -> Any:
    """What is called `logits` in an answer that is no tensor; None where nothing is."""
    named = getattr(answer, "logits", None)
    return answer.get("logits") if named is None and isinstance(answer, Mapping) else named


def _part(answer: Sequence[Any], rows: int, classes: int | None) -> Any:
    """The logits of a tuple or list: its first part, where no two could be them.

    Of several it is the one with as many columns as the data have classes, and of a tuple of two
    equally wide the first, (logits, auxiliary logits).

    Raises:
        ModelError: it could be more than one.
    """
    import torch

    real = [p for p in answer if isinstance(p, torch.Tensor) and p.is_floating_point()]
    several = [p for p in real if p.ndim == 2 and len(p) == rows and p.shape[1] > 1]
    if rows == 1 and not several:  # whose axis of inputs was squeezed
        several = [p for p in real if p.ndim == 1 and len(p) > 1]
    fitting = [p for p in several if classes in (None, p.shape[-1])]
    if len(several) < 2 or not fitting:
        return answer[0]
    if len(fitting) == 1:
        return fitting[0]
    widths = {p.shape[-1] for p in several}
    if isinstance(answer, tuple) and len(several) == 2 and len(widths) == 1:
        return answer[0]
    raise ModelError(
        f"the model returns more than one table: which of {told(answer)} is the logits: return it "
        "alone, or as `logits`"
    )


def _by_row(logits: Tensor, rows: int, classes: int | None) -> Tensor:
    """Logits whose axis of inputs was squeezed, or whose class 0 goes unsaid, made whole."""
    import torch

    shape = tuple(logits.shape)
    if rows == 1 and len(shape) < 2 and shape != (1,):
        logits = logits.reshape(1, -1)
    single = logits.numel() == rows and tuple(logits.shape) in ((rows,), (rows, 1))
    if single and classes in (None, 2):
        column = logits.reshape(rows, 1)
        logits = torch.cat([torch.zeros_like(column), column], dim=1)
    return logits


def is_single(answer: Any, rows: int) -> bool:
    """Whether an answer that `logits_of` takes for two classes has one logit per input."""
    try:
        return _tensor(answer, rows, 2).numel() == rows
    except ModelError:  # taken for more classes, of which one part has as many
        return False


def is_sigmoid(logits: Tensor) -> bool:
    """Whether one logit per input may be a probability: in [0, 1] for all of them.

    Were these logits, all inputs would be of class 1.

    Args:
        logits: (N, 2), as `logits_of` made them of one each.
    """
    column = logits[:, 1]
    return bool(((column >= 0) & (column <= 1)).all())


def _are_classes(logits: Tensor, rows: int) -> bool:
    """Whether there is one whole number for each input."""
    if logits.numel() != rows:
        return False
    return bool((logits.double() == logits.double().round()).all())


def _advice(logits: Tensor, rows: int, classes: int | None = None) -> str:
    if classes is not None and logits.ndim == 2 and logits.shape[1] > classes:
        return (
            "; where the data have some of its classes alone, name all of them in its order: "
            "folder:PATH[classes=FILE], for ImageNet [classes=imagenet]"
        )
    if logits.ndim > 2 and logits.numel() == len(logits) * logits.shape[1]:
        return " (flatten(1) makes it that)"
    if logits.numel() == rows:
        about = CLASSES if _are_classes(logits, rows) else ""
        return f" (one logit for each input is for two classes){about}"
    return ""


def without_masks(logits: Tensor) -> Tensor:
    """Logits in which a class at -inf lies by `DEPTH` below the others of its row instead.

    That leaves every prediction, and gives the class no gradient; an example whose label is masked
    is a clean error. A row without a finite logit, +inf and NaN stay as they are.

    Args:
        logits: floating point, (N, classes).
    """
    import torch

    masked = logits == -torch.inf
    if not logits.is_cuda and not bool(masked.any()):  # a GPU would have to be waited for
        return logits
    plain = logits.detach()
    low = plain.masked_fill(masked, torch.inf).amin(dim=1, keepdim=True)
    high = plain.amax(dim=1, keepdim=True)
    floor = low - low.abs() - DEPTH * (1 + high - low)  # lower even where float32 rounds 100 away
    return torch.where(masked & torch.isfinite(low), floor, logits)
