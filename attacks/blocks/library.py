"""Foolbox, for all that uses it: imported on a machine without git as well.

Foolbox can fetch models with GitPython, which raises an ImportError where it finds no `git` unless
its variable says otherwise. Nothing of ours fetches any.
"""

from __future__ import annotations

import os
from unittest import mock

_VARIABLE = "GIT_PYTHON_REFRESH"

with mock.patch.dict(os.environ, {_VARIABLE: os.environ.get(_VARIABLE, "quiet")}):
    import foolbox

__all__ = ["foolbox"]
