"""Modules as people bring them: each answers as `Sum` does, by ways of its own, or not at all."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = linear_examples()


def linear() -> nn.Sequential:
    """`Sum` as a network of plain layers."""
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 16))
        layer.bias.copy_(torch.tensor([8.0, -8.0]))
    return nn.Sequential(nn.Flatten(), layer)


class InPlace(Sum):
    """Standardises the caller's own memory, by the whole tensor and by a view of it."""

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        x.sub_(0.5)
        x.view(len(x), -1).mul_(2.0)
        x[:, :, 0].add_(0.0)
        return super().forward(x / 2 + 0.5)


class Rectified(nn.Module):
    """Its first layer rectifies in place, which changes nothing of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(inplace=True), Sum())

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        out: Tensor = self.layers(x)
        return out


class OwnBuffer(Sum):
    """Answers in one buffer, which the next answer overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = torch.zeros(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        """A view of the buffer."""
        self.answers = self.answers.detach()
        self.answers[: len(x)] = super().forward(x)
        return self.answers[: len(x)]


class Spoiling(Sum):
    """Keeps what it returned, and zeroes that the next time."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        if self.last is not None:
            self.last.data.zero_()
        self.last = super().forward(x)
        return self.last


class Activation(Sum):
    """Keeps an activation, as Grad-CAM does; it was called before."""

    def __init__(self) -> None:
        super().__init__()
        self(EXAMPLES.inputs)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        self.kept = {"last": super().forward(x)}
        return self.kept["last"]


class Locked(Sum):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.inside = threading.Lock(), {"lock": threading.Lock()}
        self.rows, self.function = (i for i in range(3)), lambda x: x
        self.generator = torch.Generator()


class Uncopied(Sum):
    """Refuses to be copied."""

    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("there is one of me")


class OfEight(Sum):
    """Was exported for batches of eight."""

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        return super().forward(x.view(8, 1, 4, 4))


class OfFourInOneBuffer(OwnBuffer):
    """Takes batches of four, and overwrites each answer by the next."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = torch.zeros(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The buffer itself."""
        return super().forward(x.view(4, 1, 4, 4))


class Sized(Sum):
    """Takes the batch sizes that a check says."""

    def __init__(self, check: Callable[[int], bool]) -> None:
        super().__init__()
        self.check = check

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        if not self.check(len(x)):
            raise ValueError("another batch size was expected")
        return super().forward(x)


class Mixed(Sum):
    """Has weights in float64, and makes a tensor of its own in a dtype."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.own = dtype
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        logits = super().forward(x.to(self.scale.dtype))
        return logits @ torch.eye(2, dtype=self.own)


class SparseWeights(Sum):
    """Has weights that are mostly not there."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Buffer(torch.eye(2).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        out: Tensor = torch.sparse.mm(self.weights, super().forward(x).T)
        return out.T


class OwnStatistics(nn.Module):
    """Normalises by the statistics of the batch, which one image does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.sum = nn.BatchNorm1d(16, track_running_stats=False), Sum()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, 2)."""
        out: Tensor = self.sum(self.norm(x.flatten(1)).reshape(x.shape))
        return out


class Layout(Sum):
    """Takes what a check says and nothing else."""

    def __init__(self, check: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.check = check

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`, or an error."""
        if not self.check(x):
            raise ValueError("another layout\nwas expected")
        return super().forward(x)


def weight_normed() -> nn.Module:
    """With the older weight norm, whose weight is the result of a computation."""
    model = linear()
    with warnings.catch_warnings(action="ignore"):
        nn.utils.weight_norm(model[1])
    model(EXAMPLES.inputs)
    return model


def parametrized() -> nn.Module:
    """With the newer one."""
    model = linear()
    nn.utils.parametrizations.weight_norm(model[1])
    return model


def of_inference_mode() -> nn.Module:
    """Its weights are tensors of inference mode."""
    with torch.inference_mode():
        return Sum()


def exported() -> nn.Module:
    """For batches of eight."""
    return torch.export.export(linear(), (EXAMPLES.inputs[:8],)).module()


def traced() -> nn.Module:
    """TorchScript, by three images."""
    made: nn.Module = torch.jit.trace(linear(), EXAMPLES.inputs[:3])  # type: ignore[no-untyped-call]
    return made


class Trained(Sum):
    """`Sum` in eval mode, and another model in training: normalised by its batch, half dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=0, affine=False)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum`."""
        logits: Tensor = super().forward(self.drop(self.norm(x))) * self.scale
        return logits


class Calling(nn.Module):
    """Calls what it has not registered."""

    def __init__(self, function: Callable[[Tensor], Tensor] | list[nn.Module]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Whatever it says."""
        return self.function[0](x) if isinstance(self.function, list) else self.function(x)


def patched(net: nn.Module) -> nn.Module:
    """A module whose `forward` calls another one's."""
    module = Calling(lambda x: x)
    vars(module)["forward"] = lambda x: net(x)
    return module


def hooked(net: nn.Module) -> nn.Module:
    """A module whose answer a hook replaces by that of another."""
    module = nn.Identity()
    module.register_forward_hook(lambda _, inputs, __: net(inputs[0]))
    return module


def of_a_global(net: nn.Module) -> nn.Module:
    """As a notebook's cell calls what another cell defined."""
    names: dict[str, Any] = {"net": net, "__name__": "__main__"}
    exec("def call(x):\n    return net(x)\n", names)
    return Calling(names["call"])
