"""`list`: what is registered."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.errors import UnknownNameError


def list_plugins(
    models: Annotated[
        str, typer.Option(help="List the models of a scheme, such as robustbench, instead.")
    ] = "",
    build: Annotated[
        bool,
        typer.Option("--build", help="With --models: build each without its weights, and say why."),
    ] = False,
    match: Annotated[str, typer.Option(help="With --models: those whose names hold this.")] = "",
) -> None:
    """List defenses, attacks, suites and data sets, with their options and defaults.

    Example: python -m bench list

    `--models robustbench` lists what robustbench:NAME may be; with `--build`, what can be built on
    this machine, and why not where it cannot. Exit code 1 if some model cannot.
    """
    if models:
        _list_models(models, match, build=build)
        return
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
        "Defenses by others, by scheme (--models SCHEME lists a scheme's)",
        {
            f"{name}:{cls.argument}{_options(cls)}": cls.summary
            for name in registry.defenses.schemes()
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


def _list_models(scheme: str, match: str, *, build: bool) -> None:
    """One line a model, and with `build` what comes of building it.

    Raises:
        UnknownNameError: there is no such scheme.
    """
    from bench import registry

    if scheme not in registry.defenses.schemes():
        raise UnknownNameError("scheme", scheme, registry.defenses.schemes())
    cls = registry.defenses.get(scheme)
    offers = [offer for offer in cls.models() if match.lower() in offer.name.lower()]
    failed = 0
    for offer in offers:
        said = f"{'x'.join(map(str, offer.shape))}, {offer.classes} classes"
        if build:
            from bench.testing.offers import build_fault

            fault = build_fault(offer)
            failed += fault is not None
            said = "builds" if fault is None else f"does not build: {fault}"
        typer.echo(f"{offer.name}  {said}")
    if build:
        typer.echo(f"{len(offers) - failed} of {len(offers)} build without weights")
        if failed:
            raise typer.Exit(1)
    elif not offers:
        typer.echo(f"{scheme}:{cls.argument} has no list of models here")


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
