"""What a verification found, and how far each claim of a run goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Faults of one kind and one cell are listed up to here, and counted beyond.
LISTED = 5
#: The longest sentence: what a file holds may be any text.
LONGEST = 600


@dataclass
class Findings:
    """What a verification found."""

    faults: list[str] = field(default_factory=list)
    """What does not hold, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know, but does not invalidate the run."""
    proven: list[str] = field(default_factory=list)
    """What follows from the files, the data, the weights and the code of whoever verifies."""
    recorded: list[str] = field(default_factory=list)
    """What the run says and nothing here shows."""
    files: int = 0
    examples: int = 0
    """Adversarial examples judged again."""

    @property
    def verified(self) -> bool:
        """Whether everything that can be checked holds."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Add what does not hold."""
        self.faults.append(printable(text))

    def note(self, text: str) -> None:
        """Add what a reader should know."""
        self.notes.append(printable(text))

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "verified": self.verified,
            "faults": self.faults,
            "notes": self.notes,
            # Nothing is proven of a run that does not hold.
            "proven": self.proven if self.verified else [],
            "recorded_not_proven": self.recorded,
            "files": self.files,
            "examples": self.examples,
        }


def printable(text: str) -> str:
    """A sentence that a terminal shows as it is: names and texts from files may hold anything."""
    plain = "".join(c if c.isprintable() else c.encode("unicode-escape").decode() for c in text)
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def listed(items: Sequence[object]) -> str:
    """The first of some, and how many more there are."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(map(str, items[:LISTED])) + more
