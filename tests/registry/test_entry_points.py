"""Plugins of other distributions, found by their entry points."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
    from bench.api import Attack, Cost, Proposal

    class Good(Attack):
        summary = "third-party"

        def __init__(self, *, steps: int = 1) -> None:
            pass

        def cost(self, *, norm, shape, classes):
            return Cost(1)

        def run(self, problem):
            return Proposal(problem.inputs)
"""
#: A module, what its entry point calls, and why it cannot be used (None if it can).
THIRD_PARTY = {
    "good": (GOOD, "Good", None),
    "broken": ("raise RuntimeError('out of order')", "Good", "RuntimeError: out of order"),
    "absent": (GOOD, "Missing", "AttributeError: .*Missing"),
    "lazy": ("class Good: pass", "Good", "PluginError: .*subclass of bench.api.Attack"),
    "fgsm": (GOOD, "Good", "PluginError: .*'fgsm' .*the name is taken by bench.attacks"),
}


def ask(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees the distributions in a folder."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_third_party_entry_points(tmp_path: Path, name: str) -> None:
    """A good one registers; a broken one warns, is left out, and takes nothing else with it."""
    source, attribute, fault = THIRD_PARTY[name]
    module = f"winnow_third_party_{name}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[winnow.attacks]\n{name} = {module}:{attribute}\n")

    done = ask(
        tmp_path,
        f"""
        from bench.registry import attacks
        print(type(attacks.create("{name}[steps=2]")).__module__ if {fault is None} else "-")
        print("square" in attacks.names(), attacks.names().count("{name}"))
        print(attacks.get("fgsm").__module__)
        """,
    )

    if fault is None:
        assert done.stdout.split() == [module, "True", "1", "bench.attacks.foolbox"]
        assert done.stderr == ""
    else:
        assert done.stdout.split() == [
            "-",
            "True",
            str(int(name == "fgsm")),
            "bench.attacks.foolbox",
        ]
        warned = " ".join(done.stderr.split())
        assert f"the plugin {name!r} of winnow.attacks ({module}:{attribute}) cannot be" in warned
        assert re.search(fault, warned)
