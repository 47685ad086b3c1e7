"""k-WTA on a GPU: selection, mask and gradient in Triton kernels.

They are operators of torch, so that `torch.compile` takes them as they are, and without a compiler
functions of autograd, which cost the host less. No pass makes it wait, so CUDA graphs take both.
Importing this imports torch and Triton.
"""

# Triton has no types.
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.defenses.activations import triton_kernels as kernels

if TYPE_CHECKING:
    from bench.defenses.activations.kinds import Kind

#: What the kernels take: an integer dtype of the same width, and the bits of infinity.
_FORMATS = {
    torch.float32: (torch.int32, 0x7F800000),
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
}

#: By what units compete, as the kernels number it: their value, |x|, or −|x|.
_SCORES = {"layer": 0, "channel": 0, "magnitude": 1, "channel-magnitude": 1, "smallest": 2}

#: Groups of so many units are held whole, several to a program; of so many, sixteen bits a unit.
_SHORT, _HELD = 1024, 65536

#: Longer groups are split into parts of whole blocks, so that there are about so many programs.
_PROGRAMS, _PART = 264, 2048


def serves(x: Tensor, first: int) -> bool:
    """Whether `kwta` takes such an input, whose groups are the dimensions from `first` on.

    Each group has to lie in memory without gaps, in any order: an example in channels_last does.
    """
    together = x.is_contiguous() or (first == 1 and _is_channels_last(x))
    return x.dtype in _FORMATS and x.numel() > 0 and together


def kwta(x: Tensor, *, kind: Kind, units: int, k: int) -> Tensor:
    """The winners of each group keep their value, and the gradient passes them.

    All units tied at the k-th largest score win, and zeros of both signs are equal. A group with
    NaN becomes NaN, and passes no gradient. The gradient keeps a bit for each unit.

    Args:
        x: float32, float16 or bfloat16 on a GPU; what `serves` has agreed to.
        kind: by what units compete.
        units: in a group.
        k: how many win, 1 to `units`.

    Returns:
        Shape, dtype and memory format of `x`.
    """
    score = _SCORES[kind]
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        out: Tensor = _select(x, units, k, score)[0]
    elif torch.is_grad_enabled() and x.requires_grad:
        out = _Select.apply(x, units, k, score)
    else:
        out = _chosen(x, units, k, score)[0]
    return out


