"""What guests on a CPU need: imported once, by the server that they are forked from.

See `bench.matrix.processes.begin_server`. What fails here fails again where it is needed, and is
told there: without the server there would be no process to tell it.
"""

from __future__ import annotations

import contextlib
import importlib

_NEEDED = ("torch", "pandas", "pyarrow.parquet", "foolbox", "pyautoattack", "bench.matrix.work")

for _name in _NEEDED:
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
