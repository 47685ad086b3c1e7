"""k-WTA on a GPU: selection, mask and gradient in Triton kernels.

One program takes one group of units and finds the k-th largest score by radix select: digits of
eight bits, the highest first, each from a histogram of the units that share the digits found so
far. Scores are compared as integers, so that no rounding and no flushing of denormals can enter.
Importing this imports torch and Triton.
"""

# Triton has no types, and in a kernel capitals are what is known when it is compiled.
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
# mypy: disable-error-code="no-untyped-call, untyped-decorator"
# ruff: noqa: N803, N806

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.defenses.activations.kinds import refuse_nan

if TYPE_CHECKING:
    from bench.defenses.activations.kinds import Kind

#: What the kernels take: an integer dtype of the same width, and the bits of infinity.
_FORMATS = {
    torch.float32: (torch.int32, 0x7F800000),
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
}

#: By what units compete, as `_keys` numbers it: their value, |x|, or −|x|.
_SCORES = {"layer": 0, "channel": 0, "magnitude": 1, "channel-magnitude": 1, "smallest": 2}

#: How many units a program reads at a time, at most, and how many of these a warp has.
_BLOCK, _PER_WARP = 8192, 512


def serves(x: Tensor, first: int) -> bool:
    """Whether `kwta` takes such an input, whose groups are the dimensions from `first` on.

    Each group has to lie in memory without gaps, in any order: an example in channels_last does.
    """
    together = x.is_contiguous() or (first == 1 and _is_channels_last(x))
    return x.dtype in _FORMATS and x.numel() > 0 and together


def kwta(x: Tensor, *, kind: Kind, units: int, k: int) -> Tensor:
    """The winners of each group keep their value, and the gradient passes them.

    All units tied at the k-th largest score win, and zeros of both signs are equal. The gradient
    keeps `x` and one number for each group, no mask.

    Args:
        x: float32, float16 or bfloat16 on a GPU; what `serves` has agreed to.
        kind: by what units compete.
        units: in a group.
        k: how many win, 1 to `units`.

    Returns:
        Shape, dtype and memory format of `x`.

    Raises:
        ModelError: `x` contains NaN.
    """
    out: Tensor = _KWTA.apply(x, units, k, _SCORES[kind])
    return out


class _KWTA(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: int, k: int, score: int) -> Tensor:
        integer, options = _options(x, units, score)
        out = torch.empty_like(x)
        groups = x.numel() // units
        thresholds = torch.empty(groups, dtype=torch.int32, device=x.device)
        # Triton launches on the current device, which need not be that of x.
        with torch.cuda.device_of(x):
            _select_and_mask[(groups,)](
                x.view(integer), out.view(integer), thresholds, units, k, **options
            )
        refuse_nan(thresholds == 0)
        ctx.save_for_backward(x, thresholds)
        ctx.units, ctx.score = units, score
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        x, thresholds = ctx.saved_tensors
        passed = _Masked.apply(gradients[0], x, thresholds, ctx.units, ctx.score)
        return passed, None, None, None


