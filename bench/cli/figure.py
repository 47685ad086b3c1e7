"""`figure`: draw one, as PNG and SVG with its numbers beside it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bench.cli import options
from bench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.status import Status

    from bench.api import Examples
    from bench.data import Dataset
    from bench.figures.canvas import Destination, Drawn, Subject

app = typer.Typer(
    help="Draw a figure: PATH.png, PATH.svg, and the plotted numbers as PATH.csv.\n\n"
    "Example: python -m bench figure landscape --defense relu,kwta",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Picture = Annotated[
    Path | None,
    typer.Option(help=".png, .svg, or no ending for both (default results/figures/KIND)."),
]
Activation = Annotated[
    str, typer.Option(help="Defenses whose activations are taken, comma-separated.")
]


@app.command("activations", cls=options.Verb)
def activations(
    activation: Activation = "relu,max-pool,lwta,kwta[k=3]", out: Picture = None
) -> None:
    """Draw what competing activations leave of a small vector.

    Example: python -m bench figure activations --activation 'relu,lwta,kwta[k=3]'
    """
    with _sheet("activations", out) as sheet:
        from bench.figures.activations import apply, draw
        from bench.registry.grammar import split_names

        data = apply(split_names(activation))
        sheet.finish(data, draw(data))


@app.command("fit", cls=options.Verb)
def fit(
    activation: Activation = "relu,kwta",
    seed: Annotated[int, typer.Option(help="Of the weights.", min=0)] = 0,
    out: Picture = None,
) -> None:
    """Draw a function of one variable learnt with each activation, and count its jumps.

    Example: python -m bench figure fit --activation 'relu,kwta[gamma=0.2]'
    """
    with _sheet("fit", out) as sheet:
        from bench.figures.activations import draw_fit, fit_with
        from bench.registry.grammar import split_names

        data = fit_with(split_names(activation), seed=seed, on_progress=sheet.say)
        sheet.finish(data, draw_fit(data))


@app.command("landscape", cls=options.Verb)
def landscape(
    defense: options.Defense = "relu,kwta,relu-at,kwta-at",
    dataset: options.Dataset = "digits",
    example: Annotated[
        int, typer.Option(help="Which, counted from 0 in the order in which run takes them.", min=0)
    ] = 0,
    reach: Annotated[
        str,
        typer.Option(
            "--range", help="Linf epsilon to each side; the data set's largest where not given."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(help="From the middle to each side.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the random direction.", min=0)] = 0,
    device: options.Device = "auto",
    checkpoint: options.Checkpoint = None,
    out: Picture = None,
) -> None:
    """Draw each model's loss around an example, along its gradient's sign and at random.

    Example: python -m bench figure landscape --defense relu,kwta --example 3
    """
    with _sheet("landscape", out) as sheet:
        from bench.errors import UsageError
        from bench.figures.canvas import Walk, choose_epsilon
        from bench.figures.landscape import draw, survey

        source, examples = _examples(dataset, example + 1, fewer=True)
        if example >= len(examples):
            raise UsageError(
                f"--example has to be less than {len(examples)}, the number of examples in "
                f"{examples.name} (got {example})"
            )
        epsilon = choose_epsilon(reach, source.family, largest=True)
        subjects = _subjects(defense, dataset, examples, checkpoint, device)
        walk = Walk(epsilon, steps, seed)
        data = survey(subjects, examples, example, walk, on_progress=sheet.say)
        sheet.finish(data, draw(data))


@app.command("units", cls=options.Verb)
def units(
    defense: options.Defense = "relu,kwta,relu-at,kwta-at",
    dataset: options.Dataset = "digits",
    eps: Annotated[
        str, typer.Option(help="Linf length of the way; the data set's headline where not given.")
    ] = "",
    n: Annotated[int, typer.Option(help="Examples, the first that run takes.", min=1)] = 20,
    steps: Annotated[int, typer.Option(help="Equal parts of the way.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the random directions.", min=0)] = 0,
    device: options.Device = "auto",
    checkpoint: options.Checkpoint = None,
    out: Picture = None,
) -> None:
    """Draw how many units change between off and on on the way to a perturbed example.

    Example: python -m bench figure units --defense relu,kwta --n 50
    """
    with _sheet("units", out) as sheet:
        from bench.figures.canvas import Walk, choose_epsilon
        from bench.figures.units import draw, follow

        source, examples = _examples(dataset, n)
        epsilon = choose_epsilon(eps, source.family)
        subjects = _subjects(defense, dataset, examples, checkpoint, device)
        walk = Walk(epsilon, steps, seed)
        data = follow(subjects, examples, walk, on_progress=sheet.say)
        sheet.finish(data, draw(data))


@app.command("curve", cls=options.Verb)
def curve(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, stored or published.")],
    attacks: Annotated[
        str, typer.Option(help="Rows to draw beside the worst case, comma-separated.")
    ] = "",
    out: Picture = None,
) -> None:
    """Draw the robust accuracy of stored runs against epsilon, with 95 % intervals.

    Example: python -m bench figure curve results/runs/0123456789abcdef --attacks pgd,square
    """
    with _sheet("curve", out) as sheet:
        from bench.figures.curve import draw, trace
        from bench.record.runs import read_summary
        from bench.registry.grammar import split_names

        data = trace([read_summary(folder) for folder in runs], split_names(attacks))
        sheet.finish(data, draw(data))


@dataclass(frozen=True)
class _Sheet:
    """Where a figure goes, and a line on what is going on until it is there."""

    destination: Destination
    console: Console
    status: Status

    def say(self, text: str) -> None:
        """Show what begins: in place on a terminal, a line of its own elsewhere."""
        if self.console.is_terminal:
            self.status.update(Text(printable(f"{text} …")))  # text alone would be read as markup
        else:
            self.console.print(f"{text} …")

    def finish(self, drawn: Drawn, figure: Figure) -> None:
        """Write the figure and print where it is."""
        self.say("drawing")
        for path in self.destination.write(figure, drawn):
            options.echo(path)


@contextlib.contextmanager
def _sheet(name: str, out: Path | None) -> Iterator[_Sheet]:
    from bench.figures.canvas import Destination

    destination, console = Destination.of(out or Path("results/figures") / name), options.notes()
    with options.interruptible("nothing is written"), console.status("loading …") as status:
        sheet = _Sheet(destination, console, status)
        sheet.say("loading")
        yield sheet


def _examples(dataset: str, n: int, *, fewer: bool = False) -> tuple[Dataset, Examples]:
    """A data set, and the first `n` of its test split in the order in which `run` takes them."""
    from bench.data import open_dataset

    source = open_dataset(dataset)
    return source, source.choose("test", n, fewer=fewer)


def _subjects(
    defense: str, dataset: str, examples: Examples, checkpoint: list[str] | None, device: str
) -> list[Subject]:
    """The models that options name."""
    from bench.figures.canvas import load_subjects
    from bench.registry.grammar import split_names
    from bench.run.devices import resolve_device

    given = options.parse_checkpoints(checkpoint)
    return load_subjects(split_names(defense), dataset, examples, given, resolve_device(device))
