"""What is no plugin is refused when it is registered, with the class and its fault named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from bench.api import Attack, Cost
from bench.errors import PluginError
from bench.registry import attacks
from tests.registry.small import Still, Tuned

if TYPE_CHECKING:
    from bench.registry.plugins import Registry


def test_a_scheme_that_takes_no_argument_is_refused(registry: Registry[Attack]) -> None:
    """When it is registered, not when somebody uses it."""

    class Deaf(Still):
        argument = "NAME"

    with pytest.raises(PluginError, match="has to take what stands behind the colon"):
        registry.register("deaf")(Deaf)


def test_duplicate_name_is_refused(registry: Registry[Attack]) -> None:
    """The first plugin keeps its name; the error names both."""
    with pytest.raises(PluginError, match=r"'still' \(.*Tuned\).*taken by .*Still"):
        registry.register("still")(Tuned)

    assert registry.get("still") is Still


def without(name: str) -> type[Attack]:
    """A subclass of `Attack` that lacks one method."""
    body = {key: value for key, value in vars(Still).items() if key != name}
    return type("Odd", (Attack,), {k: v for k, v in body.items() if not k.startswith("_")})


def with_method(name: str, value: Any) -> type[Attack]:
    """A valid attack with one attribute replaced."""
    return type("Odd", (Still,), {name: value})


def endless(self: object, *, size: float = float("inf")) -> None:
    """An initialiser whose default no file can hold."""


@pytest.mark.parametrize(
    ("cls", "fault"),
    [
        (int, "has to be a subclass of bench.api.Attack"),
        (without("run"), r"lacks run\(\)"),
        (without("cost"), r"lacks cost\(\)"),
        (with_method("summary", " "), "needs a one-line `summary`"),
        (with_method("summary", None), "needs a one-line `summary`"),
        (with_method("run", 1), "run has to be a method"),
        (with_method("run", lambda self: None), r"run\(\) does not take the argument 'problem'"),
        (with_method("cost", lambda self, *, norm, shape: None), "cost.. does not .* 'classes'"),
        (
            with_method("run", lambda self, problem, budget: None),
            r"run\(\) needs the argument 'budget', which it is never given",
        ),
        (with_method("__init__", lambda self, steps=1: None), "'steps' has to be keyword-only"),
        (with_method("__init__", lambda self, *, steps: None), "'steps' .* to have a default"),
        (with_method("__init__", lambda self, *, steps=1: None), "'steps' has to be annotated"),
        (with_method("__init__", endless), "'size' has to have a finite default .got inf"),
    ],
)
def test_invalid_plugins_are_refused(
    registry: Registry[Attack], cls: type[Attack], fault: str
) -> None:
    """At registration, naming the class and the fault; the name stays free."""
    with pytest.raises(PluginError, match=rf"{cls.__qualname__}.*{fault}"):
        registry.register("odd")(cls)

    assert registry.names() == ["still", "tuned"]


def test_compatible_signatures_are_accepted(registry: Registry[Attack]) -> None:
    """Keyword arguments may be gathered, and more of them may have defaults."""
    registry.register("gathers")(with_method("cost", lambda self, **settings: Cost(0)))
    registry.register("more")(with_method("run", lambda self, problem, budget=1: None))

    assert {"gathers", "more"} <= set(registry.names())


@pytest.mark.parametrize("name", ["", "Still", "a_b", "a--b", "-a", "a b", "a,b", "a[b]", "a:b"])
def test_malformed_names_are_refused(registry: Registry[Attack], name: str) -> None:
    """A name has to survive lists, brackets and file names."""
    with pytest.raises(PluginError, match="lower-case words of letters and digits joined by hyph"):
        registry.register(name)(Still)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("kind", "fix"),
        ("scope", "rest"),
        ("access", "grey-box"),
        ("norms", {"Linf"}),
        ("approach", "guess"),
        ("lowers", "loss"),
        ("strength", "medium"),
        ("over_draws", "yes"),
        ("traces", "worsened"),
        ("examination", ("", 3)),
        ("escalation", ("steps=80",)),
        ("spoken", 3),
        ("challenge", "Finite differences"),
    ],
)
def test_an_attribute_outside_its_values_is_refused(attribute: str, value: object) -> None:
    """A slip such as `kind = "fix"` would otherwise surface in the middle of a run."""
    base: type = attacks.get("apgd-ce")
    slipped = type("Slipped", (base,), {attribute: value, "summary": "slipped"})
    with pytest.raises(PluginError, match=f"attack 'slipped'.*`{attribute}` has to be"):
        attacks.register("slipped")(slipped)


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("examination", ("stepz=80",), "names 'stepz=80', and it takes no 'stepz'"),
        ("planted", ("stepz=80",), "names 'stepz=80', and it takes no 'stepz'"),
        ("stand_in", "steps=many", "names 'steps=many': Tried: steps has to be int"),
        ("escalation", ((), ("steps=80,steps=9",)), "'steps' is given twice"),
        ("escalation", (("steps",),), "cannot read 'steps'"),
    ],
)
def test_an_examination_of_options_that_are_none_is_refused(
    attribute: str, value: object, why: str
) -> None:
    """It would fail in the middle of somebody's run, or be left out in silence."""
    tried = type("Tried", (Tuned,), {attribute: value})
    with pytest.raises(PluginError, match=re.escape(why)):
        attacks.register("tried")(tried)
