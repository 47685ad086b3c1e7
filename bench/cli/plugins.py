"""`check`: does a plugin keep to the rules?

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
    from bench.run.devices import resolve_device
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
        PluginError: only a file of this name that registers nothing.
    """
    from bench import registry
    from bench.registry.grammar import Written

    bare = Written.parse(written).name
    found = [("defense", written)] if registry.defenses.knows(bare) else []
    if registry.attacks.knows(bare):
        found.append(("attack", written))
    if not found:
        registry.defenses.check_silent(bare)
        registry.attacks.check_silent(bare)
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
