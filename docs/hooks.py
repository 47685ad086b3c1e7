"""What MkDocs adds to the documents: pages that lie elsewhere, and what our commands print."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from bench.cli import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
#: Files of the repository outside `docs/` that the site has at the same place.
BESIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "results/README.md",
    "results/kwta.md",
    "results/published/leaderboard.html",
)
#: Where the output of a command stands, and that of each verb's `--help`.
PRINTS = re.compile(r"^<!-- prints: python -m bench (.+) -->$", flags=re.MULTILINE)
EVERY_VERB = "<!-- prints the help of every verb -->"
#: The target of a link within the repository.
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside `docs/`."""
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have commands say what they print, and links go to where a file lies in the site."""
    name = page.file.src_uri
    here = posixpath.dirname(name if name in BESIDE else f"docs/{name}")
    start = posixpath.dirname(name) or "."

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[0]))
        return posixpath.relpath(target.removeprefix("docs/"), start)

    linked = LINK.sub(moved, markdown)
    if EVERY_VERB in linked:
        linked = linked.replace(EVERY_VERB, _every_verb())
    return PRINTS.sub(lambda comment: _printed(comment[1]), linked)


def _every_verb() -> str:
    """A heading and the help of each verb; of a group, of each of its own."""
    verbs: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    parts = []
    for name, verb in verbs.items():
        parts.append(f"## {name}")
        own = vars(verb).get("commands")
        parts += (
            [_printed(f"{name} {sub} --help") for sub in own]
            if own
            else [_printed(f"{name} --help")]
        )
    return "\n\n".join(parts)


def _printed(words: str) -> str:
    """A block with what a command prints; it has to succeed."""
    done = CliRunner().invoke(app, words, prog_name="python -m bench", env={"COLUMNS": "80"})
    if done.exit_code != 0:
        raise ValueError(f"python -m bench {words}: exit code {done.exit_code}\n{done.output}")
    return f"```text\n{done.output.rstrip()}\n```"
