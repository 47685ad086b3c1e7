"""Python files in ./defenses and ./attacks of the working directory are plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from tests import commands

ROOT = Path(bench.__file__).parent.parent
ATTACK = """
from bench.api import Attack, Cost, Proposal
from bench.registry import register_attack

@register_attack("still")
class Still(Attack):
    summary = "moves nothing"

    def cost(self, *, norm, shape, classes):
        return Cost(0)

    def run(self, problem):
        return Proposal(problem.inputs)
"""


def ask(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, started in a folder, that keeps what it compiles."""
    own = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | own,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def write(folder: Path, path: str, text: str) -> None:
    """A file in a folder."""
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text)


def test_a_file_is_found_and_its_class_by_its_module_in_any_process(tmp_path: Path) -> None:
    """Listed beside the built-in ones; unpickled where the registry was never asked."""
    write(tmp_path, "attacks/still.py", ATTACK)
    code = (
        "from bench.registry import attacks; n = attacks.names(); print('still' in n, 'pgd' in n)"
    )
    assert ask(tmp_path, code).stdout.split() == ["True", "True"]
    pickled = (
        "import pickle; print(pickle.loads(b'\\x80\\x04cbench.attacks.still\\nStill\\n.').summary)"
    )
    assert ask(tmp_path, pickled).stdout.strip() == "moves nothing"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\nraise RuntimeError('out of order')", "line 2: RuntimeError: out of order"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (ATTACK + "\n1 / 0\n", "ZeroDivisionError: division by zero"),
        (ATTACK.replace("still", "pgd"), "the name is taken by bench.attacks.foolbox.PGD"),
        ("@register_attack('still'\n", "SyntaxError"),
    ],
)
def test_a_file_that_raises_is_left_out_and_says_why(tmp_path: Path, text: str, why: str) -> None:
    """A warning; nothing of it is registered, all else is; asking for it tells the reason."""
    write(tmp_path, "attacks/still.py", text)
    write(tmp_path, "attacks/zebra.py", ATTACK.replace("still", "zebra"))
    done = ask(
        tmp_path,
        "from bench.errors import PluginError\n"
        "from bench.registry import attacks, create_attacks\n"
        "from bench.threat import Norm\n"
        "n = attacks.names(); print('zebra' in n, 'still' in n, attacks.get('pgd').__module__)\n"
        "for ask in (attacks.create, lambda name: create_attacks(name, Norm.LINF)):\n"
        "    try:\n        ask('still')\n    except PluginError as error:\n        print(error)\n",
    )

    first, *told = done.stdout.splitlines()
    assert first.split() == ["True", "False", "bench.attacks.foolbox"]
    assert len(told) == 2
    for line in (*told, " ".join(done.stderr.split())):
        assert "attacks/still.py is left out: " in line
        assert why in line


def test_a_file_that_registers_nothing_is_told_to_who_asks_for_it(tmp_path: Path) -> None:
    """A first plugin without its decorator; of helpers, and of other names, nothing is said."""
    write(tmp_path, "attacks/first_try.py", ATTACK.replace('@register_attack("still")', ""))
    write(tmp_path, "attacks/helpers.py", "import bench.attacks.zebra")  # which registers itself
    write(tmp_path, "attacks/zebra.py", ATTACK.replace("still", "striped"))
    done = ask(
        tmp_path,
        "from bench.errors import UsageError\n"
        "from bench.registry import attacks, create_attacks\n"
        "from bench.threat import Norm\n"
        "print(attacks.create('striped').name, attacks.knows('helpers'))\n"
        "for name in ('first-try', 'first_try', 'zebra', 'other'):\n"
        "    for ask in (attacks.create, lambda name: create_attacks(name, Norm.LINF)):\n"
        "        try:\n            ask(name)\n        except UsageError as error:\n"
        "            print(error)\n",
    )

    striped, *told = done.stdout.splitlines()
    assert striped == "striped False"
    for line in told[:4]:
        assert 'attacks/first_try.py registers no attack; put @register_attack("first-try")' in line
    for line in told[4:]:
        assert line.startswith("unknown attack")
    assert "registers" not in done.stderr


def test_built_in_modules_win(tmp_path: Path) -> None:
    """A file of the same name is left out, with what to do."""
    write(tmp_path, "attacks/foolbox.py", ATTACK)
    done = ask(tmp_path, "from bench.registry import attacks; print(len(attacks.names()) > 20)")

    assert done.stdout.strip() == "True"
    assert "attacks/foolbox is a built-in's name; rename the file" in done.stderr


