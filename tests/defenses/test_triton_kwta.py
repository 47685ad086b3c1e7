"""The kernels of k-WTA, run where there is something to run them."""

# Triton has no types.
# mypy: disable-error-code="import-untyped, import-not-found"

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.defenses.activations import KWTA, kwta
from bench.defenses.activations.kinds import Kind
from tests.pretended import GPU as GPU_0
from tests.pretended import pretended_gpu

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


@pytest.mark.parametrize(
    "error", [ImportError, AssertionError, type("TritonError", (Exception,), {})]
)
def test_without_triton_the_plain_form_serves(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hinders the kernels is said, and hinders no run: Triton raises errors of any class."""

    def missing(name: str) -> None:
        raise error(f"no {name}")

    monkeypatch.setattr(kwta, "importlib", SimpleNamespace(import_module=missing))
    x = torch.randn(4, 3, 8, 8)
    kwta._triton.cache_clear()
    told = r"without .* kernels, slower, .*: no bench\.defenses"
    with pretended_gpu(), pytest.warns(RuntimeWarning, match=told):
        found = KWTA(0.2)(x.to(GPU_0)).cpu()
    kwta._triton.cache_clear()
    assert torch.equal(found, KWTA(0.2)(x))


def test_kernels_are_tried_on_groups_like_those_they_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled depends on dtype, kind and units: one that fails leaves the others."""

    def kernel(x: torch.Tensor, *, kind: Kind, units: int, k: int) -> torch.Tensor:
        if x.dtype is torch.bfloat16 or units > 100:
            raise RuntimeError("out of resource: shared memory")
        calls.append((kind, units, k))
        return x * 2

    calls: list[tuple[Kind, int, int]] = []
    module = SimpleNamespace(kwta=kernel, serves=lambda x, first: x.dtype is not torch.float64)
    monkeypatch.setattr(kwta, "importlib", SimpleNamespace(import_module=lambda name: module))
    kwta._triton.cache_clear()
    with pretended_gpu():
        x = torch.randn(2, 4, 5, 5, device=GPU_0)
        assert torch.equal(KWTA(0.2)(x).cpu(), 2 * x.cpu())
        for other in (x.bfloat16(), torch.randn(2, 5, 5, 5, device=GPU_0)):
            with pytest.warns(RuntimeWarning, match="shared memory"):
                assert bool((KWTA(0.2)(other).cpu() != 2 * other.cpu()).any())
        KWTA(0.2)(x.double())  # served by neither, which is no fault
    kwta._triton.cache_clear()
    assert calls == [("layer", 100, 1), ("layer", 100, 20)]


def test_memory_that_ends_is_the_batch_and_not_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried again with a smaller one."""

    def full(name: str) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr(kwta, "importlib", SimpleNamespace(import_module=full))
    kwta._triton.cache_clear()
    with pretended_gpu(), pytest.raises(RuntimeError, match="out of memory"):
        KWTA(0.2)(torch.randn(2, 4, 5, 5, device=GPU_0))


@GPU
@TRITON
def test_a_gpu_is_served_by_the_kernels() -> None:
    """Where both are there, nothing hinders them; the values are those of the CPU."""
    x = torch.randn(4, 3, 8, 8)

    assert kwta._triton(torch.cuda.current_device(), x.dtype, "layer", 192) is not None
    assert torch.equal(KWTA(0.2)(x.cuda()).cpu(), KWTA(0.2)(x))
