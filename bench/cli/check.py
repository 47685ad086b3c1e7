"""`check`: does a plugin keep to the rules?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.testing.conformance import Finding


def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Defenses and attacks, options included.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Check every defense and attack that is registered.")
    ] = False,
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
    from bench.testing.conformance import examine

    for kind, name in plugins:
        findings = examine(kind, name)
        typer.echo(_report(kind, name, findings))
        failed += any(finding.status == "failed" for finding in findings)
    if len(plugins) > 1:
        typer.echo(f"\n{len(plugins) - failed} of {len(plugins)} plugins hold")
    if failed:
        raise typer.Exit(1)


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
    from bench.errors import UnknownNameError
    from bench.grammar import Written

    bare = Written.parse(written).name
    found = [("defense", written)] if registry.defenses.knows(bare) else []
    if registry.attacks.knows(bare):
        found.append(("attack", written))
    if not found:
        names = [*registry.defenses.names(), *registry.attacks.names()]
        raise UnknownNameError("defense or attack", bare, names)
    return found


def _report(kind: str, name: str, findings: list[Finding]) -> str:
    counts = [
        f"{sum(finding.status == status for finding in findings)} {status}"
        for status in ("passed", "failed", "skipped")
    ]
    lines = [f"{name} ({kind}): {', '.join(counts)}"]
    for finding in findings:
        status = "FAILED" if finding.status == "failed" else finding.status
        lines.append(f"  {status:<8} " + str(finding).replace("\n", "\n  "))
    return "\n".join(lines)
