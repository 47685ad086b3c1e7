"""Names in any case, and those that the field has, mean one plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.errors import PluginError, UnknownNameError
from bench.registry import attacks
from tests.registry.small import Still

if TYPE_CHECKING:
    from bench.api import Attack
    from bench.registry.plugins import Registry


class Salted(Still):
    """A valid attack with a name of several words and others that the field has for it."""

    aliases = ("spa", "salt&co")


class Peppered(Salted):
    """One that is derived from it and has none."""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("STILL", "still"),
        ("Tuned[steps=20]", "tuned[steps=20]"),
        ("SaltAndPepper", "salt-and-pepper"),
        ("salt_and_pepper", "salt-and-pepper"),
        (" SPA ", "salt-and-pepper"),
        ("Salt&Co", "salt-and-pepper"),
        ("more-salt", "more-salt"),
    ],
)
def test_names_are_meant_in_any_case_and_by_their_aliases(
    registry: Registry[Attack], written: str, meant: str
) -> None:
    """The canonical name is one; what only derives from a class does not have its aliases."""
    registry.register("salt-and-pepper")(Salted)
    registry.register("more-salt")(Peppered)
    assert registry.create(written).name == meant
    assert registry.knows(written.partition("[")[0])


def test_a_name_in_full_goes_before_an_alias(registry: Registry[Attack]) -> None:
    """Whoever registers a plugin gets it by its name; an alias that is taken is refused."""
    registry.register("salt-and-pepper")(Salted)
    registry.register("spa")(Peppered)
    assert type(registry.create("spa")) is Peppered

    class Other(Still):
        """One that would be called as another is."""

        aliases = ("STILL",)

    with pytest.raises(PluginError, match="its alias 'STILL' means 'still' already"):
        registry.register("other")(Other)


def test_a_suggestion_does_not_look_at_the_case(registry: Registry[Attack]) -> None:
    """Nor is anything suggested that is not there."""
    with pytest.raises(UnknownNameError, match="unknown attack 'TUNDE'; did you mean 'tuned'"):
        registry.create("TUNDE")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("AutoAttack", "autoattack"), ("PGD", "pgd"), ("CW", "cw"), ("C&W", "cw"),
        ("FAB", "fab-t"), ("APGD", "apgd-ce"), ("APGD-T", "apgd-t"), ("HSJA", "hop-skip-jump"),
        ("HopSkipJump", "hop-skip-jump"), ("DeepFool", "deepfool"), ("MI-FGSM", "mi-fgsm"),
        ("BPDA", "surrogate"), ("Square Attack", "square"),
    ],
)  # fmt: skip
def test_attacks_are_known_by_the_names_that_the_field_has_for_them(
    written: str, meant: str
) -> None:
    """As papers and other libraries write them."""
    assert attacks.create(written).name == meant
