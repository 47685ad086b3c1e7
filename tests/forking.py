"""A server of processes, forked from one that has imported the heavy libraries once.

    python forking.py        (`tests.commands` starts it and talks to it)

Every line of standard input asks for a process. It does what a new interpreter would, but for the
libraries that are loaded already; of Winnow nothing is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing.process
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

HEAVY = (
    "torch",
    "foolbox",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "rich.console",
    "typer",
    "matplotlib.pyplot",
)


def serve() -> None:
    """Load the libraries, then answer each request with a process id, and then with how it ended.

    A request is a JSON object: `kind` (`command`: the arguments of `python -m bench`; `file`: a
    path and its arguments; `source`: Python to execute), `words`, `cwd`, `env`, `out`, `err`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one decides when it ends
    for module in HEAVY:
        importlib.import_module(module)
    answers = os.dup(1)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        os.write(answers, b"%d\n" % child)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _become(kind: str, words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """The life of a forked process; it never returns."""
    os.setsid()
    for descriptor, path in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        vars(multiprocessing.process)["ORIGINAL_DIR"] = cwd  # where its workers start
        sys.path[:1] = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
        _execute(kind, words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:  # noqa: BLE001 - whatever it does
        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _execute(kind: str, words: list[str]) -> None:
    if kind == "source":
        sys.path.insert(0, "")
        sys.argv = ["-c"]
        exec(compile(words[0], "<source>", "exec"), {"__name__": "__main__"})
    elif kind == "file":
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        sys.argv = ["-m", *words]
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
        runpy.run_module("bench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()
