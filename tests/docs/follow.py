"""Follows the steps of a document in the working directory; stops at the first that fails.

    python follow.py STEPS.json

Each command runs in a process of its own, forked from this one, which has imported the heavy
libraries once: what a reader's shell does, without loading torch at every line.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
import traceback
from pathlib import Path

HEAVY = ("torch", "foolbox", "pandas", "pyarrow.parquet", "sklearn.datasets", "matplotlib.pyplot")


def in_a_process_of_its_own(tag: str, text: str) -> int:
    """Execute a command or a source; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 0
    try:
        if tag == "source":
            exec(compile(text, "<document>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = shlex.split(text, comments=True)[2:]  # python -m bench …: from bench on
            importlib.import_module("bench.cli").main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - whatever a document does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(steps: Path) -> None:
    """Follow them."""
    sys.path[0] = ""  # the working directory, as for `python -m`
    listed = json.loads(steps.read_text(encoding="utf-8"))
    for module in HEAVY if len(listed) > 1 else ():
        importlib.import_module(module)
    for tag, text in listed:
        if tag not in ("command", "source"):
            Path(tag).parent.mkdir(exist_ok=True)
            Path(tag).write_text(text, encoding="utf-8")
        elif code := in_a_process_of_its_own(tag, text):
            sys.exit(f"exit code {code}: {text}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
