"""The benchmarks of speed and size print what they promise, and count right.

No test asks for times: each script runs with arguments so small that it says nothing about speed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import bench
from bench import registry
from bench.attacks.blocks.adapter import FoolboxAttack
from bench.models.counted import CountedModel
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

FOLDER = Path(bench.__file__).parent.parent / "benchmarks"
#: Every example of these is broken by a few passes.
WIDE = "0.3"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Loads a benchmark by its name as `python benchmarks/NAME.py` finds it."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, str]], str]:
    """The lines of the one table that was printed, by column, and what stands below it."""
    lines = capsys.readouterr().out.splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    header, ruler, *rows = table
    assert set("".join(ruler)) <= set(":- |")
    assert {len(row) for row in rows} == {len(header)}
    return [dict(zip(header, row, strict=True)) for row in rows], "\n".join(lines[len(table) :])


def count(text: str) -> int:
    """A number as tables write it."""
    return int(text.replace(",", ""))


def right(defense: str, n: int) -> int:
    """How many of the first examples a defense gets right."""
    prepared = prepare(RunConfig(defenses=(defense,), n=n, device="cpu", twins=False))
    examples = prepared.examples
    with torch.no_grad():
        predicted = prepared.contenders[0].load()(examples.inputs).argmax(dim=1)
    return int((predicted == examples.labels).sum())


def test_counting_agrees_with_the_harness(script: Callable[[str], ModuleType]) -> None:
    """Passes counted at the logits are those that `CountedModel` counts at the inputs."""
    peers = script("peers")
    theirs = CountedModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 3, None, "cpu")
    ours = peers.Counting(theirs)
    with torch.no_grad():
        ours(torch.rand(5, 1, 2, 2))
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    logits = ours(x)
    torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), x)

    assert ours.batches == [[5, 0], [2, 2]]
    assert (ours.forwards, ours.backwards) == (theirs.forwards, theirs.backwards) == (7, 4)


def test_a_replay_makes_the_same_passes(script: Callable[[str], ModuleType]) -> None:
    """What was noted and made again is noted again."""
    peers = script("peers")
    model = peers.Counting(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    batches = [[3, 0], [1, 1], [2, 3]]

    peers.replay(model, torch.rand(3, 1, 2, 2), batches)

    assert model.batches == batches


@pytest.mark.parametrize(
    ("ratio", "even", "outcome"),
    [(1.06, 0.05, "loses"), (1.04, 0.05, "is even"), (0.94, 0.05, "wins"), (1.001, 0.0, "loses")],
)
def test_a_loser_is_told(
    script: Callable[[str], ModuleType], ratio: float, even: float, outcome: str
) -> None:
    """A cost above the peer's loses, in words."""
    assert f"it {outcome}: " in script("measuring").verdict("it", ratio, "theirs", even=even)


def test_rounds_are_interleaved(script: Callable[[str], ModuleType]) -> None:
    """Every round does each work once, in turn."""
    done: list[str] = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}

    spent = script("measuring").interleaved(works, 3)

    assert done == ["a", "b"] * 3
    assert list(spent) == ["a", "b"]


