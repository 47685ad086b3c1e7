"""Names to plugins: registration, discovery, schemes, suites.

Built-in plugins are the modules that lie directly in `defenses/` and `attacks/` (their building
blocks are packages inside), and Python files in folders of these names in the working directory
join them; others arrive by the decorators below or by the entry-point groups `winnow.defenses` and
`winnow.attacks`. A module that cannot be imported is left out with a warning, and who asks for its
name is told why.
"""

from __future__ import annotations

import importlib.metadata
import types
import typing
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bench.api import Plugin
from bench.errors import (
    PluginError,
    PluginNotice,
    PluginWarning,
    UnknownNameError,
    UsageError,
    WinnowError,
    in_one_line,
)
from bench.registry.discovery import edition, plugin_modules, shown, told
from bench.registry.discovery import join_local as join_local  # for the packages of plugins
from bench.registry.grammar import NAME, Value, Written, parameters_of, squeezed
from bench.registry.interface import fault_of
from bench.registry.surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

P = TypeVar("P", bound=Plugin)


C = TypeVar("C", bound=type[Plugin])


class Registry(Generic[P]):
    """Names to plugin classes of one kind, found when they are first asked for."""

    def __init__(self, noun: str, base: Any, package: str) -> None:
        self.noun = noun
        self.base: type[P] = base
        self.package = package
        self.group = f"winnow.{package.rpartition('.')[2]}"
        self._classes: dict[str, type[P]] = {}
        self._origins: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._silent: dict[str, str] = {}
        self._discovered = False
        self._executed = False

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
                f"{self.noun} {name!r} ({cls.__module__}.{cls.__qualname__}): {fault}"
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
        for alias in own_aliases(cls):
            other = self._meant(alias)
            if other and self._origins.get(other) != origin:
                refuse(f"its alias {alias!r} means {other!r} already")
        parameters_of(cls)

    def names(self) -> list[str]:
        """All registered names that are plugins by themselves, sorted; schemes are not."""
        self._discover()
        return sorted(name for name, cls in self._classes.items() if not cls.argument)

    def schemes(self) -> list[str]:
        """The registered names that take something behind a colon, sorted."""
        self._discover()
        return sorted(name for name, cls in self._classes.items() if cls.argument)

    def _meant(self, name: str) -> str:
        """The registered name that is meant, in any case or by an alias; empty where there is none.

        A name in full goes before one that only looks like it.
        """
        if name in self._classes or name in self._left_out:
            return name
        wanted = squeezed(name)
        own = {squeezed(known): known for known in sorted(self._classes, reverse=True)}
        others = {squeezed(a): known for known, c in self._classes.items() for a in own_aliases(c)}
        return own.get(wanted) or others.get(wanted) or ""

    def get(self, name: str) -> type[P]:
        """The class registered under a bare name; of `scheme:argument` it is the scheme's.

        Case and hyphens make no difference, and aliases are names as well.

        Raises:
            PluginError: its module was left out; the error says why.
            UnknownNameError: with the closest names.
        """
        return self._classes[self._found(name)]

    def _found(self, written: str) -> str:
        """The registered name that `get` takes a name for; it raises as that does."""
        self._discover()
        name = written.partition(":")[0].strip()
        meant = self._meant(name)
        if meant in self._left_out and meant not in self._classes:
            raise PluginError(f"{self.noun} {meant!r} is not there: {self._left_out[meant]}")
        if not meant:
            self.check_silent(name)
            raise UnknownNameError(self.noun, name, self._classes)
        return meant

    def check_silent(self, name: str) -> None:
        """Tell who asks for the name of a file of the working directory that registers nothing.

        It is a helper of others, or somebody's first plugin.

        Raises:
            PluginError: there is such a file.
        """
        self._discover()
        if why := self._silent.get(name.replace("_", "-")):
            raise PluginError(f"{self.noun} {name!r} is not there: {why}")

    def knows(self, name: str) -> bool:
        """Whether a bare name means a plugin, or one that was left out."""
        self._discover()
        return bool(self._meant(name))

    def foreign(self) -> bool:
        """Whether code was executed for its plugins that does not come with Winnow."""
        self._discover()
        own = f"{self.package}."
        return self._executed or not all(o.startswith(own) for o in self._origins.values())

    def create(self, text: str) -> P:
        """A plugin from its name as written, `name` and `parameters` filled in.

        Raises:
            UnknownNameError: no such plugin.
            UsageError: an option that it does not have, a value it does not take, whatever its
                `__init__` raises, nothing behind the colon of a scheme, or something where there is
                no scheme.
        """
        written = Written.parse(text)
        name = self._found(written.name)
        cls = self._classes[name]
        if cls.argument and not written.argument:
            raise UsageError(
                f"{text!r} does not say which one; write {name}:{cls.argument} "
                "(see python -m bench list)"
            )
        if ":" in written.name and not cls.argument:
            raise UsageError(
                f"{self.noun} {written.scheme!r} takes nothing behind a colon ({text})"
            )
        bare = f"{name}:{written.argument}" if cls.argument else name
        known = parameters_of(cls)
        values: dict[str, Value] = {}
        for key, value in written.options.items():
            if key not in known:
                raise UnknownNameError(f"option of {self.noun} {bare!r}", key, known)
            values[key] = known[key].read(value, bare)
        positional = [written.argument] if cls.argument else []
        try:
            plugin = cls(*positional, **values)
        except WinnowError as error:
            raise UsageError(f"{text}: {error}") from error
        except Exception as error:
            raise UsageError(f"{text}: {in_one_line(error)}") from error
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
        executed, imported = [], []
        for module in plugin_modules(self.package):
            before = dict(self._classes)
            executed += [shown(module.path)] * (module.local and not module.fault)
            if fault := module.import_it():
                self._classes = before  # not half of a file
                names = module.plugin_names(self.noun)
                self._leave_out(names, f"{shown(module.path)} is left out: {fault}")
            elif module.local:
                imported.append(module)
        if executed:
            notice = f"plugins of this folder are executed: {', '.join(executed)}"
            warnings.warn(notice, PluginNotice, stacklevel=2)
            self._executed = True
        for point in importlib.metadata.entry_points(group=self.group):
            self._load(point)
        for module in imported:
            if not any(each.startswith(f"{module.name}.") for each in self._origins.values()):
                name = module.path.stem.replace("_", "-")
                self._silent[name] = (
                    f"{shown(module.path)} registers no {self.noun}; put "
                    f'@register_{self.noun}("{name}") above its class'
                )

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        """Load one third-party plugin; whatever goes wrong in it stays with it."""
        self._executed = True
        try:
            with undisturbed():
                loaded = point.load()
            if isinstance(loaded, types.ModuleType):
                return  # a module registers what it holds by the decorators
            if loaded not in self._classes.values():
                self.register(point.name)(loaded)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - somebody else's code may raise anything
            self._leave_out(
                {point.name},
                f"the plugin {point.name!r} of {point.group} ({point.value}) cannot be loaded and "
                f"is left out: {told(error)}",
            )

    def _leave_out(self, names: set[str], reason: str) -> None:
        """Remember why these names are not there, and say it."""
        self._left_out |= dict.fromkeys(names, reason)
        warnings.warn(reason, PluginWarning, stacklevel=2)


def own_aliases(cls: type) -> tuple[str, ...]:
    """The aliases that a class declares itself: those of its base mean its base."""
    found: tuple[str, ...] = vars(cls).get("aliases", ())
    return found