class _Masked(torch.autograd.Function):
    """`values` where the score of `x` reaches the threshold: linear, so its own derivative."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, x: Tensor, thresholds: Tensor, units: int, score: int
    ) -> Tensor:
        integer, options = _options(x, units, score)
        last = _is_channels_last(x) and not x.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        values = values.contiguous(memory_format=layout)
        out = torch.empty_like(values)
        with torch.cuda.device_of(x):
            _mask[(len(thresholds), triton.cdiv(units, options["BLOCK"]))](
                values.view(integer), x.view(integer), out.view(integer), thresholds, units,
                **options,
            )  # fmt: skip
        ctx.save_for_backward(x, thresholds)
        ctx.units, ctx.score = units, score
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        return *_KWTA.backward(ctx, *gradients), None


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _options(x: Tensor, units: int, score: int) -> tuple[torch.dtype, dict[str, int]]:
    """The integer dtype to read `x` as, and what both kernels are compiled for."""
    integer, infinity = _FORMATS[x.dtype]
    block = min(_BLOCK, max(128, triton.next_power_of_2(units)))
    return integer, {
        "SCORE": score,
        "WIDTH": 8 * x.element_size(),
        "INFINITY": infinity,
        "BLOCK": block,
        "num_warps": max(1, block // _PER_WARP),
    }


@triton.jit
def _keys(bits, SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr):
    """Unsigned integers of WIDTH bits in the order of the scores: NaN is the highest, 0 is none.

    A float is a sign and a magnitude, so that zeros of both signs get one key.
    """
    MIDDLE: tl.constexpr = 1 << (WIDTH - 1)
    magnitude = (bits & (MIDDLE - 1)).to(tl.uint32)
    if SCORE == 0:
        keys = tl.where(bits < 0, MIDDLE - magnitude, MIDDLE + magnitude)
    elif SCORE == 1:
        keys = MIDDLE + magnitude
    else:
        keys = MIDDLE - magnitude
    return tl.where(magnitude > INFINITY, 2 * MIDDLE - 1, keys).to(tl.uint32)


@triton.jit
def _kth_key(
    x, units, k,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The k-th largest key of the group that starts at `x`."""
    found = tl.zeros((), tl.uint32)  # the digits so far
    for shift in tl.static_range(WIDTH - 8, -1, -8):
        counts = tl.zeros((256,), tl.int32)
        for start in range(0, units, BLOCK):
            unit = start + tl.arange(0, BLOCK)
            counted = unit < units
            bits = tl.load(x + unit, mask=counted, other=0)
            keys = _keys(bits, SCORE, WIDTH, INFINITY)
            if shift + 8 < WIDTH:
                counted &= (keys >> (shift + 8)) == found
            digits = ((keys >> shift) & 255).to(tl.int32)
            counts += tl.histogram(digits, 256, mask=counted)
        # The k-th has the highest digit that, with those above it, k units reach.
        reaching = tl.cumsum(counts, reverse=True)
        digit = tl.sum((reaching >= k).to(tl.int32)) - 1
        k -= tl.sum(tl.where(tl.arange(0, 256) > digit, counts, 0))
        found = found * 256 + digit.to(tl.uint32)
    return found


@triton.jit(do_not_specialize=["k"])
def _select_and_mask(
    x, out, thresholds, units, k,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the winners of one group, and the key of the last of them; 0 for NaN."""
    group = tl.program_id(0).to(tl.int64)
    x += group * units
    out += group * units
    kth = _kth_key(x, units, k, SCORE, WIDTH, INFINITY, BLOCK)
    largest = tl.zeros((BLOCK,), tl.uint32)
    for start in range(0, units, BLOCK):
        unit = start + tl.arange(0, BLOCK)
        inside = unit < units
        bits = tl.load(x + unit, mask=inside, other=0)
        keys = _keys(bits, SCORE, WIDTH, INFINITY)
        tl.store(out + unit, tl.where(keys >= kth, bits, 0), mask=inside)
        largest = tl.maximum(largest, keys)
    NAN: tl.constexpr = (1 << WIDTH) - 1
    has_nan = tl.max(largest, axis=0) == NAN
    tl.store(thresholds + group, tl.where(has_nan, 0, kth).to(tl.int32))


@triton.jit
def _mask(
    values, x, out, thresholds, units,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the values of one block of a group whose scores reach its threshold."""
    group = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < units
    place = group * units + unit
    threshold = tl.load(thresholds + group).to(tl.uint32)
    keys = _keys(tl.load(x + place, mask=inside, other=0), SCORE, WIDTH, INFINITY)
    passed = tl.load(values + place, mask=inside, other=0)
    tl.store(out + place, tl.where(keys >= threshold, passed, 0), mask=inside)
