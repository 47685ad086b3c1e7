"""Foolbox, for all that uses it: imported on a machine without git as well.

Foolbox can fetch models with GitPython, which raises an ImportError where it finds no `git` unless
its variable says otherwise. Nothing of ours fetches any.
"""

from __future__ import annotations

import os

_VARIABLE = "GIT_PYTHON_REFRESH"

_given = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = _given or "quiet"
try:
    import foolbox
finally:
    if _given is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _given

__all__ = ["foolbox"]
