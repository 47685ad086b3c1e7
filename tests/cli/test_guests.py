"""What a guest does to a command: it never ends it in silence, and has no part in its answer."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import ROOT, call, start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

GUEST = """
import os, sys, torch
{imported}

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        {asked}
        return self.layer(x.flatten(1))

def load():
    {built}
    return Net()
"""
#: Commands that start elsewhere are this checkout's.
OURS = os.environ | {"PYTHONPATH": str(ROOT)}
SMALL = ["--attacks", "fgsm", "--n", 8, "--shard-size", 4, "--eps", "0.1", "--no-examine"]


def run(
    folder: Path, *options: object, imported: str = "", asked: str = "", built: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command on a guest and on ReLU."""
    text = GUEST.format(imported=imported, asked=asked or "pass", built=built or "pass")
    (folder / "guest.py").write_text(text)
    defenses = ["run", "--defense", "file:guest.py:load,relu", *SMALL, "--out", "runs"]
    return call(*defenses, *options, cwd=folder, env=OURS)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(0)"])
def test_a_guest_that_cannot_be_made_is_refused(tmp_path: Path, end: str) -> None:
    """In one line, which names it, before anything is written."""
    done = run(tmp_path, built=end)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: file:guest.py:load: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("stage", ["imported by discovery", "asked"])
def test_a_guest_in_the_process_of_the_command_cannot_end_it_in_silence(
    tmp_path: Path, stage: str
) -> None:
    """Where nothing can be done about it, the exit code is not 0, and a line says who it was."""
    if stage == "asked":
        done = run(tmp_path, "--workers", 0, asked="os._exit(0)")
        assert "note: defenses and attacks run in this process" in done.stderr
    else:
        (tmp_path / "defenses").mkdir()
        (tmp_path / "defenses" / "guest.py").write_text("import os\n\nos._exit(0)\n")
        done = call("list", cwd=tmp_path, env=OURS)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: a plugin ended the command: os._exit(0)")
    assert "guest.py, line" in done.stderr


def test_what_a_guest_writes_is_not_in_the_answer(tmp_path: Path) -> None:
    """Standard output holds JSON alone, whatever is written when, and by which way."""
    write = "print('hello'); os.write(1, b'hello'); sys.stdout.flush()"
    done = run(tmp_path, "--json", "--workers", 0, imported=write, asked=write, built=write)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["defenses"].keys() == {"file:guest.py:load", "relu"}
    assert "hello" in done.stderr


def test_a_plugin_that_asks_python_to_end_fails_the_command(tmp_path: Path) -> None:
    """In whatever it is asked for where no cell is at stake: never 0 with nothing done."""
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "leaver.py").write_text("""
import sys
from bench.api import Attack, Cost
from bench.registry import register_attack

@register_attack("leaver")
class Leaver(Attack):
    summary = "ends"
    kind = "fixed"

    def cost(self, *, norm, shape, classes):
        sys.exit(0)

    def run(self, problem):
        return None
""")
    done = call(
        "run", "--defense", "relu", "--attacks", "leaver", *SMALL[2:], cwd=tmp_path, env=OURS
    )
    assert done.returncode == 2
    assert "error: a plugin ended the command: SystemExit: 0" in done.stderr


@pytest.mark.whole
def test_a_guest_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    """Exit code 1; the reason is in the table, the other defense has its figures."""
    done = run(tmp_path, "--json", "--workers", 1, asked="os.kill(os.getpid(), 11)")
    assert done.returncode == 1
    summary = json.loads(done.stdout)["defenses"]
    guest, relu = summary["file:guest.py:load"], summary["relu"]
    assert {cell["cause"] for cell in guest["failed"]} == {"died", "no-clean"}
    assert "SIGSEGV" in guest["failed"][0]["reason"]
    assert relu["attacks"]["fgsm"]["0.1"]["status"] == "ok"
    (page,) = tmp_path.glob("runs/*/leaderboard.md")
    assert "SIGSEGV" in page.read_text()


UNGUARDED = """
print("started", flush=True)
import torch, bench

class Own(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))

torch.manual_seed(0)
model, x = Own(16, 2), torch.rand(8, 1, 4, 4)
here, there = (
    bench.evaluate(model, x, model(x).argmax(1), epsilons=["0.5"], attacks="fgsm", examine=False,
                   shard_size=4, workers=workers).outcomes_full
    for workers in (0, 2)
)
print(len(here), here.equals(there))
"""


def test_a_script_without_a_guard_has_workers_and_starts_once(tmp_path: Path) -> None:
    """Copies of its process do not import it again, and find what it finds."""
    done = call(UNGUARDED, kind="source", cwd=tmp_path, env=OURS)
    assert done.stderr == ""
    assert done.stdout == "started\n8 True\n"


LONG = ["run", "--defense", "relu", "--attacks", "fgsm,square[queries=600]", "--n", 20,
        "--shard-size", 5, "--eps", "0.1", "--no-examine"]  # fmt: skip


@pytest.mark.whole
def test_workers_killed_from_outside_change_no_table(tmp_path: Path) -> None:
    """All of them; the command ends as an undisturbed one, and leaves no process behind."""
    whole = call(*LONG, "--workers", 0, "--out", tmp_path / "whole")
    process = start(*LONG, "--workers", 2, "--out", tmp_path / "killed")
    killed: set[int] = set()
    deadline = time.monotonic() + 120
    while not killed and process.is_alive() and time.monotonic() < deadline:
        workers = [pid for server in children(process.pid) for pid in children(server)]
        if len(workers) == 2 and list((tmp_path / "killed").rglob("*.parquet")):
            killed |= set(workers)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    ended = process.wait()
    assert len(killed) == 2
    assert ended.returncode == 0, ended.stderr
    tables = [(tmp_path / name / "leaderboard.md").read_text() for name in ("whole", "killed")]
    assert tables[0] == tables[1]
    assert whole.returncode == 0
    assert not [pid for pid in killed if Path(f"/proc/{pid}").exists()]


def children(parent: int) -> Iterator[int]:
    """The processes that another one started and that still run."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            yield int(path.parent.name)
