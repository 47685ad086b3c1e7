"""k-WTA's speed beside ReLU's and that of plain `torch.topk`, layer by layer and in a network.

    python benchmarks/kwta_speed.py

Forward and backward, on the CPU and on a GPU where there is one. Contestants take turns in one
process, and a figure is the median over the rounds, so that a busy machine slows all alike.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from measuring import parser_of, say, surroundings
from torch import Tensor, nn

from bench.defenses.activations import KWTA
from bench.defenses.networks import build_network
from bench.models.ambient import plain_torch
from bench.record.provenance import version_of
from bench.report.writing import table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Step = Callable[[], None]

#: (C, H, W) where the four stages of a ResNet-18 on 32x32 images are activated.
LAYERS = ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4))
GAMMA = 0.1
#: k-WTA ResNet-18 to ReLU ResNet-18 on a GPU, at most.
GOAL = 1.25

NAMES = ("ReLU", "k-WTA", "torch.topk")


class Topk(nn.Module):
    """k-WTA of a layer as one writes it first: the values of a sorted `torch.topk`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to (N, C, H, W)."""
        k = max(1, int(GAMMA * x[0].numel()))
        kth = x.detach().flatten(1).topk(k).values[:, -1]
        return torch.where(x >= kth[:, None, None, None], x, 0)


def activations() -> tuple[Callable[[], nn.Module], ...]:
    """What makes each contestant, in the order of NAMES."""
    return nn.ReLU, lambda: KWTA(GAMMA), Topk


def layer_step(module: nn.Module, x: Tensor) -> Step:
    """Forward and backward of one activation."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    incoming = torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(module(x), x, incoming)

    return step


def network_step(activation: Callable[[], nn.Module], device: str) -> Step:
    """Forward and backward in training: ResNet-10 of width 16, on a GPU ResNet-18 in bfloat16."""
    gpu = device == "cuda"
    torch.manual_seed(0)
    name, n = ("resnet18", 256) if gpu else ("resnet10w16", 32)
    layout = torch.channels_last if gpu else torch.contiguous_format
    model = build_network(name, (3, 32, 32), 10, activation)
    model = model.to(device).to(memory_format=layout).train()
    x = torch.rand(n, 3, 32, 32, device=device).to(memory_format=layout)
    labels = torch.arange(n, device=device) % 10

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    return step


def milliseconds(step: Step, device: str) -> float:
    """One run of a step, to its end on the GPU."""
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        begin.record()
        step()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))
    began = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - began)


def race(steps: list[Step], device: str, rounds: int) -> list[float]:
    """The median of each in milliseconds, after two rounds to warm up."""
    taken = [[milliseconds(step, device) for step in steps] for _ in range(rounds + 2)][2:]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def contest(device: str, rounds: int) -> str:
    """A table of forward and backward on one device, and in a sentence how k-WTA stands."""
    gpu = device == "cuda"
    lines, lost = [], []
    for shape in (*LAYERS, None):
        if shape is None:
            label, steps = "whole network", [network_step(make, device) for make in activations()]
        else:
            label = "×".join(map(str, shape))
            x = torch.randn(32, *shape, device=device, dtype=torch.bfloat16 if gpu else None)
            x = x.to(memory_format=torch.channels_last if gpu else torch.contiguous_format)
            steps = [layer_step(make(), x) for make in activations()]
        relu, ours, topk = race(steps, device, rounds)
        lost += [label] * (ours > topk)
        figures = (relu, ours, topk, ours / relu, ours / topk)
        lines.append([label, *(f"{figure:.2f}" for figure in figures)])
    header = ["layer", *(f"{name} (ms)" for name in NAMES), "k-WTA / ReLU", "k-WTA / topk"]
    said = f"{device}: k-WTA is slower than torch.topk: {', '.join(lost) or 'nowhere'}."
    if gpu:
        kept = "kept" if ours <= GOAL * relu else "MISSED"
        said += f" Goal of at most {GOAL} times a ReLU network: {kept} ({ours / relu:.2f})."
    about = (
        "bfloat16, channels_last; network: ResNet-18, batch 256; layers: batch 32"
        if gpu
        else "float32, batch 32; network: ResNet-10 of width 16"
    )
    return f"{table(header, lines, text=frozenset({'layer'}))}\n\n{said} {about}."


def main(argv: Sequence[str] | None = None) -> None:
    """Time k-WTA against ReLU and torch.topk, forward and backward."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed, of each contest")
    rounds = parser.parse_args(argv).rounds
    with plain_torch("cpu"):  # one thread, as in a run
        say(contest("cpu", rounds) + "\n")
    gpu = torch.cuda.is_available()
    say(contest("cuda", rounds) if gpu else "cuda: not measured, there is no GPU here.")
    facts = {"gamma": GAMMA, "rounds": rounds, "triton": version_of("triton")}
    told = surroundings("cuda" if gpu else "cpu", **facts)
    say(f"\n{told} Forward and backward, medians of rounds in turns.")


if __name__ == "__main__":
    main()