def test_autoattack(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """Winnow makes the same search until an example breaks; it asks 6 times before, and judges."""
    script("autoattack").main(["--n", "4", "--defenses", "relu", "--epsilon", WIDE])

    (peer, bare, winnow), below = printed(capsys)
    robust = {side["robust accuracy (%), by epsilon"] for side in (peer, winnow)}
    assert [peer["by"], bare["by"], winnow["by"]] == ["pyautoattack", "its passes alone", "Winnow"]
    assert [bare["forwards"], bare["backwards"]] == [peer["forwards"], peer["backwards"]]
    assert robust == {"0"}
    active = right("relu", 4)
    assert active == 4  # else the library would ask about its clean errors, too
    # APGD-CE: its start and 100 steps, each forward with its backward; what is broken leaves.
    saved = count(peer["backwards"]) - count(winnow["backwards"])
    assert count(peer["backwards"]) == 101 * active
    assert 0 < saved <= 100 * active
    # Each candidate is judged in its batch and, being wrong there, alone.
    more = 6 * 4 + 2 * active
    checks = 6 * active  # of the engine, for AutoAttack's flags
    assert count(winnow["forwards"]) == count(winnow["backwards"]) + checks + more
    assert f"n = 4, seed = 0, data = digits, Linf = {WIDE}" in below
    assert "torch " in below


def test_foolbox_sweep(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """PGD has 40 steps and the check of its end, of every example at every epsilon."""
    arguments = ["--n", "4", "--epsilons", "0.001,0.002", "--sweeps", "each", "--attacks", "pgd"]
    script("foolbox_sweep").main(arguments)

    (peer, winnow), below = printed(capsys)
    active = right("relu", 4)
    curve = [float(point) for point in winnow["robust accuracy (%), by epsilon"].split()]
    assert curve == [25 * active] * 2  # nothing breaks, and nothing leaves
    judged = 2 * active
    assert (count(peer["forwards"]), count(peer["backwards"])) == (2 * 41 * 4, 2 * 40 * 4)
    assert count(winnow["forwards"]) == 2 * 41 * active + judged
    assert count(winnow["backwards"]) == 2 * 40 * active
    assert "pgd by Winnow, each" in below


def test_overhead(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """The passes that are made again are the library's, and the shard's with the judge's."""
    arguments = ["--n", "4", "--rounds", "1", "--attacks", "pgd", "--defenses", "relu"]
    script("overhead").main([*arguments, "--epsilon", "0.001"])

    (line,), below = printed(capsys)
    active = right("relu", 4)
    assert count(line["library: passes"]) == (41 + 40) * active
    # Nothing breaks at such an epsilon: nobody leaves, and nobody is judged alone.
    assert count(line["shard: passes"]) == (41 + 40 + 1) * active
    assert "the aim of 5 %" in below


def test_the_harness_s_own_share(script: Callable[[str], ModuleType]) -> None:
    """What is no pass, in parts of passes, beyond what the library has of it."""
    overhead = script("overhead")
    seconds = {"library passes": 2.0, "library": 2.2, "shard passes": 1.0, "shard": 1.2}
    spent = {name: overhead.Spent(t, 10 * t) for name, t in {**seconds, "storing": 0.05}.items()}

    measured = overhead.Measured("pgd", "relu", 81, 40, spent)

    # The library: 2.2 / 2.0, a tenth of its passes; here 1.25 / 1.0, a quarter.
    assert measured.own() == measured.own("processor") == pytest.approx(15)
    assert measured.more() == pytest.approx(100 * (1.25 / 2.2 - 1))
    assert "MISSES the aim" in overhead.words(measured)


@pytest.mark.usefixtures("gradients_alone")
def test_curve(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where everything breaks there is no floor, and the library pays at each epsilon again."""
    autoattack = script("autoattack")
    monkeypatch.setitem(autoattack.EPSILONS, "digits", "0.3,0.35")
    autoattack.main(["--curve", "--n", "3", "--defenses", "relu"])

    lines, below = printed(capsys)
    by = {line["by"]: line for line in lines}
    each, sweep = by["pyautoattack, each epsilon"], by["Winnow, sweep"]
    assert right("relu", 3) == 3
    # Once over APGD-CE at each of two epsilons; the sweep's examples leave it.
    assert count(each["backwards"]) == 2 * 101 * 3
    assert 0 < count(sweep["backwards"]) < count(each["backwards"])
    assert by["floor"]["of the floor"] == sweep["of the floor"] == "–"
    assert "0 survivals inferred, 0 attacked after all, 0 of them broke" in below
    assert "0 0 by pyautoattack, 0 0 by Winnow, 0.0 points apart at most" in below


def test_adaptive(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line of several attacks is their per-example AND, for all of their passes."""
    adaptive = script("adaptive")
    light = "adaptive[preset=light]"
    lines = {light: (light,), "fgsm": ("fgsm",), "both": ("fgsm", light)}
    monkeypatch.setattr(adaptive, "LINES", lines)
    picture = tmp_path / "curve.svg"
    adaptive.main(["--n", "6", "--seeds", "0,1", "--defenses", "relu", "--figure", f"{picture}"])
    assert all(f"<!-- {name} -->" in picture.read_text() for name in lines)

    rows, below = printed(capsys)
    by = {row["attack"].replace("\\", ""): row for row in rows}
    assert by.keys() == lines.keys()
    for seed in ("seed 0", "seed 1"):
        robust = {name: float(row[seed]) for name, row in by.items()}
        assert robust["both"] <= min(robust["fgsm"], robust[light])
    spent = {name: count(row["passes"]) for name, row in by.items()}
    assert abs(spent["both"] - spent["fgsm"] - spent[light]) <= 1  # means, rounded
    assert [count(row["passes"]) for row in rows] == sorted(spent.values())
    assert f"Linf = {adaptive.EPSILON}" in below

    adaptive.main(["--n", "6", "--seeds", "0", "--defenses", "kwta", "--undeclared"])
    rows, _ = printed(capsys)
    assert [row["attack"].replace("\\", "") for row in rows] == list(adaptive.UNDECLARED)


def test_works_in_processes_of_their_own_come_back_in_order(
    script: Callable[[str], ModuleType],
) -> None:
    """A single one is done here."""
    measuring = script("measuring")

    with measuring.many(1) as each:
        assert each is map
    with measuring.many(3) as each:
        assert list(each(abs, [-3, 2, -1])) == [3, 2, 1]


@pytest.mark.parametrize("name", ["fgsm", "pgd[steps=3]", "fmn"])
def test_peers_have_the_parameters_of_winnow(
    script: Callable[[str], ModuleType], name: str
) -> None:
    """Foolbox gets as many steps of the size that the attack of that name has here."""
    attack = registry.attacks.create(name)
    assert isinstance(attack, FoolboxAttack)

    peer = script("peers").foolbox_attack(attack)

    for parameter in ("steps", "rel_stepsize", "random_start"):
        expected = attack.options(Norm.LINF).get(parameter)
        assert expected is None or getattr(peer, parameter) == expected


@pytest.mark.whole
def test_startup(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line per command, in the units of both libraries, whose imports are left out here."""
    footprint = script("footprint")
    for peer in (footprint.TORCH, footprint.FOOLBOX):
        monkeypatch.setitem(footprint.PEERS, peer, ("-c", "pass"))
    footprint.startup(1)

    lines, below = printed(capsys)
    by_command = {line["command"].strip("`"): line for line in lines}
    assert by_command.keys() == footprint.OWN.keys() | footprint.PEERS.keys()
    assert by_command[footprint.TORCH]["of import torch"] == "1.00"
    assert by_command[footprint.FOOLBOX]["of import foolbox"] == "1.00"
    assert below.count("`import torch`") == len(footprint.OWN)


def test_a_command_that_fails_has_no_time(script: Callable[[str], ModuleType]) -> None:
    """Its quick end would look like speed."""
    footprint = script("footprint")

    with pytest.raises(footprint.subprocess.CalledProcessError):
        footprint.start(["-c", "raise SystemExit(3)"])


def test_memory(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Growth is per example beyond the fewest, and the libraries alone stand in the first line."""
    footprint = script("footprint")
    peaks = {0: 500_000_000, 50: 600_000_000, 250: 660_000_000}
    monkeypatch.setattr(footprint, "peak", lambda n, attacks, seed: peaks[n])
    footprint.memory([50, 250], "pgd", 0)

    lines, below = printed(capsys)
    assert [line["examples"] for line in lines] == ["none", "50", "250"]
    assert [line["growth per example (kB)"] for line in lines] == ["–", "–", "300.0"]
    assert [line["of the fewest examples"] for line in lines] == ["–", "1.000", "1.100"]
    assert "A run of n = 250 loses: 1.10 times the memory of one of n = 50." in below


@pytest.mark.whole
def test_the_peak_is_that_of_the_child(script: Callable[[str], ModuleType]) -> None:
    """A child that imports torch and runs an attack is measured, whatever this process holds."""
    size = script("footprint").peak(2, "fgsm", 0)

    assert 100e6 < size < 5e9


def test_memory_once_taken_is_seen(script: Callable[[str], ModuleType]) -> None:
    """The peak rises by what is written to, and stays when it is given back."""
    footprint = script("footprint")
    before = footprint.own_peak()
    taken = bytearray(b"x") * (before + 50_000_000)
    held = len(taken)
    del taken

    assert footprint.own_peak() >= held


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans over")
def test_what_a_command_leaves_running_is_counted_as_its_own(
    script: Callable[[str], ModuleType],
) -> None:
    """An orphan's processor time is awaited; its peak, and what was held together, are seen."""
    orphan = (
        "import time; held = bytearray(b'x') * 90_000_000; end = time.process_time() + 0.6\n"
        "while time.process_time() < end: pass"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    command = [sys.executable, "-c", f"{parent}; print('said'); sys.exit(3)"]

    found, printed = script("accounting").account(command, FOLDER)

    assert (printed, found.status) == ("said", 3)
    assert 0.6 <= found.processor < 5
    assert 90e6 < found.largest < 300e6
    assert 80e6 < found.together < 300e6


def test_driver(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """Every task is answered and paid for; what is written and what is not are the whole."""
    script("driver").main(["--n", "20", "--tasks", "4", "--shard", "10", "--hands", "2"])

    (whole, *parts), below = printed(capsys)
    assert whole["of a task"] == "all (4 tasks of 10 examples, 2 hands)"
    for column in ("processor (ms)", "clock (ms)"):
        together = sum(float(part[column]) for part in parts)
        assert float(whole[column]) == pytest.approx(together, abs=0.02)
    assert "n = 20, shard = 10" in below


def test_speed_on_a_gpu_is_not_measured_without_one(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and of which figures."""
    script("gpu").main(["--figures", "kwta,curve"])
    assert capsys.readouterr().out == "not measured: no GPU (kwta, curve)\n"


@pytest.mark.whole
def test_figures_of_a_gpu_say_what_was_promised(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both networks in both precisions, and both ways to AutoAttack's figures."""
    gpu = script("gpu")
    with gpu.plain_torch():
        ways = list(gpu.float32("cpu", 1, "resnet10w16", 2))
    assert len(ways) == len(gpu.WAYS)
    assert "2 images, float32, as a run makes it: forward" in ways[0]
    timings = iter([[2.0, 2.4], [2.0, 2.6]])
    monkeypatch.setattr(gpu.kwta_speed, "race", lambda steps, device, rounds: next(timings))
    found = list(map(str, gpu.kwta("cpu", 1, "resnet10w16", 2)))
    assert "float32: 1.200 (at most 1.25: kept); 2.40 and 2.00 ms" in found[0]
    assert "bfloat16: 1.300 (at most 1.25: MISSED)" in found[1]
    shared = {"dataset": "digits", "n": 4, "seed": 0, "device": "cpu"}
    monkeypatch.setattr(gpu, "EPSILON", WIDE)
    monkeypatch.setattr(gpu, "EPSILONS", (WIDE, "0.4"))
    for figure, at_most in ((gpu.cascade, 0.7), (gpu.curve, 0.25)):
        one = figure("relu", shared)
        assert (one.at_most, one.ratio > 0) == (at_most, True)
        assert "n = 4" in one.what
