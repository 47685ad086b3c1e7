"""numpy is kept from what a processor is slow at: before it is imported, and there alone."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from bench.cli import processor
from bench.cli.processor import FEATURES, VARIABLE, spare_zen_4
from tests.commands import interpret

ZEN_4 = {"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": "fpu avx2 avx512f"}


@pytest.mark.parametrize(
    ("said", "numpy", "there", "kept"),
    [
        (ZEN_4, "2.4.6", False, True),
        (ZEN_4, "3.0.0rc1", False, True),
        (ZEN_4, "2.3.5", False, False),
        (ZEN_4, "absent", False, False),
        (ZEN_4, "2.4.6", True, False),
        (ZEN_4 | {"flags": "fpu avx2"}, "2.4.6", False, False),
        (ZEN_4 | {"cpu family": "26"}, "2.4.6", False, False),
        (ZEN_4 | {"vendor_id": "GenuineIntel"}, "2.4.6", False, False),
        ({}, "2.4.6", False, False),
    ],
)
def test_numpy_is_spared_on_zen_4_alone(
    said: dict[str, str], numpy: str, there: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not imported yet, and a release whose names are known."""
    monkeypatch.setattr(processor, "processor", lambda: said)
    monkeypatch.setattr(processor, "version_of", lambda _: numpy)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setitem(sys.modules, "numpy", sys)
    if not there:
        monkeypatch.delitem(sys.modules, "numpy")
    spare_zen_4()
    assert os.environ.get(VARIABLE) == (FEATURES if kept else None)


def test_what_the_user_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty word as well: numpy is to use all it can."""
    monkeypatch.setattr(processor, "processor", lambda: ZEN_4)
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    monkeypatch.setenv(VARIABLE, "")
    spare_zen_4()
    assert os.environ[VARIABLE] == ""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numpy's names are of x86")
def test_the_names_are_numpy_s_and_the_selection_is_the_same() -> None:
    """A process that begins so has no AVX-512 in numpy, and finds what sorting finds."""
    program = (
        "import numpy as np\n"
        "from numpy._core._multiarray_umath import __cpu_dispatch__ as known\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as has\n"
        "values = np.random.default_rng(0).standard_normal((3, 5000)).astype('f4').view('i4')\n"
        "found = np.partition(values, 4500, axis=1)[:, 4500]\n"
        f"names = {FEATURES.split()}\n"
        "print(set(names) <= set(known), any(has[name] for name in names))\n"
        "print((found == np.sort(values, axis=1)[:, 4500]).all())\n"
    )
    done = interpret([sys.executable, "-c", program], env=os.environ | {VARIABLE: FEATURES})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False", "True"]
