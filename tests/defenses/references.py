"""Networks written a second time from their papers, or taken from torchvision."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]
Weights = dict[str, Tensor]


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """Batch normalisation with running statistics, as the formula has it."""
    mean, variance, scale, shift = (
        w[f"{name}.{each}"].view(1, -1, 1, 1)
        for each in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def conv(x: Tensor, w: Weights, name: str, stride: int = 1) -> Tensor:
    """A convolution that keeps the size but for the stride."""
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def classify(x: Tensor, w: Weights) -> Tensor:
    """Global average pooling and the linear layer."""
    return x.mean(dim=(2, 3)) @ w["linear.weight"].T + w["linear.bias"]


def densenet_forward(x: Tensor, w: Weights, blocks: tuple[int, ...], act: Function) -> Tensor:
    """Huang et al.: each layer sees the channels of all before it, the newest first."""
    seen = [conv(x, w, "conv1")]
    for number, count in enumerate(blocks, start=1):
        for place in range(count):
            name = f"dense{number}.{place}"
            new = conv(act(norm(torch.cat(seen, 1), w, f"{name}.bn1")), w, f"{name}.conv1")
            new = conv(act(norm(new, w, f"{name}.bn2")), w, f"{name}.conv2")
            seen.insert(0, new)
        if number < len(blocks):
            name = f"trans{number}"
            halved = conv(act(norm(torch.cat(seen, 1), w, f"{name}.bn")), w, f"{name}.conv")
            seen = [F.avg_pool2d(halved, 2)]
    return classify(norm(torch.cat(seen, 1), w, "bn").relu(), w)


def wideresnet_forward(x: Tensor, w: Weights, depth: int, act: Function) -> Tensor:
    """Zagoruyko and Komodakis: x + residual(act(norm(x))), stages 2 and 3 at half the size."""
    x = conv(x, w, "conv1")
    for stage in (1, 2, 3):
        for place in range((depth - 4) // 6):
            name = f"layer{stage}.{place}"
            stride = 2 if stage > 1 and place == 0 else 1
            active = act(norm(x, w, f"{name}.bn1"))
            residual = act(norm(conv(active, w, f"{name}.conv1", stride), w, f"{name}.bn2"))
            if f"{name}.shortcut.weight" in w:
                x = conv(active, w, f"{name}.shortcut", stride)
            x = x + conv(residual, w, f"{name}.conv2")
    return classify(act(norm(x, w, "bn")), w)


def torchvision_resnet(depth: int) -> nn.Module:
    """Torchvision's, with the stem for 32x32: a 3x3 convolution of stride 1 and no pooling."""
    model: Any = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    module: nn.Module = model
    return module


def torchvision_densenet() -> nn.Module:
    """Torchvision's DenseNet-121, with a single 3x3 convolution for the stem."""
    model: Any = torchvision.models.densenet121(num_classes=10)
    model.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(model.features, name, nn.Identity())
    module: nn.Module = model
    return module


def densenet121_units() -> Iterator[int]:
    """From the paper's Table 1: channels times the square of the side, place by place."""
    channels, side = 64, 32
    for count, last in ((6, False), (12, False), (24, False), (16, True)):
        for _ in range(count):
            yield channels * side**2
            yield 128 * side**2
            channels += 32
        if not last:
            yield channels * side**2
            channels, side = channels // 2, side // 2


def wideresnet_parameters(depth: int, width: int, classes: int = 10) -> int:
    """In closed form from the paper's Table 1, stage by stage."""
    n = (depth - 4) // 6
    total = 27 * 16
    into = 16
    for wide in (16 * width, 32 * width, 64 * width):
        convolutions = 9 * into * wide + (2 * n - 1) * 9 * wide**2
        shortcut = into * wide if into != wide else 0
        total += convolutions + shortcut + 2 * into + (2 * n - 1) * 2 * wide
        into = wide
    return total + 2 * into + (into + 1) * classes
