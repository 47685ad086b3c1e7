"""Every speed that Winnow promises on a GPU, measured in one call on a machine that has one.

    python benchmarks/gpu.py --dataset parquet:PATH/cifar10-jpeg
    python benchmarks/gpu.py --figures kwta

- kwta: a ResNet-18 with k-WTA against one with ReLU, forward and backward, in float32 and in
  bfloat16 (autocast), at most 1.25 times its time; medians of rounds in turns.
- autoattack: the standard cascade at 8/255 through a whole run against pyautoattack by itself, at
  most 0.7 of its seconds.
- curve: eight epsilons in a sweep, with the checks of what it infers, against pyautoattack at each:
  at most 0.25.
- float32: what a pass of a ResNet-18 costs as a run makes it, and what other layouts and
  algorithms, which round otherwise, would save; nothing was promised of it.

autoattack and curve attack a ResNet-18 by fast adversarial training, which is trained for
`--epochs` where results/checkpoints has no weights of it, as `python -m bench train` does. Winnow
and its peer get the same weights, examples, seeds and one batch, and take turns in one process.
Each figure is printed as soon as it is measured, with the GPU, the versions and the command;
elsewhere than on a GPU nothing is measured, and that is said.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import autoattack
import kwta_speed
import torch
from measuring import parser_of, say
from torch import nn

from bench import registry
from bench.data import open_dataset
from bench.defenses.activations import KWTA
from bench.defenses.networks import build_network
from bench.models.ambient import plain_torch
from bench.record.provenance import device_name, version_of
from bench.run.devices import resolve_device
from bench.train import TrainConfig, train

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from kwta_speed import Step
    from torch import Tensor

EPSILON = "8/255"
EPSILONS = ("1/255", "2/255", "3/255", "4/255", "6/255", "8/255", "12/255", "16/255")
#: Distributions that decide speed on a GPU.
VERSIONS = ("winnow-bench", "torch", "triton", "pyautoattack")


#: Of a pass in float32: layout, cuDNN's `deterministic` and `benchmark`, and TensorFloat-32.
WAYS = {
    "as a run makes it": (torch.contiguous_format, True, False, False),
    "not deterministic": (torch.contiguous_format, False, False, False),
    "channels_last": (torch.channels_last, True, False, False),
    "channels_last, by timing, not deterministic": (torch.channels_last, False, True, False),
    "TensorFloat-32": (torch.contiguous_format, True, False, True),
    "TensorFloat-32, channels_last": (torch.channels_last, True, False, True),
}


class Figure(NamedTuple):
    """One promise, measured."""

    what: str
    """In words."""
    ratio: float
    """Of times: ours over the other's."""
    at_most: float
    """That was promised."""
    told: str
    """Both times, and what else belongs to them."""

    def __str__(self) -> str:
        """In a sentence."""
        kept = "kept" if self.ratio <= self.at_most else "MISSED"
        return f"{self.what}: {self.ratio:.3f} (at most {self.at_most}: {kept}); {self.told}"


def network_step(
    activation: Callable[[], nn.Module], device: str, dtype: torch.dtype, network: str, batch: int
) -> Step:
    """Forward and backward in training, of images of CIFAR-10's size.

    Args:
        activation: makes one of the network's.
        device: where.
        dtype: float32, or bfloat16 under autocast.
        network: its name.
        batch: examples.
    """
    torch.manual_seed(0)
    model = build_network(network, (3, 32, 32), 10, activation).to(device).train()
    model = model.to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 10
    kind, half = torch.device(device).type, dtype is torch.bfloat16

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    return step


def kwta(device: str, rounds: int, network: str = "resnet18", batch: int = 256) -> Iterator[Figure]:
    """k-WTA against ReLU, in both precisions; arguments as of `network_step`."""
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        with plain_torch(device):
            makers = (nn.ReLU, lambda: KWTA(kwta_speed.GAMMA))
            steps = [network_step(make, device, dtype, network, batch) for make in makers]
            relu, ours = kwta_speed.race(steps, torch.device(device).type, rounds)
        yield Figure(
            f"{network} with k-WTA / with ReLU, forward and backward, {name}",
            ours / relu,
            kwta_speed.GOAL,
            f"{ours:.2f} and {relu:.2f} ms, batch {batch}, median of {rounds} rounds, no TF32",
        )


def float32(device: str, rounds: int, network: str = "resnet18", batch: int = 500) -> Iterator[str]:
    """A forward pass, and one with the gradient of images; arguments as of `network_step`."""
    cudnn: Any = torch.backends.cudnn
    for way, (layout, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) in WAYS.items():
        model = build_network(network, (3, 32, 32), 10, nn.ReLU).to(device).eval()
        model = model.requires_grad_(False).to(memory_format=layout)
        x = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=layout)
        given = x.clone().requires_grad_()

        def forward(model: nn.Module = model, x: Tensor = x) -> None:
            with torch.no_grad():
                model(x)

        def backward(model: nn.Module = model, x: Tensor = given) -> None:
            torch.autograd.grad(model(x).sum(), x)

        times = kwta_speed.race([forward, backward], torch.device(device).type, rounds)
        told = f"forward {times[0]:.2f} ms, with gradient {times[1]:.2f} ms"
        yield f"{network}, {batch} images, float32, {way}: {told}"


