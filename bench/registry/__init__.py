"""Names to plugins: the registries of defenses and attacks, and suites of attacks.

Built-in plugins are the modules that lie directly in `defenses/` and `attacks/` (their building
blocks are packages inside), and Python files in folders of these names in the working directory
join them; others arrive by the decorators below or by the entry-point groups `winnow.defenses` and
`winnow.attacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

from bench.api import Attack, Defense
from bench.errors import PluginError, UnknownNameError, UsageError
from bench.registry.discovery import join_local as join_local  # for the packages of plugins
from bench.registry.grammar import Written, split_names, squeezed
from bench.registry.plugins import Registry
from bench.threat import Norm

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
    figure: str = ""
    """The published evaluation whose figure its attacks give together, `autoattack`."""


class Suites(MutableMapping[str, Suite]):
    """Suites by name: the modules of attacks register them, and are imported for whoever asks."""

    def __init__(self) -> None:
        self.registered: dict[str, Suite] = {}
        """Those of the modules that are imported already."""

    def _found(self) -> dict[str, Suite]:
        attacks.names()
        return self.registered

    def __getitem__(self, name: str) -> Suite:
        return self._found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def __setitem__(self, name: str, suite: Suite) -> None:
        self.registered[name] = suite

    def __delitem__(self, name: str) -> None:
        del self.registered[name]


suites = Suites()


def register_suite(
    name: str,
    summary: str,
    *,
    epsilons: Mapping[tuple[str, Norm], str] | None = None,
    figure: str = "",
) -> Callable[[SuiteFunction], SuiteFunction]:
    """Function decorator that registers a suite: from a norm to attack names.

    Args:
        name: as on the command line.
        summary: one line for `python -m bench list`.
        epsilons: see `Suite`.
        figure: see `Suite`.

    Raises:
        PluginError: the name is taken.
    """

    def decorate(function: SuiteFunction) -> SuiteFunction:
        if name in suites.registered:
            raise PluginError(f"suite {name!r}: the name is taken")
        suites[name] = Suite(name, summary, function, epsilons or {}, figure)
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
        suite = None if bare.options else _suite(bare.name)
        if suite is not None:
            members = suite.members(norm)
        elif attacks.knows(bare.scheme):
            members = [written]
        else:
            attacks.check_silent(bare.scheme)
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
    suite = _suite(text.strip())
    return tuple(suite.epsilons.get((family or "", norm), "").split()) if suite else ()


def _suite(name: str) -> Suite | None:
    """The suite of a name, written in any case; None where an attack is called exactly so."""
    found = {squeezed(known): suite for known, suite in suites.items()}.get(squeezed(name))
    return suites.get(name, None if name in attacks.names() else found)