def _chosen(x: Tensor, units: int, k: int, score: int) -> tuple[Tensor, Tensor]:
    """Winners, and who they are: int32 (groups, words of 32 units), in the order of memory."""
    integer, infinity = _FORMATS[x.dtype]
    out, words = _like(x, units)
    groups, width = len(words), 8 * x.element_size()
    known = {"SCORE": score, "WIDTH": width, "INFINITY": infinity}
    given = (x.view(integer), out.view(integer), words)
    # Triton launches on the current device, which need not be that of x.
    with torch.cuda.device_of(x):
        if units <= _SHORT:
            rows, wide = _tile(units)
            kernels.tile[(_over(groups, rows),)](
                *given, units, k, groups, **known, ROWS=rows, UNITS=wide, num_warps=4
            )
        elif units <= _HELD:
            pairs = _power(units) // 8
            block, warps = max(32, min(2 * pairs, _PART)), min(32, max(1, pairs // 128))
            kernels.held[(groups,)](
                *given, units, k, **known, PAIRS=pairs, BLOCK=block, num_warps=warps
            )
        else:
            blocks = _over(_over(units, _over(_PROGRAMS, groups)), _PART)
            _in_parts(given, units, k, blocks * _PART, known)
    return out, words


def _in_parts(
    given: tuple[Tensor, Tensor, Tensor], units: int, k: int, part: int, known: dict[str, int]
) -> None:
    """Several programs for each group: one digit is counted after another, then all is written."""
    x, out, words = given
    groups, digits = len(words), known["WIDTH"] // 8
    counts = torch.zeros(digits, groups, 256, dtype=torch.int32, device=x.device)
    nans = torch.zeros(groups, dtype=torch.int32, device=x.device)
    grid = (groups, _over(units, part))
    options = {**known, "BLOCK": _PART, "num_warps": 4}
    for digit in range(digits):
        kernels.count_part[grid](x, counts, nans, units, k, part, groups, DIGIT=digit, **options)
    kernels.write_part[grid](x, out, words, counts, nans, units, k, part, groups, **options)


def _passed(values: Tensor, words: Tensor, units: int, last: bool) -> Tensor:
    """`values` of the winners and 0 elsewhere: linear, so its own derivative."""
    values = _laid(values, last)
    integer, _ = _FORMATS[values.dtype]
    out = torch.empty_like(values)
    rows, wide = _tile(min(units, _SHORT))
    grid = (_over(len(words), rows), _over(units, wide))
    with torch.cuda.device_of(values):
        kernels.pass_winners[grid](
            values.view(integer), words, out.view(integer), units, len(words),
            ROWS=rows, UNITS=wide, num_warps=4,
        )  # fmt: skip
    return out


class _Select(torch.autograd.Function):
    """The winners of `_chosen`, where nobody traces: an operator takes 0.3 ms more a call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, units: int, k: int, score: int) -> Tensor:
        out, words = _chosen(x, units, k, score)
        ctx.units, ctx.last = units, not x.is_contiguous()
        ctx.save_for_backward(words)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (words,) = ctx.saved_tensors
        # The operator has a derivative, for whoever differentiates this gradient.
        way = _pass if torch.is_grad_enabled() else _passed
        return way(gradient, words, ctx.units, ctx.last), None, None, None


_select = torch.library.custom_op(
    "winnow::kwta",
    _chosen,
    mutates_args=(),
    schema="(Tensor x, int units, int k, int score) -> (Tensor, Tensor)",
)
_pass = torch.library.custom_op(
    "winnow::kwta_pass",
    _passed,
    mutates_args=(),
    schema="(Tensor values, Tensor words, int units, bool last) -> Tensor",
)


@_select.register_fake
def _like(x: Tensor, units: int, *_: int) -> tuple[Tensor, Tensor]:
    shape = (x.numel() // units, _over(units, 32))
    return torch.empty_like(x), torch.empty(shape, dtype=torch.int32, device=x.device)


@_pass.register_fake
def _passed_like(values: Tensor, words: Tensor, units: int, last: bool) -> Tensor:
    return torch.empty_like(_laid(values, last))


def _keep_words(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.units, *_ = inputs
    ctx.last = not x.is_contiguous()
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _winners_gradient(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
    (words,) = ctx.saved_tensors
    return _pass(gradient, words, ctx.units, ctx.last), None, None, None


def _keep_again(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, words, ctx.units, ctx.last = inputs
    ctx.save_for_backward(words)


def _passed_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (words,) = ctx.saved_tensors
    return _pass(gradient, words, ctx.units, ctx.last), None, None, None


_select.register_autograd(_winners_gradient, setup_context=_keep_words)
_pass.register_autograd(_passed_gradient, setup_context=_keep_again)


def _tile(units: int) -> tuple[int, int]:
    """How many groups of so many units, at most `_SHORT`, a program holds, and their places."""
    wide = max(32, _power(units))
    return max(1, _SHORT // wide), wide


def _over(count: int, each: int) -> int:
    """How many of so many each hold them all; Triton's own is slow outside of a kernel."""
    return -(-count // each)


def _power(count: int) -> int:
    """The power of two that holds so many."""
    return 1 << (count - 1).bit_length()


def _laid(values: Tensor, last: bool) -> Tensor:
    """In the order of memory that the words have."""
    layout = torch.channels_last if last else torch.contiguous_format
    return values.contiguous(memory_format=layout)


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
