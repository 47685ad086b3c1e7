"""What the verbs share: options that several have, and how they end."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import UsageError


def parse_checkpoint(text: str) -> tuple[str, Path]:
    """Read `NAME=PATH`; the name may hold `=` itself.

    Raises:
        UsageError: it is not of that form.
    """
    match = re.fullmatch(r"([^=\[\]]+(?:\[[^\]]*\])?)=(.+)", text)
    if match is None:
        raise UsageError(f"--checkpoint wants NAME=PATH (got {text!r})")
    return match[1], Path(match[2])


def parse_seeds(text: str) -> list[int]:
    """Read `0,1,2`.

    Raises:
        UsageError: not different whole numbers from 0 up.
    """
    from bench.run.seeds import check_seeds

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--seeds has to be different whole numbers from 0 up (got {text!r})")
    seeds = [int(part) for part in parts]
    check_seeds(seeds)
    return seeds
