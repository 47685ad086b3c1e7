"""How a data set of files is to be read: the options in `scheme:PATH[key=value,…]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_WITH_OPTIONS = re.compile(r"(?P<path>.+)\[(?P<options>[^\[\]]*)\]")
#: A comma ends a value only where another key follows, so that a path may hold one.
_BETWEEN = re.compile(r",(?=\s*\w+\s*=)")
#: The options that are whole numbers from 1, and the largest that each may be.
_LIMITS = {"resize": 4096, "crop": 4096, "severity": 5}
#: What `preset=NAME` stands for; a key that is given beside it counts.
PRESETS: dict[str, dict[str, int]] = {"imagenet": {"resize": 256, "crop": 224}}


@dataclass(frozen=True)
class Reading:
    """How files become examples; empty or 0 where nothing was asked for."""

    image: str = ""
    """The Parquet column that holds images."""
    label: str = ""
    """The Parquet column that holds labels."""
    classes: str = ""
    """A file with the model's class names in the order of its logits, or `imagenet`."""
    split: str = ""
    """What is evaluated in place of the test split, such as `validation`."""
    resize: int = 0
    """The shorter side after resizing, in pixels (bilinear, as torchvision's `Resize`)."""
    crop: int = 0
    """Side of the square cut from the middle, in pixels (as torchvision's `CenterCrop`)."""
    kind: str = ""
    """Of a corruption."""
    severity: int = 0
    """Of a corruption, 1 to 5."""
    only: str = ""
    """A file with the images that are evaluated, a path within the test split a line."""

    def __str__(self) -> str:
        """As written behind a name in tables: sorted, without folders of this machine."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        for key in {*given} & {"classes", "only"}:
            given[key] = Path(str(given[key])).name
        return f"[{','.join(f'{key}={given[key]}' for key in sorted(given))}]" if given else ""

    @property
    def geometry(self) -> str:
        """What changes the pixels, for digests; empty where nothing does."""
        return str(Reading(resize=self.resize, crop=self.crop))


def expanded(path: str | Path) -> Path:
    """A path as written where it exists, else with the home that `~` or `~user` stands for."""
    plain = Path(path)
    if plain.exists():
        return plain
    try:
        return plain.expanduser()
    except RuntimeError:  # no such user
        return plain


def read_options(scheme: str, argument: str, allowed: Iterable[str]) -> tuple[Path, Reading]:
    """Take `PATH[key=value,…]` apart; a path that exists as written has no options.

    Args:
        scheme: of the data set, for errors.
        argument: what stands behind its colon.
        allowed: the keys that it takes.

    Raises:
        UnknownNameError: another key, or a preset that there is not.
        UsageError: no `key=value`, a key given twice, or a size that is no number above 0.
    """
    match = _WITH_OPTIONS.fullmatch(argument)
    if match is None or expanded(argument).exists():
        return expanded(argument), Reading()
    given: dict[str, str | int] = {}
    for item in filter(str.strip, _BETWEEN.split(match["options"])):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise UsageError(f"cannot read {item.strip()!r} in {argument!r}; write key=value")
        if key not in {*allowed}:
            raise UnknownNameError(f"option of {scheme}:PATH[…]", key, allowed)
        if key in given:
            raise UsageError(f"{key!r} is given twice in {argument!r}")
        limit = _LIMITS.get(key)
        given[key] = _number(key, value, limit) if limit else value
    if preset := str(given.pop("preset", "")):
        if preset not in PRESETS:
            raise UnknownNameError("preset of images", preset, PRESETS)
        given = {**PRESETS[preset], **given}
    return expanded(match["path"]), Reading(**given)  # type: ignore[arg-type]


def with_classes(text: str, classes: str) -> str:
    """A data set as written, read with these classes: `[classes=…]` added to its options.

    Args:
        text: such as `folder:PATH[split=val]`.
        classes: a file; nothing is added where empty.

    Raises:
        UsageError: the data set has classes already, or is not read from files.
    """
    if not classes:
        return text
    scheme, colon, argument = text.partition(":")
    if not colon:
        raise UsageError(f"--classes is for data from files, such as folder:PATH; {text} has names")
    match = _WITH_OPTIONS.fullmatch(argument)
    if match is None or expanded(argument).exists():
        return f"{text}[classes={classes}]"
    if re.search(r"(^|,)\s*classes\s*=", match["options"]):
        raise UsageError(f"--classes and [classes=…] of {text} are given: leave one out")
    return f"{scheme}:{match['path']}[{match['options']},classes={classes}]"


def _number(key: str, value: str, limit: int) -> int:
    if not (value.isdecimal() and 0 < int(value) <= limit):
        what = "whole number" if key == "severity" else "number of pixels"
        raise UsageError(f"{key} has to be a {what} from 1 to {limit} (got {value!r})")
    return int(value)
