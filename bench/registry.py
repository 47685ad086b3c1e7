"""Names to plugins: registration, discovery, schemes, suites.

Built-in plugins are the modules that lie directly in `defenses/` and `attacks/` (their building
blocks are packages inside), and Python files in folders of these names in the working directory
join them; others arrive by the decorators below or by the entry-point groups `winnow.defenses` and
`winnow.attacks`. A module that cannot be imported is left out with a warning, and who asks for its
name is told why.
"""

from __future__ import annotations

import importlib.metadata
import re
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bench.api import Attack, Defense, Plugin
from bench.discovery import edition, plugin_modules, shown
from bench.discovery import join_local as join_local  # for the packages of plugins
from bench.errors import PluginError, PluginWarning, UnknownNameError, UsageError, WinnowError
from bench.grammar import Value, Written, parameters_of, split_names
from bench.interface import fault_of
from bench.threat import Norm

P = TypeVar("P", bound=Plugin)
C = TypeVar("C", bound=type[Plugin])
#: What a bare name looks like.
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class Registry(Generic[P]):
    """Names to plugin classes of one kind, found when they are first asked for."""

    def __init__(self, kind: str, base: Any, package: str) -> None:
        self.kind = kind
        self.base: type[P] = base
        self.package = package
        self.group = f"winnow.{package.rpartition('.')[2]}"
        self._classes: dict[str, type[P]] = {}
        self._origins: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that registers a plugin.

        Raises:
            PluginError: the name is malformed or taken, or the class breaks the interface.
        """

        def decorate(cls: C) -> C:
            self._check(name, cls)
            self._classes[name] = typing.cast("type[P]", cls)
            self._origins[name] = f"{cls.__module__}.{cls.__qualname__}"
            return cls

        return decorate

    def _check(self, name: str, cls: type) -> None:
        def refuse(fault: str) -> typing.NoReturn:
            raise PluginError(
                f"{self.kind} {name!r} ({cls.__module__}.{cls.__qualname__}): {fault}"
            )

        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            refuse(f"has to be a subclass of bench.api.{self.base.__name__}")
        if not NAME.fullmatch(name):
            refuse("a name is lower-case words of letters and digits joined by hyphens")
        origin = f"{cls.__module__}.{cls.__qualname__}"
        if name in self._classes and self._origins[name] != origin:
            refuse(f"the name is taken by {self._origins[name]}")
        if fault := fault_of(cls, self.base):
            refuse(fault)
        parameters_of(cls)

    def names(self) -> list[str]:
        """All registered names that are plugins by themselves, sorted; schemes are not."""
        self._discover()
        return sorted(name for name, cls in self._classes.items() if not cls.argument)

    def schemes(self) -> list[str]:
        """The registered names that take something behind a colon, sorted."""
        self._discover()
        return sorted(name for name, cls in self._classes.items() if cls.argument)

    def get(self, name: str) -> type[P]:
        """The class registered under a bare name; of `scheme:argument` it is the scheme's.

        Raises:
            PluginError: its module was left out; the error says why.
            UnknownNameError: with the closest names.
        """
        self._discover()
        name = name.partition(":")[0].strip()
        if name in self._classes:
            return self._classes[name]
        if name in self._left_out:
            raise PluginError(f"{self.kind} {name!r} is not there: {self._left_out[name]}")
        raise UnknownNameError(self.kind, name, self._classes)

    def knows(self, name: str) -> bool:
        """Whether a bare name is registered, or is that of a plugin that was left out."""
        self._discover()
        return name in self._classes or name in self._left_out

    def create(self, text: str) -> P:
        """A plugin from its name as written, `name` and `parameters` filled in.

        Raises:
            UnknownNameError: no such plugin.
            UsageError: an option that it does not have, a value it does not take, nothing behind
                the colon of a scheme, or something where there is no scheme.
        """
        written = Written.parse(text)
        cls = self.get(written.name)
        if cls.argument and not written.argument:
            raise UsageError(
                f"{text!r} does not say which one; write {written.scheme}:{cls.argument} "
                "(see python -m bench list)"
            )
        if ":" in written.name and not cls.argument:
            raise UsageError(
                f"{self.kind} {written.scheme!r} takes nothing behind a colon ({text})"
            )
        bare = f"{written.scheme}:{written.argument}" if cls.argument else written.name
        known = parameters_of(cls)
        values: dict[str, Value] = {}
        for key, value in written.options.items():
            if key not in known:
                raise UnknownNameError(f"option of {self.kind} {bare!r}", key, known)
            values[key] = known[key].read(value, bare)
        positional = [written.argument] if cls.argument else []
        try:
            plugin = cls(*positional, **values)
        except WinnowError as error:
            raise UsageError(f"{text}: {error}") from error
        full = {key: values.get(key, parameter.default) for key, parameter in known.items()}
        plugin.parameters = full
        plugin.version = edition(cls, cls.version)
        options = [
            f"{key}={parameter.write(full[key])}"
            for key, parameter in sorted(known.items())
            if full[key] != parameter.default
        ]
        plugin.name = f"{bare}[{','.join(options)}]" if options else bare
        return plugin

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # before importing: a plugin's module may ask for names itself
        for module in plugin_modules(self.package):
            before = dict(self._classes)
            if fault := module.import_it():
                self._classes = before  # not half of a file
                names = module.plugin_names(self.kind)
                self._leave_out(names, f"{shown(module.path)} is left out: {fault}")
        for point in importlib.metadata.entry_points(group=self.group):
            self._load(point)

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        """Load one third-party plugin; whatever goes wrong in it stays with it."""
        try:
            loaded = point.load()
            if isinstance(loaded, types.ModuleType):
                return  # a module registers what it holds by the decorators
            if loaded not in self._classes.values():
                self.register(point.name)(loaded)
        except Exception as error:  # noqa: BLE001 - somebody else's code may raise anything
            self._leave_out(
                {point.name},
                f"the plugin {point.name!r} of {point.group} ({point.value}) cannot be loaded and "
                f"is left out: {type(error).__name__}: {error}",
            )

    def _leave_out(self, names: set[str], reason: str) -> None:
        """Remember why these names are not there, and say it."""
        self._left_out |= dict.fromkeys(names, reason)
        warnings.warn(reason, PluginWarning, stacklevel=2)


defenses: Registry[Defense] = Registry("defense", Defense, "bench.defenses")
attacks: Registry[Attack] = Registry("attack", Attack, "bench.attacks")

register_defense = defenses.register
register_attack = attacks.register

SuiteFunction = Callable[[Norm], list[str]]


@dataclass(frozen=True)
class Suite:
    """A named list of attacks that depends on the norm."""

    name: str
    summary: str
    members: SuiteFunction
    epsilons: Mapping[tuple[str, Norm], str] = field(default_factory=dict)
    """Its own, separated by spaces, by family of data sets and norm: see `suite_epsilons`."""


suites: dict[str, Suite] = {}


def register_suite(
    name: str, summary: str, *, epsilons: Mapping[tuple[str, Norm], str] | None = None
) -> Callable[[SuiteFunction], SuiteFunction]:
    """Function decorator that registers a suite: from a norm to attack names.

    Args:
        name: as on the command line.
        summary: one line for `python -m bench list`.
        epsilons: see `Suite`.

    Raises:
        PluginError: the name is taken.
    """

    def decorate(function: SuiteFunction) -> SuiteFunction:
        if name in suites:
            raise PluginError(f"suite {name!r}: the name is taken")
        suites[name] = Suite(name, summary, function, epsilons or {})
        return function

    return decorate


def create_attacks(text: str, norm: Norm) -> list[Attack]:
    """The attacks that a comma-separated list of attack and suite names stands for, each once.

    Raises:
        UnknownNameError: a name is neither an attack nor a suite.
        UsageError: the list is empty.
    """
    known = [*attacks.names(), *attacks.schemes()]
    chosen: dict[str, Attack] = {}
    for written in split_names(text):
        bare = Written.parse(written)
        if bare.name in suites and not bare.options:
            members = suites[bare.name].members(norm)
        elif attacks.knows(bare.scheme):
            members = [written]
        else:
            raise UnknownNameError("attack or suite", bare.name, [*known, *suites])
        for member in members:
            attack = attacks.create(member)
            chosen.setdefault(attack.name, attack)
    if not chosen:
        raise UsageError("no attack given; name attacks or a suite, such as --attacks standard")
    return list(chosen.values())


def suite_epsilons(text: str, family: str | None, norm: Norm) -> tuple[str, ...]:
    """The epsilons of a suite that is all that a list of attacks names; else none, as written.

    Beside other attacks a suite sets no epsilons, because those may have been meant for others.
    """
    attacks.names()  # suites are found with the attacks
    suite = suites.get(text.strip())
    return tuple(suite.epsilons.get((family or "", norm), "").split()) if suite else ()