def weights(defense: str, dataset: str, device: str, epochs: int) -> str:
    """Train a defense unless that was done before, and say how good it is."""
    data, config = open_dataset(dataset), TrainConfig(device=device, epochs=epochs)
    made = train(registry.defenses.create(defense), data, config)
    record = made.record
    how = f"trained here in {made.seconds:.0f} s" if made.seconds else "found"
    return f"{defense}, {how} ({made.path.name}): clean accuracy {record.clean_accuracy:.3f}"


def cascade(defense: str, shared: dict[str, Any]) -> Figure:
    """AutoAttack at one epsilon; arguments as of `autoattack.compare`."""
    ways = autoattack.compare(defense, {**shared, "epsilons": (EPSILON,)}, bare=False)
    ours, theirs = ways[autoattack.WINNOW], ways[autoattack.PEER]
    return Figure(
        f"AutoAttack at {EPSILON}, n = {shared['n']}, Winnow / pyautoattack",
        ours.took.seconds / theirs.took.seconds,
        0.7,
        f"{ours.took.seconds:.1f} and {theirs.took.seconds:.1f} s, {ours.took.passes:,} and "
        f"{theirs.took.passes:,} passes, robust accuracy {ours.robust[0]:.4f} and "
        f"{theirs.robust[0]:.4f}",
    )


def curve(defense: str, shared: dict[str, Any]) -> Figure:
    """Eight epsilons; arguments as of `autoattack.sweep`."""
    swept = autoattack.sweep(defense, {**shared, "epsilons": EPSILONS})
    ours, theirs = (swept.sides[name] for name in (autoattack.SWEPT, autoattack.EACH))
    shown = "; ".join(
        f"by {name} {' '.join(f'{value:.3f}' for value in values)}"
        for name, values in swept.curves.items()
    )
    return Figure(
        f"AutoAttack at eight epsilons, n = {shared['n']}, Winnow's sweep / pyautoattack at each",
        ours.seconds / theirs.seconds,
        0.25,
        f"{ours.seconds:.1f} and {theirs.seconds:.1f} s, {ours.passes:,} and {theirs.passes:,} "
        f"passes; robust accuracy {shown}; {swept.report}",
    )


def place(device: str, command: Sequence[str]) -> str:
    """What stands beside each figure: the GPU, the versions and the command."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in VERSIONS)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    libraries = f"CUDA {torch.version.cuda}, cuDNN {cudnn}"
    return f"{device_name(device)}; {versions}, {libraries}; `{shlex.join(command)}`"


def figures(arguments: argparse.Namespace, device: str) -> Iterator[Figure | str]:
    """Those asked for, in their order, each as soon as it is measured."""
    shared = {
        "dataset": arguments.dataset, "n": arguments.n, "seed": arguments.seed, "device": device,
    }  # fmt: skip
    if "kwta" in arguments.figures:
        yield from kwta(device, arguments.rounds)
    if "float32" in arguments.figures:
        with plain_torch(device):
            yield from float32(device, arguments.rounds)
    if {"autoattack", "curve"} & set(arguments.figures):
        say(weights(arguments.defense, arguments.dataset, device, arguments.epochs))
    if "autoattack" in arguments.figures:
        yield cascade(arguments.defense, shared)
    if "curve" in arguments.figures:
        yield curve(arguments.defense, shared)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each figure."""
    known = ("kwta", "float32", "autoattack", "curve")
    parser = parser_of(__doc__)
    parser.add_argument("--figures", default=",".join(known), help="of: %(default)s")
    parser.add_argument("--dataset", default="cifar10", help="images of 3×32×32")
    parser.add_argument("--defense", default="relu-fast[network=resnet18]")
    parser.add_argument("--epochs", type=int, default=10, help="of its training")
    parser.add_argument("--n", type=int, default=1000, help="examples that are attacked")
    parser.add_argument("--rounds", type=int, default=20, help="of k-WTA's timing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:1")
    parser.add_argument("--out", type=Path, help="a file that the lines are added to as well")
    arguments = parser.parse_args(argv)
    arguments.figures = arguments.figures.split(",")
    if unknown := set(arguments.figures) - set(known):
        parser.error(f"--figures are of {', '.join(known)} (got {', '.join(sorted(unknown))})")
    if not torch.cuda.is_available():
        say(f"not measured: no GPU ({', '.join(arguments.figures)})")
        return
    device = resolve_device(arguments.device)
    beside = place(
        device, ["python", "benchmarks/gpu.py", *(sys.argv[1:] if argv is None else argv)]
    )
    for figure in figures(arguments, device):
        line = f"{figure}. {beside}"
        say(line)
        if arguments.out is not None:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
