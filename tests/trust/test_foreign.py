"""An attack is judged by what it declares: under another name it is what a built-in one is."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.api import PLANTED
from bench.record.schema import CLEAN
from bench.trust import Case, Menu, attack_marks, escalate, evidence_of, requests, verdict
from tests.trust.frames import MENU, case, honest
from tests.trust.situations import TABLE

ROOT = Path(bench.__file__).parent.parent
#: What the copies' names begin with. It keeps the order of names.
MINE = "my-"

COPIES = """
from bench.registry import attacks, register_attack

for name in attacks.names():
    if not name.startswith("my-"):
        original = attacks.get(name)
        register_attack(f"my-{name}")(type(f"My{original.__name__}", (original,), {}))
"""
#: Prints what differs between each built-in attack and its copy.
ASK = """
import json
from bench import registry
from bench.record.schema import AttackRecord
from bench.run.menu import menu_of
from bench.threat import Norm

attacks, wrong = registry.attacks, []
built_in = [name for name in attacks.names() if not name.startswith("my-")]
for name in built_in:
    ours, theirs = (AttackRecord.of(attacks.create(n)).model_dump() for n in (name, f"my-{name}"))
    if {**theirs, "name": name} != ours:
        wrong.append(name)
for norm in Norm:
    menu = menu_of(norm, (1, 8, 8), 10)
    rows = [menu.examination, [*menu.stand_ins.values()], menu.free, menu.over_draws]
    for row in [*rows, *menu.escalation]:
        mine = [n.removeprefix("my-") for n in row if n.startswith("my-")]
        if mine != [n for n in row if not n.startswith("my-")]:
            wrong.append([norm.value, *row])
print(json.dumps([len(built_in), wrong]))
"""


def test_a_copy_in_a_user_s_folder_declares_and_is_offered_what_its_original_is(
    tmp_path: Path,
) -> None:
    """Each built-in one, in every norm: its record, and what an examination may ask for."""
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "copies.py").write_text(COPIES)
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    count, wrong = json.loads(done.stdout)
    assert count > 30
    assert wrong == []


def mine(name: str) -> str:
    """An attack's name among the copies; the clean predictions are no attack."""
    return name if name == CLEAN else MINE + name


def copied(this: Case) -> Case:
    """The same outcomes, by the copies of its attacks; a column that names one names its copy."""

    def column(name: str) -> str:
        return name.replace(PLANTED, PLANTED + MINE)

    results = [
        dataclasses.replace(
            r,
            cell=r.cell.model_copy(update={"attack": mine(r.cell.attack)}),
            frame=r.frame.rename(columns=column),
        )
        for r in this.results
    ]
    failures = [c.model_copy(update={"attack": mine(c.attack)}) for c in this.failures]
    attacks = {
        mine(name): record.model_copy(update={"name": mine(record.name)})
        for name, record in this.attacks.items()
    }
    return dataclasses.replace(this, results=results, failures=failures, attacks=attacks)


COPIED = Menu(
    tuple(map(mine, MENU.examination)),
    {mine(name): mine(own) for name, own in MENU.stand_ins.items()},
    tuple(map(mine, MENU.free)),
    tuple(tuple(map(mine, names)) for names in MENU.escalation),
    tuple(map(mine, MENU.over_draws)),
)


def said(this: Case, menu: Menu) -> str:
    """Evidence, verdict, marks, what is asked for and each round of escalation, as text."""
    evidence = evidence_of(this)
    everything: list[Any] = [
        [item.to_json() for item in evidence],
        verdict(evidence, this).to_json(),
        attack_marks(this, evidence),
        [cell.model_dump() for cell in requests(this, menu)],
        [[c.model_dump() for c in escalate(evidence, this, menu, n)] for n in (1, 2, 3)],
    ]
    return json.dumps(everything, ensure_ascii=False, indent=1)


@pytest.mark.parametrize("situation", TABLE)
def test_the_examination_says_the_same_of_copies(situation: str) -> None:
    """In every situation that the verdict is tested in, and where nothing but PGD was asked for."""
    cells, more, _ = TABLE[situation]
    few = {"pgd": honest()["pgd"], "apgd-ce": honest()["apgd-ce"]}
    for outcomes in ({**honest(), **cells}, {**few, **cells}):
        this = case(outcomes, **more)
        theirs = said(copied(this), COPIED)
        assert MINE in theirs
        assert theirs.replace(MINE, "") == said(this, MENU)
