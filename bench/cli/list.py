"""`list`: what is registered."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def list_plugins() -> None:
    """List defenses, attacks, suites and data sets.

    Example: python -m bench list
    """
    from bench import registry
    from bench.data import DATASETS

    console = Console(highlight=False)
    defenses = _table("defenses", "name", "options", "what it is")
    for name in registry.defenses.names():
        defense = registry.defenses.get(name)
        defenses.add_row(name, _options(defense), defense.summary)
    console.print(defenses)
    attacks = _table("attacks", "name", "options", "kind", "norms", "access", "what it is")
    for name in registry.attacks.names():
        attack = registry.attacks.get(name)
        attacks.add_row(
            name,
            _options(attack),
            attack.kind,
            " ".join(sorted(attack.norms)),
            attack.access,
            attack.summary,
        )
    console.print(attacks)
    suites = _table("suites", "name", "what it is")
    for suite in registry.suites.values():
        suites.add_row(suite.name, suite.summary)
    console.print(suites)
    datasets = _table("data sets", "name", "what it is")
    for name, summary in DATASETS.items():
        datasets.add_row(name, summary)
    console.print(datasets)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "name")
    return table


def _options(plugin: type) -> str:
    from bench import registry

    return ", ".join(
        f"{key}={parameter.write(parameter.default)}"
        for key, parameter in registry.parameters_of(plugin).items()
    )
