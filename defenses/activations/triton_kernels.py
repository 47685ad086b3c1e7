"""The Triton kernels of k-WTA.

A group's k-th largest score is found by bisection while the group is held in registers: short
groups whole, longer ones by sixteen bits of each unit. The longest are read again for each digit of
eight bits, the highest first, which is found from a histogram of the units that share the digits
found so far. Scores are compared as integers, so that no rounding and no flushing of
denormals can enter. A group with NaN has no k-th largest: all of it becomes NaN, and none wins.

Who won is kept as bits, 32 units a word, for the gradient. Importing this imports Triton.
"""

# Triton has no types, and in a kernel capitals are what is known when it is compiled.
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def"
# mypy: disable-error-code="no-untyped-call, untyped-decorator"
# ruff: noqa: N803, N806

import triton
import triton.language as tl


@triton.jit
def _keys(bits, SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr):
    """Unsigned integers of WIDTH bits in the order of the scores: NaN is the highest, 0 is none.

    A float is a sign and a magnitude, so that zeros of both signs get one key. By their value,
    |x|, or −|x|: SCORE is 0, 1, 2.
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
def _histogram(
    x, first, last, found, shift,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """How often each digit is at `shift` among units whose higher digits are `found`; if NaN is."""
    counts = tl.zeros((256,), tl.int32)
    largest = tl.zeros((BLOCK,), tl.uint32)
    for start in range(first, last, BLOCK):
        unit = start + tl.arange(0, BLOCK)
        counted = unit < last
        keys = _keys(tl.load(x + unit, mask=counted, other=0), SCORE, WIDTH, INFINITY)
        largest = tl.maximum(largest, keys)
        if shift + 8 < WIDTH:
            counted &= (keys >> (shift + 8)) == found
        counts += tl.histogram(((keys >> shift) & 255).to(tl.int32), 256, mask=counted)
    return counts, tl.max(largest, axis=0) == (1 << WIDTH) - 1


@triton.jit
def _next_digit(counts, found, k):
    """The k-th has the highest digit that, with those above it, k units reach."""
    reaching = tl.cumsum(counts, reverse=True)
    digit = tl.sum((reaching >= k).to(tl.int32)) - 1
    k -= tl.sum(tl.where(tl.arange(0, 256) > digit, counts, 0))
    return found * 256 + digit.to(tl.uint32), k


@triton.jit
def _write(
    x, out, words, first, last, kth, has_nan,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the winners of a part of a group, which begins at a word, and their bits."""
    NAN: tl.constexpr = (1 << (WIDTH - 1)) - 1
    for start in range(first, last, BLOCK):
        unit = start + tl.arange(0, BLOCK)
        inside = unit < last
        bits = tl.load(x + unit, mask=inside, other=0)
        keys = _keys(bits, SCORE, WIDTH, INFINITY)
        won = (keys >= kth) & inside & (has_nan == 0)
        kept = tl.where(has_nan != 0, NAN, tl.where(won, bits, 0))
        tl.store(out + unit, kept, mask=inside)
        lanes = won.to(tl.int32) << (tl.arange(0, BLOCK) & 31)
        packed = tl.sum(tl.reshape(lanes, (BLOCK // 32, 32)), axis=1)
        word = start // 32 + tl.arange(0, BLOCK // 32)
        tl.store(words + word, packed, mask=word < (last + 31) // 32)


@triton.jit
def _digits(
    x, first, units, found, shift,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Sixteen bits at `shift` of units from `first` on whose higher bits are `found`, else 0."""
    unit = first + tl.arange(0, PAIRS)
    counted = unit < units
    if shift + 16 == WIDTH:
        bits = tl.load(x + unit, mask=counted, other=0)
    else:
        # Read anew: without another policy both loads become one, which is held all the while.
        bits = tl.load(x + unit, mask=counted, other=0, eviction_policy="evict_last")
    keys = _keys(bits, SCORE, WIDTH, INFINITY)
    if shift + 16 < WIDTH:
        counted &= (keys >> (shift + 16)) == found
    return tl.where(counted, (keys >> shift) & 0xFFFF, 0)


@triton.jit
def _pairs(
    x, first, units, found, shift,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """`_digits` of twice as many units, two in a word."""
    upper = _digits(x, first, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
    lower = _digits(x, first + PAIRS, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
    return (upper << 16) | lower


@triton.jit
def _reaching(pairs, digit):
    """How many of each place's two digits are at least so high, which is not 0."""
    upper = pairs >= digit << 16
    # The lower one where taking it away borrows nothing from the upper.
    lower = (pairs - digit) ^ pairs < 0x10000
    return upper.to(tl.int32) + lower.to(tl.int32)


@triton.jit(do_not_specialize=["k"])
def held(
    x, out, words, units, k,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr,
    PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for one group of at most 8 * PAIRS units, sixteen bits of each held at a time."""
    group = tl.program_id(0).to(tl.int64)
    x += group * units
    found = tl.zeros((), tl.uint32)
    has_nan = tl.zeros((), tl.int32)
    for shift in tl.static_range(WIDTH - 16, -1, -16):
        # Four tensors, since one would have all of the group loaded before any is packed.
        a = _pairs(x, 0 * PAIRS, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
        b = _pairs(x, 2 * PAIRS, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
        c = _pairs(x, 4 * PAIRS, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
        d = _pairs(x, 6 * PAIRS, units, found, shift, SCORE, WIDTH, INFINITY, PAIRS)
        if shift + 16 == WIDTH:
            # The largest that is no NaN, infinity, has other sixteen bits.
            nans = _reaching(a, 0xFFFF) + _reaching(b, 0xFFFF)
            nans += _reaching(c, 0xFFFF) + _reaching(d, 0xFFFF)
            has_nan = tl.max(nans, axis=0)
        digit = tl.zeros((), tl.uint32)
        above = tl.zeros((), tl.int32)
        for bit in range(16):
            higher = digit | (tl.full((), 0x8000, tl.uint32) >> bit)
            reaching = tl.sum(
                (_reaching(a, higher) + _reaching(b, higher))
                + (_reaching(c, higher) + _reaching(d, higher)),
                axis=0,
            )
            enough = reaching >= k
            digit = tl.where(enough, higher, digit)
            above = tl.where(enough, above, reaching)
        k -= above
        found = (found << 16) | digit
    out += group * units
    words += group * ((units + 31) // 32)
    _write(x, out, words, 0, units, found, has_nan, SCORE, WIDTH, INFINITY, BLOCK)


@triton.jit(do_not_specialize=["k"])
def _found(counts, groups, group, k, DIGITS: tl.constexpr):
    """The first digits of a group's k-th key from their counts, and what is left of k."""
    found = tl.zeros((), tl.uint32)
    for digit in tl.static_range(DIGITS):
        place = (digit * groups + group) * 256 + tl.arange(0, 256)
        found, k = _next_digit(tl.load(counts + place), found, k)
    return found, k


@triton.jit(do_not_specialize=["k"])
def count_part(
    x, counts, nans, units, k, part, groups,
    DIGIT: tl.constexpr,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add a part of a group to the counts of one of its digits, (digits, groups, 256)."""
    group = tl.program_id(0).to(tl.int64)
    found, _ = _found(counts, groups, group, k, DIGIT)
    first = tl.program_id(1) * part
    last = tl.minimum(first + part, units)
    own, nan = _histogram(
        x + group * units, first, last, found, WIDTH - 8 - 8 * DIGIT,
        SCORE, WIDTH, INFINITY, BLOCK,
    )  # fmt: skip
    place = (DIGIT * groups + group) * 256 + tl.arange(0, 256)
    tl.atomic_add(counts + place, own, mask=own > 0)
    if DIGIT == 0:
        tl.atomic_max(nans + group, nan.to(tl.int32))


@triton.jit(do_not_specialize=["k"])
def write_part(
    x, out, words, counts, nans, units, k, part, groups,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Winners and bits of a part of a group whose digits are all counted."""
    group = tl.program_id(0).to(tl.int64)
    kth, _ = _found(counts, groups, group, k, WIDTH // 8)
    first = tl.program_id(1) * part
    last = tl.minimum(first + part, units)
    words += group * ((units + 31) // 32)
    _write(
        x + group * units, out + group * units, words, first, last, kth, tl.load(nans + group),
        SCORE, WIDTH, INFINITY, BLOCK,
    )  # fmt: skip


@triton.jit(do_not_specialize=["k"])
def tile(
    x, out, words, units, k, groups,
    SCORE: tl.constexpr, WIDTH: tl.constexpr, INFINITY: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """One program for some short groups, read once: winners and bits."""
    NAN: tl.constexpr = (1 << (WIDTH - 1)) - 1
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    inside = (row < groups)[:, None] & (unit < units)[None, :]
    place = row[:, None] * units + unit[None, :]
    bits = tl.load(x + place, mask=inside, other=0)
    keys = tl.where(inside, _keys(bits, SCORE, WIDTH, INFINITY), 0)
    kth = tl.zeros((ROWS,), tl.uint32)
    for bit in tl.static_range(WIDTH - 1, -1, -1):
        higher = kth | (1 << bit)
        reaching = tl.sum((keys >= higher[:, None]).to(tl.int32), axis=1)
        kth = tl.where(reaching >= k, higher, kth)
    has_nan = tl.max(keys, axis=1) == (1 << WIDTH) - 1
    won = (keys >= kth[:, None]) & inside & (has_nan == 0)[:, None]
    kept = tl.where(has_nan[:, None], NAN, tl.where(won, bits, 0))
    tl.store(out + place, kept, mask=inside)
    lanes = won.to(tl.int32) << (unit & 31)[None, :]
    packed = tl.sum(tl.reshape(lanes, (ROWS, UNITS // 32, 32)), axis=2)
    word = tl.arange(0, UNITS // 32)
    count = (units + 31) // 32
    there = (row < groups)[:, None] & (word < count)[None, :]
    tl.store(words + row[:, None] * count + word[None, :], packed, mask=there)


@triton.jit
def pass_winners(
    values, words, out, units, groups, ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Write the values of winners, and 0 elsewhere."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    inside = (row < groups)[:, None] & (unit < units)[None, :]
    place = row[:, None] * units + unit[None, :]
    count = (units + 31) // 32
    word = tl.load(words + row[:, None] * count + (unit // 32)[None, :], mask=inside, other=0)
    won = ((word >> (unit & 31)[None, :]) & 1) != 0
    passed = tl.load(values + place, mask=inside, other=0)
    tl.store(out + place, tl.where(won, passed, 0), mask=inside)