def test_a_folder_that_is_a_package_is_not_executed(tmp_path: Path) -> None:
    """It is somebody's own."""
    write(tmp_path, "attacks/__init__.py", "")
    write(tmp_path, "attacks/still.py", "raise RuntimeError('executed')")
    code = (
        f"import sys; sys.path = [{str(ROOT)!r}, *(p for p in sys.path if p not in ('', '.'))]\n"
        "from bench.registry import attacks; print('still' in attacks.names())"
    )
    done = ask(tmp_path, code)

    assert done.stdout.strip() == "False"
    assert done.stderr == ""


def test_whose_files_were_executed_is_said_once(tmp_path: Path) -> None:
    """Those of the working directory, and none where there are none."""
    for name in ("still", "zebra"):
        write(tmp_path, f"attacks/{name}.py", ATTACK.replace("still", name))
    code = "from bench.registry import attacks; attacks.names(); attacks.create('pgd')"

    said = " ".join(ask(tmp_path, code).stderr.split())
    assert said.count("plugins of this folder are executed: attacks/still.py, attacks/zebra") == 1
    (tmp_path / "elsewhere").mkdir()
    assert ask(tmp_path / "elsewhere", code).stderr == ""


@pytest.mark.parametrize("place", ["elsewhere", "checkout"])
def test_the_name_that_built_in_packages_had_is_told_their_new_one(
    tmp_path: Path, place: str
) -> None:
    """`defenses.networks` is `bench.defenses.networks`, wherever the file is executed."""
    write(tmp_path, "defenses/old.py", "from defenses.networks import NetworkDefense")
    code = "from bench.registry import defenses; print(defenses.knows('old'))"
    if place == "checkout":  # where the folder itself can be imported by its short name
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"
    done = ask(tmp_path, code)

    assert done.stdout.strip() == "True"
    said = " ".join(done.stderr.split())
    assert "defenses/old.py is left out: line 1: " in said
    assert "bench.defenses" in said


def test_a_draft_s_version_follows_its_file_and_a_number_stays(tmp_path: Path) -> None:
    """With no number of its own or 0, an edit is another version; given, it is the number."""
    versions = []
    for text in (
        ATTACK,
        ATTACK + "# edited\n",
        ATTACK + "    version = 7\n",
        ATTACK + "    version = 0\n",
    ):
        write(tmp_path, "attacks/still.py", text)
        code = "from bench.registry import attacks; print(attacks.create('still').version)"
        versions.append(int(ask(tmp_path, code).stdout))

    assert len(set(versions)) == 4
    assert versions[2] == 7
    assert min(versions[0], versions[1], versions[3]) > 2**20


def test_an_edit_of_the_same_second_and_length_is_executed(tmp_path: Path) -> None:
    """Python would take what it compiled before the edit."""
    code = "from bench.registry import attacks; print(attacks.create('still').version)"
    for number in (7, 8, 9):
        write(tmp_path, "attacks/still.py", f"{ATTACK}    version = {number}\n")
        place = tmp_path / "attacks" / "still.py"
        second = int(place.stat().st_mtime) * 10**9
        os.utime(place, ns=(second, second + 5 * 10**8 + number))
        assert int(ask(tmp_path, code).stdout) == number
        for compiled in (tmp_path / "attacks").rglob("*.pyc"):  # as if it had just been written
            os.utime(compiled, ns=(second, second + 5 * 10**8 + number))


@pytest.mark.whole
def test_a_broken_file_does_not_stop_a_run_on_two_workers(tmp_path: Path) -> None:
    """The scaffold beside it is evaluated in spawned processes; the warning comes once."""
    write(tmp_path, "defenses/broken.py", "1 / 0")
    verb = [sys.executable, "-m", "bench"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for arguments in (
        ["new-attack", "my-attack"],
        ["run", "--defense", "relu", "--attacks", "my-attack", "--n", "6", "--eps", "0.1",
         "--no-examine", "--workers", "2", "--shard-size", "3"],
    ):  # fmt: skip
        done = subprocess.run(
            [*verb, *arguments], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("defenses/broken.py is left out") == 1
    assert "| my-attack |" in done.stdout


@pytest.mark.whole
def test_a_run_verifies_where_its_attack_is_not(tmp_path: Path) -> None:
    """What the attack declared lies in the run; only the defense has to be there."""
    declared = 'summary = "x"\n    spoken = "Stillness"\n    strength = "strong"'
    text = ATTACK.replace('summary = "moves nothing"', declared)
    write(tmp_path, "attacks/still.py", text)
    asked = ["--attacks", "still,fgsm", "--n", "12", "--eps", "0.1", "--workers", "0"]
    found = commands.call("run", "--defense", "relu", *asked, "--no-escalate", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    (folder,) = (path.parent for path in (tmp_path / "results" / "runs").glob("*/run.json"))
    record = json.loads((folder / "run.json").read_text())
    assert record["attacks"]["still"]["strength"] == "strong"
    assert record["attacks"]["still"]["spoken"] == "Stillness"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = commands.call("verify", folder, cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
