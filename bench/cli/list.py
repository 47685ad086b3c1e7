"""`list`: what is registered."""

from __future__ import annotations

import typer


def list_plugins() -> None:
    """List defenses, attacks, suites and data sets, with their options and defaults.

    Example: python -m bench list
    """
    from bench import registry
    from bench.data import DATASETS

    _section(
        "Defenses",
        {
            f"{name}{_options(cls)}": cls.summary
            for name in registry.defenses.names()
            for cls in [registry.defenses.get(name)]
        },
    )
    _section(
        "Attacks",
        {
            f"{name}{_options(cls)}": f"{cls.summary}  ({cls.access}, "
            f"{'minimum norm' if cls.kind == 'minimum' else 'fixed epsilon'}, "
            f"{' '.join(sorted(cls.norms))})"
            for name in registry.attacks.names()
            for cls in [registry.attacks.get(name)]
        },
    )
    _section("Suites", {suite.name: suite.summary for suite in registry.suites.values()})
    _section("Data sets", DATASETS)


def _section(title: str, entries: dict[str, str]) -> None:
    typer.echo(f"{title}:")
    for name, summary in entries.items():
        typer.echo(f"  {name}\n      {summary}")
    typer.echo()


def _options(plugin: type) -> str:
    from bench.grammar import parameters_of

    known = parameters_of(plugin)
    options = ",".join(f"{key}={p.write(p.default)}" for key, p in sorted(known.items()))
    return f"[{options}]" if options else ""
