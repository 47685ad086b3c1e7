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
    """For an NVIDIA H100, in 32 and 16 bits: the interpreter does not check types."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton interprets here, and does not compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bench.defenses.activations import triton_kernels as kernels

    known = {"SCORE": 0, "WIDTH": width, "INFINITY": 0x7F80 << (width - 16), "DIGIT": 1}
    known |= {"BLOCK": 128, "ROWS": 2, "UNITS": 64, "PAIRS": 16}
    tensors = dict.fromkeys(("values", "x", "out"), f"*i{width}")
    tensors |= dict.fromkeys(("words", "counts", "nans"), "*i32")
    for kernel in (
        kernels.tile, kernels.held, kernels.count_part, kernels.write_part, kernels.pass_winners,
    ):  # fmt: skip
        names = kernel.arg_names
        types = {name: "constexpr" if name in known else tensors.get(name, "i32") for name in names}
        source = ASTSource(
            fn=kernel,
            signature=types,
            constexprs={(names.index(name),): known[name] for name in names if name in known},
        )
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}
        )
        assert kernel.__name__ in compiled.asm["ptx"]


@pytest.fixture
def fallen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the kernels are not used: nothing yet, and forgotten afterwards."""
    reasons: list[str] = []
    monkeypatch.setattr(kwta, "_fallen", reasons)
    return reasons


def test_without_triton_the_plain_form_serves(
    fallen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hinders the kernels is said, and hinders no run."""

    def missing(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.warns(
        RuntimeWarning, match=r"without .* kernels, slower, .*: ImportError: no bench\.defenses"
    ):
        assert not kwta._ready()
    assert fallen


class StubbornError(Exception):
    """As Triton's own, of no class that a caller could name."""


@pytest.mark.usefixtures("fallen")
def test_whatever_the_kernels_raise_the_plain_form_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one warning; memory that ends is for the caller."""
    problem: Exception = StubbornError("libcuda.so cannot be found!")

    class Kernels:
        @staticmethod
        def serves(x: torch.Tensor, first: int) -> bool:
            return True

        @staticmethod
        def kwta(x: torch.Tensor, **_: object) -> None:
            raise problem

    def kernels(x: torch.Tensor, first: int) -> type[Kernels] | None:
        return None if kwta._fallen else Kernels

    x = torch.randn(4, 3, 8, 8)
    expected = KWTA(0.2)(x)
    monkeypatch.setattr(kwta, "_kernels", kernels)
    with pytest.warns(RuntimeWarning, match="StubbornError: libcuda"):
        assert torch.equal(KWTA(0.2)(x), expected)
    assert torch.equal(KWTA(0.2)(x), expected)  # another warning would be an error
    kwta._fallen.clear()
    problem = torch.OutOfMemoryError("no memory")
    with pytest.raises(torch.OutOfMemoryError):
        KWTA(0.2)(x)


@GPU
@TRITON
def test_a_gpu_is_served_by_the_kernels() -> None:
    """Where both are there, nothing hinders them; the values are those of the CPU."""
    x = torch.randn(4, 3, 8, 8)
    found = KWTA(0.2)(x.cuda()).cpu()

    assert not kwta._fallen
    assert torch.equal(found, KWTA(0.2)(x))


@GPU
@TRITON
@pytest.mark.parametrize("units", [300, 4096, 65536])
def test_compiled_and_captured_on_a_gpu(units: int) -> None:
    """`torch.compile` takes the whole graph, and a CUDA graph replays it on other inputs."""
    x = torch.randn(3, units, device="cuda")
    module = KWTA(0.2)
    expected = module(x)
    assert torch.equal(torch.compile(module, fullgraph=True)(x), expected)
    graph, given = torch.cuda.CUDAGraph(), x.clone()
    with torch.cuda.graph(graph):
        out = module(given)
    given.copy_(-x)
    graph.replay()
    assert torch.equal(out, module(-x))
