"""What numpy is kept from where it is slow, before the command imports it."""

from __future__ import annotations

import os
import sys

from bench.record.provenance import processor, version_of

#: By which numpy can be kept from instructions, before it is imported.
VARIABLE = "NPY_DISABLE_CPU_FEATURES"
#: Its names of AVX-512, from `SINCE` on.
FEATURES, SINCE = "X86_V4 AVX512_ICL", (2, 4)


def spare_zen_4() -> None:
    """On AMD's Zen 4 keep numpy from AVX-512, and with it k-WTA from the slowest selection there.

    numpy finds the k-th largest by storing compressed vectors, which Zen 4 does in microcode: of
    65,536 values it takes eight times as long as with AVX2 (numpy/x86-simd-sort, issue 6). What is
    found is the same. Nothing is done where numpy is there already, or the user has said what to
    keep it from.
    """
    said = processor()
    zen_4 = said.get("vendor_id") == "AuthenticAMD" and said.get("cpu family") == "25"
    if zen_4 and "avx512f" in said.get("flags", "").split() and "numpy" not in sys.modules:
        release = tuple(int(part) for part in version_of("numpy").split(".")[:2] if part.isdigit())
        if release >= SINCE:
            os.environ.setdefault(VARIABLE, FEATURES)
