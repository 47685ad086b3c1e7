"""Which files and folders of a data set are which split, by their names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.data.base import Split

Role = Literal["train", "test", "validation"]

#: What each split is called, in lower case.
_CALLED: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "train_set", "training_set"),
    "test": ("test", "testing", "test_set"),
    "validation": ("validation", "val", "valid", "dev", "val_set", "validation_set"),
}
_STEM = re.compile(
    rf"(?P<stem>{'|'.join(sorted(sum(_CALLED.values(), ()), key=len, reverse=True))})"
    r"(?:[-_. ].*)?\.parquet",
    re.IGNORECASE,
)
#: What systems and programs leave in folders.
_LEFTOVERS = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name was put there by a system, not by whoever made it."""
    return name.startswith((".", "._")) or name.lower() in _LEFTOVERS


def called_train(name: str) -> bool:
    """Whether a name says that this is what models are trained on, wherever in it."""
    return any(role_of(word) == "train" for word in re.split(r"[-_. ]", name))


def role_of(name: str) -> Role | None:
    """The split that a folder of this name holds, if any."""
    return next((role for role, called in _CALLED.items() if name.lower() in called), None)


def role_of_file(name: str) -> Role | None:
    """The split that a Parquet file of this name is part of, if any."""
    match = _STEM.fullmatch(name)
    return role_of(match["stem"]) if match else None


def choose(
    found: Mapping[str, tuple[Role | None, Path]], wanted: str, where: str
) -> tuple[dict[Split, str], list[str]]:
    """Which of the parts that there are is the train split and which the test split.

    Args:
        found: parts by their names, with the split that each is called after.
        wanted: the name of the part to evaluate; by their names where empty.
        where: they lie, for errors.

    Returns:
        The name of each split's part, the test split first, and sentences on what was chosen.

    Raises:
        DataError: there is no part of the wanted name, or two could be the same split.
    """
    by_role: dict[Role | None, list[str]] = {}
    for name, (role, _) in sorted(found.items()):
        by_role.setdefault(role, []).append(name)

    def only(role: Role) -> str | None:
        names = by_role.get(role, [])
        if len(names) > 1:
            raise DataError(
                f"{where} holds {' and '.join(names)}, and each could be the {role} split; say "
                f"which with [split={names[0]}]"
            )
        return names[0] if names else None

    notes: list[str] = []
    if wanted:
        tested = next((name for name in found if name.lower() == wanted.lower()), None)
        tested = tested or next((n for n, (role, _) in found.items() if role == wanted), None)
        if tested is None:
            raise DataError(
                f"{where} has no split {wanted!r}; it has {', '.join(sorted(found)) or 'none'}"
            )
    else:
        tested = only("test")
        if tested is None and (tested := only("validation")) is not None:
            notes.append(f"there is no test split; {tested} is taken for it")
    trained = only("train")
    chosen: dict[Split, str] = {}
    if tested is not None:
        chosen["test"] = tested
    if trained is not None:
        chosen["train"] = trained
    rest = sorted(found.keys() - set(chosen.values()))
    if rest and chosen:
        notes.append(f"not read: {', '.join(rest)}")
    return chosen, notes
