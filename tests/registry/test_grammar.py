"""How plugins are written on the command line."""

from __future__ import annotations

import pytest

from bench.errors import UsageError
from bench.registry.grammar import Written, split_names


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("kwta", "kwta", {}),
        (" kwta[] ", "kwta", {}),
        ("kwta[gamma=0.2]", "kwta", {"gamma": "0.2"}),
        ("kwta[ gamma = 0.2 , exact=true ]", "kwta", {"gamma": "0.2", "exact": "true"}),
        ("robustbench:Carmon2019Unlabeled", "robustbench:Carmon2019Unlabeled", {}),
    ],
)
def test_names_are_read(text: str, name: str, options: dict[str, str]) -> None:
    """A name, an argument after a colon, and options in brackets; spaces do not matter."""
    assert Written.parse(text) == Written(name, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the name ''"),
        ("[a=1]", "cannot read the name"),
        ("kwta[a=1", "cannot read the name"),
        ("kwta[a=1]x", "cannot read the name"),
        ("kwta[[a=1]]", "cannot read the name"),
        ("kwta[gamma]", "cannot read 'gamma' in .*; write key=value"),
        ("kwta[gamma=]", "cannot read 'gamma=' in .*; write key=value"),
        ("kwta[=1]", "cannot read '=1' in .*; write key=value"),
        ("kwta[a=1,a=2]", "'a' is given twice in 'kwta"),
    ],
)
def test_unreadable_names_are_refused(text: str, message: str) -> None:
    """The error repeats what was written and says how to write it."""
    with pytest.raises(UsageError, match=message):
        Written.parse(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a,b[x=1,y=2] , c", ["a", "b[x=1,y=2]", "c"]),
        ("a,,b,", ["a", "b"]),
        (" ", []),
    ],
)
def test_lists_split_outside_brackets(text: str, names: list[str]) -> None:
    """A comma within brackets belongs to the options."""
    assert split_names(text) == names


@pytest.mark.parametrize("text", ["a[x=1,b", "a]x", "a[[x=1]]"])
def test_unmatched_brackets_are_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="brackets do not match"):
        split_names(text)
