"""What the registry's attacks declare that an examination may ask for, and that can run here."""

from __future__ import annotations

import functools
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from bench import registry
from bench.trust import Menu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.api import Attack
    from bench.threat import Norm


class World(NamedTuple):
    """Where attacks would run."""

    norm: Norm
    shape: tuple[int, int, int]
    classes: int

    def able(self, names: Iterable[str]) -> list[Attack]:
        """Those of these attacks that can run here."""
        made = map(registry.attacks.create, names)
        return [attack for attack in made if attack.why_not(**self._asdict()) is None]


@functools.lru_cache(maxsize=8)
def menu_of(norm: Norm, shape: tuple[int, int, int], classes: int) -> Menu:
    """The menu of a setting.

    Args:
        norm: of the threat model.
        shape: (C, H, W) of one input.
        classes: the number of logits.
    """
    world = World(norm, shape, classes)
    plugins = {name: registry.attacks.get(name) for name in registry.attacks.names()}
    examined = [_named(name, o) for name, cls in plugins.items() for o in cls.examination]
    stand_ins = {
        name: attack.name
        for name, cls in plugins.items()
        if cls.stand_in
        for attack in world.able([_named(name, cls.stand_in)])
    }
    # Descent on the margin first: a cross-entropy may be flat.
    free = world.able(name for name, cls in plugins.items() if cls.free)
    rounds = [
        [[_named(name, options) for options in names] for names in cls.escalation]
        for name, cls in plugins.items()
        if not cls.over_draws
    ]
    over_draws = [
        _named(name, options)
        for name, cls in plugins.items()
        if cls.over_draws
        for names in cls.escalation
        for options in names
    ]
    return Menu(
        examination=tuple(attack.name for attack in world.able(examined)),
        stand_ins=stand_ins,
        free=tuple(a.name for a in sorted(free, key=lambda a: (a.lowers != "margin", a.name))),
        escalation=tuple(
            _those_able(world, (name for names in tried for name in names))
            for tried in zip_longest(*rounds, fillvalue=[])
        ),
        over_draws=_those_able(world, over_draws),
    )


def _named(name: str, options: str) -> str:
    """A plugin with these options, as written."""
    return f"{name}[{options}]" if options else name


def _those_able(world: World, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(attack.name for attack in world.able(names)))
