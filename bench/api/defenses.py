"""`Defense`: a classifier that claims to withstand adversarial examples."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from bench.api.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from bench.api.training import Recipe


class Defense(Plugin):
    """A classifier that claims to withstand adversarial examples.

    Raw images in [0, 1] go in and logits come out: standardisation or any other preprocessing is
    part of the module that `build` returns, so that epsilon means the same for every defense.
    """

    twin: str | None = None
    """The same architecture and training with ReLU, the control it is compared with: a canonical
    name."""
    weights_of: str | None = None
    """The defense, as written, whose weights it takes where it has none of its own: for one that
    is put around a network that was trained without it. The names in its `state_dict` have to be
    the same."""

    @abstractmethod
    def network(self, *, shape: tuple[int, int, int]) -> str:
        """The architecture used for inputs of this shape, as in tables and checkpoints.

        Raises:
            UsageError: there is none for this shape.
        """

    @abstractmethod
    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A new module with untrained weights.

        Args:
            network: what `network` returned.
            shape: (C, H, W) of one input.
            classes: the number of logits.

        Returns:
            A module from float32 (N, C, H, W) in [0, 1] to logits (N, classes). Weights are loaded
            into it by its `state_dict`, it is put in eval mode, and its parameters are frozen.
        """

    def surrogates(
        self, *, network: str, shape: tuple[int, int, int], classes: int
    ) -> dict[str, nn.Module]:
        """Modules that answer as `build`'s does and have kinder gradients (BPDA).

        Backward-pass differentiable approximation (Athalye et al., ICML 2018): what makes a
        defense's gradient useless is replaced in the backward pass alone. Each module, by a short
        name, takes the same `state_dict`, and its logits have to equal those of `build`'s bit for
        bit; attacks search with its gradients. None by default.
        """
        return {}

    def activation(self) -> Callable[[], nn.Module] | None:
        """What makes the activation function that the defense lies in; None where there is none.

        Only figures ask for it, to draw the activation by itself.
        """
        return None

    def recipe(self, family: str) -> Recipe | None:
        """How to train it on a data set of this family (`digits`, `mnist`, `cifar10`, …).

        None means that Winnow cannot train it: its weights come from `--checkpoint`.
        """
        return None
