"""The kernels of k-WTA, run where there is something to run them."""

# Triton has no types.
# mypy: disable-error-code="import-untyped, import-not-found"

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.defenses.activations import KWTA, kwta

CASES = Path(__file__).with_name("triton_cases.py")
TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.whole
@TRITON
@pytest.mark.parametrize("interpret", ["1", pytest.param("0", marks=GPU)], ids=["cpu", "gpu"])
def test_the_kernels_equal_the_plain_form(interpret: str) -> None:
    """All cases pass under Triton's interpreter, and on a GPU."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)],
        env={**os.environ, "TRITON_INTERPRET": interpret},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@TRITON
@pytest.mark.parametrize("width", [32, 16])
def test_the_kernels_compile_without_a_gpu(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an NVIDIA A100, in 32 and 16 bits: the interpreter does not check types."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton interprets here, and does not compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bench.defenses.activations import triton_kwta

    options = {"SCORE": 0, "WIDTH": width, "INFINITY": 0x7F80 << (width - 16), "BLOCK": 128}
    for kernel in (triton_kwta._select_and_mask, triton_kwta._mask):
        signature = dict.fromkeys(("units", "k"), "i32")
        signature |= dict.fromkeys(("values", "x", "out"), f"*i{width}")
        signature |= {"thresholds": "*i32"} | dict.fromkeys(options, "constexpr")
        source = ASTSource(
            fn=kernel,
            signature={name: signature[name] for name in kernel.arg_names},
            constexprs={(kernel.arg_names.index(name),): options[name] for name in options},
        )
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 1}
        )
        assert kernel.__name__ in compiled.asm["ptx"]


def test_without_triton_the_plain_form_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hinders the kernels is said, and hinders no run."""

    def missing(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", missing)

    with pytest.warns(RuntimeWarning, match=r"without .* kernels, slower, .*: no bench\.defenses"):
        assert kwta._triton.__wrapped__(0) is None


@GPU
@TRITON
def test_a_gpu_is_served_by_the_kernels() -> None:
    """Where both are there, nothing hinders them; the values are those of the CPU."""
    x = torch.randn(4, 3, 8, 8)

    assert kwta._triton(torch.cuda.current_device()) is not None
    assert torch.equal(KWTA(0.2)(x.cuda()).cpu(), KWTA(0.2)(x))
