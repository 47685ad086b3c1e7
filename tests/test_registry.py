from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Literal

import pytest

from bench.api import Attack, Cost, Problem, Proposal
from bench.errors import PluginError, UnknownNameError, UsageError
from bench.grammar import Written, parameters_of, split_names
from bench.registry import (
    Registry,
    attacks,
    create_attacks,
    defenses,
    register_suite,
    suite_epsilons,
    suites,
)
from bench.threat import Norm

if TYPE_CHECKING:
    from pathlib import Path


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
    registry: Registry[Attack] = Registry("attack", Attack, "attacks")
    registry._discovered = True
    registry.register("still")(Still)
    registry.register("tuned")(Tuned)
    return registry


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


def test_suites_expand_once() -> None:
    """An attack that several names stand for is run once, in the order of the first."""
    first, second, *_ = attacks.names()
    register_suite("pair", "two attacks")(lambda norm: [first, second])

    try:
        chosen = create_attacks(f"{second},pair,{first}", Norm.LINF)
    finally:
        del suites["pair"]

    assert [attack.name for attack in chosen] == [second, first]


@pytest.mark.parametrize(
    ("text", "family", "norm", "expected"),
    [
        ("own", "digits", Norm.LINF, ("0.1", "0.2")),
        (" own ", "digits", Norm.LINF, ("0.1", "0.2")),
        ("own", "digits", Norm.L2, ()),
        ("own", "mnist", Norm.LINF, ()),
        ("own", None, Norm.LINF, ()),
        ("own,still", "digits", Norm.LINF, ()),
        ("still", "digits", Norm.LINF, ()),
        ("quick", "digits", Norm.LINF, ()),
    ],
)
def test_a_suite_brings_its_epsilons_where_it_stands_alone(
    text: str, family: str | None, norm: Norm, expected: tuple[str, ...]
) -> None:
    """For the families and norms it names; beside anything else it brings none."""
    epsilons = {("digits", Norm.LINF): "0.1 0.2"}
    register_suite("own", "with epsilons", epsilons=epsilons)(lambda norm: ["fgsm"])

    try:
        assert suite_epsilons(text, family, norm) == expected
    finally:
        del suites["own"]


def test_suite_names_are_guarded() -> None:
    """A taken name and an empty or unknown list are refused."""
    with pytest.raises(PluginError, match="suite 'quick': the name is taken"):
        register_suite("quick", "another")(lambda norm: [])
    with pytest.raises(UsageError, match=r"no attack given; .*--attacks standard"):
        create_attacks(" , ", Norm.LINF)
    with pytest.raises(UnknownNameError, match="attack or suite 'quik'; did you mean 'quick'"):
        create_attacks("quik", Norm.LINF)


GOOD = """
    from bench.api import Attack, Cost, Proposal

    class Good(Attack):
        summary = "third-party"

        def __init__(self, *, steps: int = 1) -> None:
            pass

        def cost(self, *, norm, shape, classes):
            return Cost(1)

        def run(self, problem):
            return Proposal(problem.inputs)
"""
#: A module, what its entry point calls, and why it cannot be used (None if it can).
THIRD_PARTY = {
    "good": (GOOD, "Good", None),
    "broken": ("raise RuntimeError('out of order')", "Good", "RuntimeError: out of order"),
    "absent": (GOOD, "Missing", "AttributeError: .*Missing"),
    "lazy": ("class Good: pass", "Good", "PluginError: .*subclass of bench.api.Attack"),
    "fgsm": (GOOD, "Good", "PluginError: .*'fgsm' .*the name is taken by attacks"),
}


def ask(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees the distributions in a folder."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_third_party_entry_points(tmp_path: Path, name: str) -> None:
    """A good one registers; a broken one warns, is left out, and takes nothing else with it."""
    source, attribute, fault = THIRD_PARTY[name]
    module = f"winnow_third_party_{name}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[winnow.attacks]\n{name} = {module}:{attribute}\n")

    done = ask(
        tmp_path,
        f"""
        from bench.registry import attacks
        print(type(attacks.create("{name}[steps=2]")).__module__ if {fault is None} else "-")
        print("square" in attacks.names(), attacks.names().count("{name}"))
        print(attacks.get("fgsm").__module__.split(".")[0])
        """,
    )

    if fault is None:
        assert done.stdout.split() == [module, "True", "1", "attacks"]
        assert done.stderr == ""
    else:
        assert done.stdout.split() == ["-", "True", str(int(name == "fgsm")), "attacks"]
        warned = " ".join(done.stderr.split())
        assert f"the plugin {name!r} of winnow.attacks ({module}:{attribute}) cannot be" in warned
        assert re.search(fault, warned)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("kind", "fix"), ("scope", "rest"), ("access", "grey-box"), ("norms", {"Linf"})],
)
def test_an_attribute_outside_its_values_is_refused(attribute: str, value: object) -> None:
    """A slip such as `kind = "fix"` would otherwise surface in the middle of a run."""
    base: type = attacks.get("apgd-ce")
    slipped = type("Slipped", (base,), {attribute: value, "summary": "slipped"})
    with pytest.raises(PluginError, match=f"attack 'slipped'.*`{attribute}` has to be"):
        attacks.register("slipped")(slipped)
