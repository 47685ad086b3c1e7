"""`Plugin`: what defenses and attacks have in common."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar


class Plugin(ABC):
    """What defenses and attacks have in common. The registry fills in `name` and `parameters`."""

    summary: ClassVar[str]
    """One line for `python -m bench list`."""
    argument: ClassVar[str] = ""
    """What its name takes behind a colon, as help texts write it: `NAME`; empty for nothing.

    Such a plugin is a scheme: `robustbench:NAME` is one defense for each NAME. Its `__init__` takes
    the text behind the colon first, by position, and its options after it by keyword.
    """
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names that the field has for it, `hsja`; a class derived from it does not have them.
    Of names and aliases alike, case and hyphens make no difference."""
    version: int = 1
    """Raise it when results change: stored outcomes of another version are not reused. 0 marks a
    draft: every change of its file makes it another version. A file in the working directory's
    `defenses/` or `attacks/` is a draft unless it gives a number."""

    name: str = ""
    """The canonical name, such as `kwta[gamma=0.2]`: keys sorted, defaults left out."""
    parameters: dict[str, bool | int | float | str]
    """Every parameter with its value, defaults included."""
