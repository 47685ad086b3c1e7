"""`list`: what is registered.

`check`: does a plugin keep to the rules?

`new-defense` and `new-attack`: a plugin to begin with.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from bench.scaffold import Noun
    from bench.testing.conformance import RuleResult


def list_plugins(
    models: Annotated[
        str, typer.Option(help="List the models of a scheme, such as robustbench, instead.")
    ] = "",
    build: Annotated[
        bool,
        typer.Option("--build", help="With --models: build each without its weights, and say why."),
    ] = False,
) -> None:
    """List defenses, attacks, suites and data sets, with their options and defaults.

    Example: python -m bench list

    `--models robustbench` lists what robustbench:NAME may be; with `--build`, what can be built on
    this machine, and why not where it cannot. Exit code 1 if some model cannot.
    """
    if models:
        _list_models(models, build=build)
        return
    if build:
        raise UsageError("--build goes with --models SCHEME; without it nothing is built")
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


def _list_models(scheme: str, *, build: bool) -> None:
    """One line a model, and with `build` what comes of building it.

    Raises:
        UnknownNameError: there is no such scheme.
    """
    from bench import registry

    if scheme not in registry.defenses.schemes():
        raise UnknownNameError("scheme", scheme, registry.defenses.schemes())
    cls = registry.defenses.get(scheme)
    offers = list(cls.models())
    failed = 0
    for offer in offers:
        said = f"{'x'.join(map(str, offer.shape))}, {offer.classes} classes"
        if build:
            from bench.testing.conformance import build_fault

            fault = build_fault(offer)
            failed += fault is not None
            said = "builds" if fault is None else f"does not build: {fault}"
        options.echo(f"{offer.name}  {said}")
    if build:
        options.echo(f"{len(offers) - failed} of {len(offers)} build without weights")
        if failed:
            raise typer.Exit(options.FAILED)
    elif not offers:
        options.echo(f"{scheme}:{cls.argument} has no list of models here")


def _section(title: str, entries: dict[str, str]) -> None:
    options.echo(f"{title}:")
    for name, summary in entries.items():
        options.echo(f"  {name}\n      {summary}")
    options.echo()


def _options(plugin: type) -> str:
    from bench.registry.grammar import parameters_of

    known = parameters_of(plugin)
    written = ",".join(f"{key}={p.write(p.default)}" for key, p in sorted(known.items()))
    return f"[{written}]" if written else ""


def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Defenses and attacks, options included.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Check every defense and attack that is registered.")
    ] = False,
    device: options.Device = "cpu",
) -> None:
    """Check that plugins keep to the rules: shapes, seeds, gradients, cost and more.

    The same checks as `bench.testing.DefenseContract` and `AttackContract` for pytest. They run on
    small inputs and untrained weights, and say nothing about robustness.

    Example: python -m bench check my-defense my-attack

    Exit code 0: everything holds; 1: something does not, and how to mend it is printed.
    """
    if bool(names) == everything:
        raise UsageError("name plugins to check, such as kwta, or give --all")
    failed = 0
    plugins = _all() if everything else [found for name in names or () for found in _find(name)]
    from bench.run.prepare import resolve_device
    from bench.testing.conformance import examine

    place = resolve_device(device)
    for noun, name in plugins:
        results = examine(noun, name, place)
        options.echo(_report(noun, name, results))
        failed += any(result.status == "failed" for result in results)
    if len(plugins) > 1:
        options.echo(f"\n{len(plugins) - failed} of {len(plugins)} plugins hold")
    if failed:
        raise typer.Exit(options.FAILED)


def _all() -> list[tuple[str, str]]:
    from bench import registry

    defenses = [("defense", name) for name in registry.defenses.names()]
    return defenses + [("attack", name) for name in registry.attacks.names()]


def _find(written: str) -> list[tuple[str, str]]:
    """The plugins of a name: a defense, an attack, or both.

    Raises:
        UnknownNameError: there is neither.
    """
    from bench import registry
    from bench.registry.grammar import Written

    bare = Written.parse(written).name
    found = [("defense", written)] if registry.defenses.knows(bare) else []
    if registry.attacks.knows(bare):
        found.append(("attack", written))
    if not found:
        names = [*registry.defenses.names(), *registry.attacks.names()]
        raise UnknownNameError("defense or attack", bare, names)
    return found


def _report(noun: str, name: str, results: list[RuleResult]) -> str:
    counts = Counter(result.status for result in results)
    told = ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "skipped"))
    lines = [f"{name} ({noun}): {told}"]
    for result in results:
        status = "FAILED" if result.status == "failed" else result.status
        lines.append(f"  {status:<8} " + str(result).replace("\n", "\n  "))
    return "\n".join(lines)


Name = Annotated[str, typer.Argument(help="Lower-case words joined by hyphens.")]


Package = Annotated[
    bool, typer.Option("--package", help="Write an installable package with tests instead.")
]


Force = Annotated[bool, typer.Option("--force", help="Write over a draft of this name.")]


def new_defense(name: Name, package: Package = False, force: Force = False) -> None:
    """Write a defense that runs at once: defenses/NAME.py in the working directory.

    Example: python -m bench new-defense my-defense

    Python files in ./defenses and ./attacks are found, and executed, by every command that is
    started in this folder.
    """
    _new("defense", name, package=package, force=force)


def new_attack(name: Name, package: Package = False, force: Force = False) -> None:
    """Write an attack that runs at once: attacks/NAME.py in the working directory.

    Example: python -m bench new-attack my-attack

    Python files in ./defenses and ./attacks are found, and executed, by every command that is
    started in this folder.
    """
    _new("attack", name, package=package, force=force)


def _new(noun: Noun, name: str, *, package: bool, force: bool) -> None:
    from bench.scaffold import command_of, new_file, new_package

    written = (new_package if package else new_file)(noun, name, force=force)
    options.echo(f"wrote:    {written}{'/' if package else ''}")
    if package:
        options.echo(f"install:  pip install -e {written}")
    options.echo(f"run it:   python -m bench run {command_of(noun, name)}")
    options.echo(f"check it: python -m bench check {name}")
