"""`list`: what is registered, and what schemes offer."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli import options
from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.api import Attack
    from bench.threat import Norm

Kind = Literal["defenses", "attacks", "suites", "data"]
#: What an approach means, in the order of the groups.
_APPROACHES = {
    "gradient": "follow the model's own gradient",
    "smoothed": "follow the gradient of a smoothed model",
    "surrogate": "follow the surrogates that a defense declares",
    "transfer": "start from another model",
    "scores": "go by outputs or decisions alone",
    "noise": "draw at random",
    "mixed": "of several kinds together",
    "imported": "found elsewhere",
    "probe": "measure for the examination, and break nothing",
}
#: Columns of a listing.
_WIDTH = 80


class _Item(dict[str, Any]):
    """One thing that can be named: `name`, `options`, `summary` and what its kind has besides."""

    def lines(self) -> list[str]:
        """Its name with its options, and below what it is."""
        written = ",".join(f"{key}={value}" for key, value in self["options"].items())
        said = self["summary"]
        if self.get("norms"):
            said += f"  ({self['access']}, {self['search']}, {' '.join(self['norms'])})"
        if self.get("aliases"):
            said += f"  also: {', '.join(self['aliases'])}"
        if self.get("members"):
            said += f": {', '.join(self['members'])}"
        wrapped = textwrap.wrap(
            said, _WIDTH - 6, break_long_words=False, break_on_hyphens=False
        )  # names stay whole
        name = self["name"] + (f"[{written}]" if written else "")
        return [f"  {name}", *(f"      {line}" for line in wrapped)]


def list_plugins(
    kind: Annotated[Kind | None, typer.Argument(help="Which of them; all where not given.")] = None,
    norm: Annotated[
        str, typer.Option(help="Only attacks that search in this norm, and what suites are in it.")
    ] = "",
    models: Annotated[
        str, typer.Option(help="List the models of a scheme, such as robustbench, instead.")
    ] = "",
    build: Annotated[
        bool,
        typer.Option("--build", help="With --models: build each without its weights, and say why."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List defenses, attacks, suites and data sets, with their options and defaults.

    Example: python -m bench list attacks --norm L2

    Names are taken in any case, and by the aliases that are listed beside them.

    `--models robustbench` lists what robustbench:NAME may be; with `--build`, what can be built on
    this machine, and why not where it cannot. Exit code 1 if some model cannot.
    """
    from bench.threat import Norm

    chosen = Norm.parse(norm) if norm else None
    if models:
        if kind or chosen or as_json:
            raise UsageError("--models lists a scheme by itself: leave the rest out")
        _list_models(models, build=build)
        return
    if build:
        raise UsageError("--build goes with --models SCHEME; without it nothing is built")
    if chosen and kind in ("defenses", "data"):
        raise UsageError(f"--norm is about attacks and suites; {kind} have none of their own")
    wanted: Iterable[Kind] = (kind,) if kind else ("defenses", "attacks", "suites", "data")
    groups = {title: items for each in wanted for title, items in _groups(each, chosen).items()}
    if as_json:
        options.print_json(groups)
        return
    for title, items in groups.items():
        options.echo(f"{title}:")
        for item in items:
            options.echo("\n".join(item.lines()))
        options.echo()


def _groups(kind: Kind, norm: Norm | None) -> dict[str, list[_Item]]:
    """The items of a kind by the title of their group; none is empty."""
    from bench import registry
    from bench.data import DATASETS

    if kind == "attacks":
        return _attacks(norm)
    if kind == "suites":
        found = [
            _Item(
                name=s.name, options={}, summary=s.summary, members=s.members(norm) if norm else []
            )
            for s in registry.suites.values()
        ]
        return {"Suites": found}
    if kind == "data":
        return {"Data sets": [_Item(name=n, options={}, summary=s) for n, s in DATASETS.items()]}
    own, others = registry.defenses.names(), registry.defenses.schemes()
    return {
        "Defenses": [_defense(name) for name in own],
        "Defenses by others, by scheme (--models SCHEME lists a scheme's)": [
            _defense(name) for name in others
        ],
    }


def _defense(name: str) -> _Item:
    from bench import registry

    cls = registry.defenses.get(name)
    full = f"{name}:{cls.argument}" if cls.argument else name
    return _Item(name=full, options=_options(cls), summary=cls.summary)


def _attacks(norm: Norm | None) -> dict[str, list[_Item]]:
    """Attacks by what they go by, strongest claims first; those of a norm where one is given."""
    from bench import registry
    from bench.registry.plugins import own_aliases

    found: dict[str, list[_Item]] = {}
    for name in [*registry.attacks.names(), *registry.attacks.schemes()]:
        cls = registry.attacks.get(name)
        if norm and norm not in cls.norms:
            continue
        item = _Item(
            name=f"{name}:{cls.argument}" if cls.argument else name,
            options=_options(cls),
            summary=cls.summary,
            access=cls.access,
            search="minimum norm" if cls.kind == "minimum" else "fixed epsilon",
            norms=sorted(map(str, cls.norms)),
            aliases=list(own_aliases(cls)),
        )
        found.setdefault(_approach(cls), []).append(item)
    return {
        f"Attacks that {said}": found[approach]
        for approach, said in _APPROACHES.items()
        if approach in found
    }


def _approach(cls: type[Attack]) -> str:
    """What an attack goes by, which needs none of its options."""
    return cls.goes_by(object.__new__(cls))


def _options(plugin: type) -> dict[str, str]:
    """Its options with their defaults, as they are written."""
    from bench.registry.grammar import parameters_of

    return {key: p.write(p.default) for key, p in sorted(parameters_of(plugin).items())}


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
