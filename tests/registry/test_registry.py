"""Names as users write them make plugins: options in their types, schemes, one canonical name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import UnknownNameError, UsageError
from bench.registry import attacks, defenses
from bench.registry.grammar import parameters_of
from tests.registry.small import Still, Tuned

if TYPE_CHECKING:
    from bench.api import Attack
    from bench.registry.plugins import Registry


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tuned", "tuned"),
        ("tuned[]", "tuned"),
        ("tuned[tag=b,steps=20]", "tuned[steps=20,tag=b]"),
        ("tuned[steps=10,fast=False,size=0.50]", "tuned"),
        ("tuned[fast=TRUE]", "tuned[fast=true]"),
        ("tuned[size=1]", "tuned[size=1.0]"),
        ("tuned[loss=dlr]", "tuned[loss=dlr]"),
    ],
)
def test_canonical_name_is_one(registry: Registry[Attack], text: str, canonical: str) -> None:
    """Keys are sorted, defaults left out, values written one way; read again it is the same."""
    plugin = registry.create(text)

    assert plugin.name == canonical
    assert registry.create(canonical).name == canonical
    assert registry.create(canonical).parameters == plugin.parameters


def test_parameters_are_typed_and_complete(registry: Registry[Attack]) -> None:
    """`parameters` holds every one, and the constructor got them in their types."""
    plugin = registry.create("tuned[steps=3,size=2,fast=true,loss=dlr,tag=z]")

    expected = {"steps": 3, "size": 2.0, "fast": True, "loss": "dlr", "tag": "z"}
    assert plugin.parameters == expected
    assert isinstance(plugin, Tuned)
    assert plugin.values == tuple(expected.values())
    assert registry.create("tuned").parameters == {
        "steps": 10, "size": 0.5, "fast": False, "loss": "ce", "tag": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("steps=many", "int .got 'many'"),
        ("steps=1.5", "int .got '1.5'"),
        ("size=wide", "float .got 'wide'"),
        ("size=nan", "a finite number .got 'nan'"),
        ("size=-inf", "a finite number .got '-inf'"),
        ("size=inf", "a finite number .got 'inf'"),
        ("size=1e999", "a finite number .got '1e999'"),
        ("fast=1", "true or false .got '1'"),
        ("loss=mse", "one of ce, dlr .got 'mse'"),
    ],
)
def test_options_of_wrong_type_are_refused(
    registry: Registry[Attack], option: str, allowed: str
) -> None:
    """The error names the plugin, the key, what is allowed and what was got."""
    key = option.partition("=")[0]
    with pytest.raises(UsageError, match=f"^tuned: {key} has to be {allowed}"):
        registry.create(f"tuned[{option}]")


def test_what_a_plugin_raises_is_told_in_one_line(registry: Registry[Attack]) -> None:
    """It is an option's value that it does not take, whatever the class of the error."""

    class Picky(Still):
        def __init__(self, *, steps: int = 1) -> None:
            if steps > 1:
                raise ValueError(f"at most\n1 step (got {steps})")

    registry.register("picky")(Picky)

    assert registry.create("picky").name == "picky"
    with pytest.raises(UsageError, match=r"^picky\[steps=2\]: ValueError: at most 1 step"):
        registry.create("picky[steps=2]")


def test_unknown_names_get_a_suggestion(registry: Registry[Attack]) -> None:
    """For plugins and for their options."""
    with pytest.raises(UnknownNameError, match="unknown attack 'tunde'; did you mean 'tuned'"):
        registry.create("tunde")
    with pytest.raises(UnknownNameError, match=r"option of attack 'tuned' 'step'.*'steps'"):
        registry.create("tuned[step=1]")


def test_value_refused_by_the_plugin_is_named(registry: Registry[Attack]) -> None:
    """A plugin's own check comes out with the name as written."""

    class Picky(Still):
        def __init__(self, *, steps: int = 1) -> None:
            if steps < 1:
                raise UsageError(f"steps has to be at least 1 (got {steps})")

    registry.register("picky")(Picky)

    with pytest.raises(UsageError, match=r"^picky\[steps=0\]: steps has to be at least 1 .got 0"):
        registry.create("picky[steps=0]")


class Named(Still):
    """A scheme with one option."""

    argument = "NAME"

    def __init__(self, name: str, *, size: int = 1) -> None:
        self.given = (name, size)


@pytest.mark.parametrize(
    ("text", "canonical", "given"),
    [
        ("scheme:Some_Model-2.1", "scheme:Some_Model-2.1", ("Some_Model-2.1", 1)),
        (" scheme : a[size=1] ", "scheme:a", ("a", 1)),
        ("scheme:a/b:c[size=2]", "scheme:a/b:c[size=2]", ("a/b:c", 2)),
    ],
)
def test_a_scheme_takes_what_stands_behind_its_colon(
    registry: Registry[Attack], text: str, canonical: str, given: tuple[str, int]
) -> None:
    """By position, beside its options; the canonical name makes the same again."""
    registry.register("scheme")(Named)
    plugin = registry.create(text)

    assert plugin.name == canonical
    assert isinstance(plugin, Named)
    assert plugin.given == given
    assert plugin.parameters == {"size": given[1]}
    assert registry.create(canonical).name == canonical
    assert (registry.names(), registry.schemes()) == (["still", "tuned"], ["scheme"])


def test_schemes_and_plain_names_are_not_mixed_up(registry: Registry[Attack]) -> None:
    """Neither a scheme alone, nor a plain name with a colon."""
    registry.register("scheme")(Named)

    with pytest.raises(UsageError, match="'scheme' does not say which one; write scheme:NAME"):
        registry.create("scheme")
    with pytest.raises(UsageError, match="'scheme:' does not say which one"):
        registry.create("scheme:")
    with pytest.raises(UsageError, match="attack 'still' takes nothing behind a colon"):
        registry.create("still:x")
    with pytest.raises(UnknownNameError, match="unknown attack 'schema'; did you mean 'scheme'"):
        registry.create("schema:x")
    with pytest.raises(UnknownNameError, match="option of attack 'scheme:x' 'sise'"):
        registry.create("scheme:x[sise=1]")


def test_a_class_without_parameters_has_none() -> None:
    """The constructor of `object` is not taken for one with parameters."""
    assert parameters_of(Still) == {}


@pytest.mark.parametrize("kind", [defenses, attacks], ids=["defenses", "attacks"])
def test_built_in_plugins_are_found(kind: Registry[Any]) -> None:
    """Each can be created by its bare name, which is its canonical name."""
    assert kind.names()
    assert [kind.create(name).name for name in kind.names()] == kind.names()
