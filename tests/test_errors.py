from __future__ import annotations

import inspect

import pytest

from bench import errors
from bench.errors import UnknownNameError, UsageError, WinnowError, is_out_of_memory

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning)
]
CONTRACT_FAULTS = {errors.AttackError, errors.MemoryEndedError, errors.NonFiniteLogitsError}


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_one_root(kind: type[Exception]) -> None:
    """One `except` catches all of them, and what the user can mend is told from the rest."""
    assert issubclass(kind, WinnowError)
    assert issubclass(kind, UsageError) == (kind not in {WinnowError, *CONTRACT_FAULTS})


def test_unknown_name_suggests_the_closest_first() -> None:
    """The suggestions are in the message and in an attribute."""
    error = UnknownNameError("defense", "kwat", ["relu", "kwta-at", "kwta"])

    assert error.name == "kwat"
    assert error.suggestions == ["kwta", "kwta-at"]
    assert str(error) == "unknown defense 'kwat'; did you mean 'kwta' or 'kwta-at'?"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (["square", "fgsm"], "unknown attack 'xyz'; known: fgsm, square"),
        ([], "unknown attack 'xyz'; known: none"),
    ],
)
def test_unknown_name_lists_what_there_is(known: list[str], message: str) -> None:
    """Where nothing looks alike, all names are listed, sorted."""
    assert str(UnknownNameError("attack", "xyz", known)) == message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_memory_that_ends_in_a_library_is_known(error: Exception) -> None:
    """Such an error has no class of its own; it is no missing gradient and no attack's fault."""
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
