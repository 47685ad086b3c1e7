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


def cases(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """All cases, in a process of their own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", CASES],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.whole
@TRITON
def test_the_kernels_equal_the_plain_form() -> None:
    """All cases pass under Triton's interpreter."""
    done = cases({**os.environ, "TRITON_INTERPRET": "1"})

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.whole
@TRITON
def test_the_kernels_equal_the_plain_form_on_a_gpu() -> None:
    """All cases, and more of them; tests/conftest.py hides the GPUs, and keeps which there are."""
    gpus = os.environ["WINNOW_TEST_GPUS"]
    shown = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": gpus}
    if gpus == "all":
        del shown["CUDA_VISIBLE_DEVICES"]
    asks = "import torch; raise SystemExit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", asks], env=shown, check=False).returncode:
        pytest.skip("torch can use no GPU here")

    done = cases(shown)

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
