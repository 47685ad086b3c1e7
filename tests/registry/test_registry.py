from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import pytest

from bench.api import Attack, Cost, Problem, Proposal
from bench.errors import PluginError, UnknownNameError, UsageError
from bench.registry import attacks, defenses
from bench.registry.grammar import parameters_of
from bench.registry.plugins import Registry

if TYPE_CHECKING:
    from bench.threat import Norm


class Still(Attack):
    """A valid attack that moves nothing."""

    summary = "moves nothing"

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Free."""
        return Cost(0)

    def run(self, problem: Problem) -> Proposal:
        """Propose the inputs themselves."""
        return Proposal(problem.inputs)


class Tuned(Still):
    """A parameter of each kind."""

    def __init__(
        self,
        *,
        steps: int = 10,
        size: float = 0.5,
        fast: bool = False,
        loss: Literal["ce", "dlr"] = "ce",
        tag: str = "a",
    ) -> None:
        self.values = (steps, size, fast, loss, tag)


@pytest.fixture
def registry() -> Registry[Attack]:
    """A registry of two attacks that looks for no others."""
    registry: Registry[Attack] = Registry("attack", Attack, "bench.attacks")
    registry._discovered = True
    registry.register("still")(Still)
    registry.register("tuned")(Tuned)
    return registry


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


def test_a_class_without_parameters_has_none() -> None:
    """The constructor of `object` is not taken for one with parameters."""
    assert parameters_of(Still) == {}


@pytest.mark.parametrize("kind", [defenses, attacks], ids=["defenses", "attacks"])
def test_built_in_plugins_are_found(kind: Registry[Any]) -> None:
    """Each can be created by its bare name, which is its canonical name."""
    assert kind.names()
    assert [kind.create(name).name for name in kind.names()] == kind.names()


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
