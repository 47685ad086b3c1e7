"""Where figures come from: what tells two processors of one name apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.record import provenance
from bench.record.provenance import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu sse2 fma avx f16c avx2 {more}rdpid

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd aes sve asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Surroundings]:
    """The surroundings of a CPU on a machine of which Linux says this; empty on another system."""

    def machine(said: str) -> Surroundings:
        caches = provenance.instructions_on, provenance.device_name, provenance.processor
        file = tmp_path / "cpuinfo"
        file.write_text(said)
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "PROCESSORS", file if said else tmp_path / "none")
            for cached in caches:
                cached.cache_clear()
            found = Surroundings.of("cpu")
        for cached in caches:
            cached.cache_clear()
        return found

    for name in provenance.LIMITS:
        monkeypatch.delenv(name, raising=False)
    return machine


def test_processors_of_one_name_are_told_apart(on: Callable[[str], Surroundings]) -> None:
    """Virtual machines call all processors of a maker one; they add in other orders."""
    older, newer = (on(X86.format(model=1, more=more)) for more in ("", "avx512f avx512bw "))
    assert older.device_name == newer.device_name == "AMD EPYC"
    assert older.instructions == "AuthenticAMD 25 1 avx avx2 f16c fma"
    assert newer.instructions == "AuthenticAMD 25 1 avx avx2 avx512bw avx512f f16c fma"
    assert not older.alike(newer)
    assert not older.alike(on(X86.format(model=17, more="")))
    assert older.alike(on(X86.format(model=1, more="erms ")))


def test_what_an_environment_keeps_libraries_from_counts(
    on: Callable[[str], Surroundings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same processor with fewer instructions is another."""
    said = X86.format(model=1, more="")
    whole = on(said)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    fewer = on(said)
    assert fewer.instructions == f"{whole.instructions} ATEN_CPU_CAPABILITY=default"
    assert not fewer.alike(whole)


def test_other_processors_and_systems(on: Callable[[str], Surroundings]) -> None:
    """ARM's words are others; where nothing is said nothing is noted."""
    assert on(ARM).instructions == "0x41 0xd40 asimd asimddp sve"
    assert on("").instructions == ""
    assert on("").device_name


def test_a_shard_that_does_not_say_is_of_no_known_processor() -> None:
    """As those of runs before it was noted; on a GPU the name says it all."""
    here = Surroundings.of("cpu")
    before = {"device": "cpu", "device_name": here.device_name, "versions": here.versions}
    noted = Surroundings.noted({**before, "layout": here.layout})
    assert noted.instructions == ""
    assert not noted.alike(here) or here.instructions == ""
    assert provenance.instructions_on("cuda") == ""
