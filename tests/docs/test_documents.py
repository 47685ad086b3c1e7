"""What the documents tell a reader to type works, in a fresh folder outside the repository.

Every fenced block has a tag. Lines of `sh` are commands of ours; a `python` block is executed, or
written to the file that its first line names (`# defenses/my_defense.py`, `# my_model.py`); others
are only read.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.commands import ROOT, call

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = sorted((ROOT / "docs").rglob("*.md"))
READ_ONLY = {"text", "toml", "json", "ini", "yaml", "bibtex"}
PROGRAM = ["python", "-m", "bench"]


class Block(NamedTuple):
    """A fenced block."""

    tag: str
    text: str


def blocks_of(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    fences = re.findall(r"^```([^\n`]*)\n(.*?)^```$", document, flags=re.DOTALL | re.MULTILINE)
    return [Block(tag.strip(), text) for tag, text in fences]


def steps_of(document: str) -> list[Block]:
    """What has to be done: a command, a source to execute, or a file to write, in order.

    Raises:
        ValueError: a block without a known tag, or a command that is not ours.
    """
    steps = []
    for tag, text in blocks_of(document):
        if tag == "sh":
            for line in text.splitlines():
                if shlex.split(line, comments=True)[:3] not in ([], PROGRAM):
                    raise ValueError(f"not a command of ours: {line}")
                steps.append(Block("command", line))
        elif tag == "python":
            named = re.match(r"# ((?:defenses/|attacks/)?\w+\.py)\n", text)
            steps.append(Block(named[1] if named else "source", text))
        elif tag not in READ_ONLY:
            raise ValueError(f"a block is tagged {tag!r}")
    return steps


def follow(steps: list[Block], folder: Path) -> None:
    """Do the steps in a folder, each in a process of its own that has to succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "WINNOW_DATA"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for tag, text in steps:
        if tag not in ("command", "source"):
            (folder / tag).parent.mkdir(exist_ok=True)
            (folder / tag).write_text(text, encoding="utf-8")
            continue
        words = _words(text, folder)[len(PROGRAM) :] if tag == "command" else [text]
        done = call(*words, kind=tag, cwd=folder, env=environment)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def _words(line: str, folder: Path) -> list[str]:
    """A command's words, with paths for `*` as a shell in the folder has them."""
    words = shlex.split(line, comments=True)
    found = [sorted(folder.glob(word)) if "*" in word else [] for word in words]
    return [str(word) for own, paths in zip(words, found, strict=True) for word in paths or (own,)]


@pytest.mark.whole
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_does_what_it_says(path: Path, tmp_path: Path) -> None:
    """All its steps, in order, in one folder."""
    if steps := steps_of(path.read_text(encoding="utf-8")):
        follow(steps, tmp_path)


def test_the_test_above_can_fail(tmp_path: Path) -> None:
    """An untagged block, a foreign command, a failing command or source."""
    for document in ("```\nls\n```\n", "```sh\nrm -r x\n```\n", "```bash\nls\n```\n"):
        with pytest.raises(ValueError, match=r"tagged|not a command of ours"):
            steps_of(document)
    for document in ("```sh\npython -m bench check nobody\n```\n", "```python\n1 / 0\n```\n"):
        with pytest.raises(AssertionError, match=r"nobody|ZeroDivisionError"):
            follow(steps_of(document), tmp_path)


def test_documents_that_teach_are_among_those_executed() -> None:
    """They have commands, so that the test above is not one of nothing."""
    least = {"adding-a-defense": 4, "adding-an-attack": 4, "evaluate-my-model": 2,
             "read-a-verdict": 1, "check-a-claim": 4, "many-gpus": 1}  # fmt: skip
    for stem, count in least.items():
        (path,) = (p for p in DOCUMENTS if p.stem == stem)
        steps = steps_of(path.read_text(encoding="utf-8"))
        assert sum(s.tag == "command" for s in steps) >= count
