"""`new-defense` and `new-attack`: a plugin to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.scaffold import Kind

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


def _new(kind: Kind, name: str, *, package: bool, force: bool) -> None:
    from bench.scaffold import command_of, new_file, new_package

    written = (new_package if package else new_file)(kind, name, force=force)
    typer.echo(f"wrote:    {written}{'/' if package else ''}")
    if package:
        typer.echo(f"install:  pip install -e {written}")
    typer.echo(f"run it:   python -m bench run {command_of(kind, name)}")
    typer.echo(f"check it: python -m bench check {name}")
