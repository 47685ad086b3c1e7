"""`Defense`: a classifier that claims to withstand adversarial examples."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from bench.api.models import Offer, Published, Weights
    from bench.api.training import Recipe
    from bench.threat import Norm


class Defense(Plugin):
    """A classifier that claims to withstand adversarial examples.

    Raw images in [0, 1] go in and logits come out: standardisation or any other preprocessing is
    part of the module that `build` returns, so that epsilon means the same for every defense.

    Its weights are trained by Winnow or named by `--checkpoint`, unless it says in `weights` that
    it brings its own.
    """

    executes: ClassVar[bool] = False
    """Whether `build` executes a file that its name points to. Nobody but the user may ask for
    that: verifying a run, whose names come from a file, does not."""
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

    def settled(
        self, *, family: str | None, shape: tuple[int, int, int], classes: int, norm: Norm
    ) -> str:
        """The canonical name once the run is known: what the name leaves to the run, filled in.

        Args:
            family: of the data set, such as `cifar10`; None where it is of none.
            shape: (C, H, W) of one input.
            classes: the number of classes.
            norm: of the threat model.

        Raises:
            UsageError: it is not made for such data.
        """
        return self.name

    def weights(self, *, network: str, shape: tuple[int, int, int], classes: int) -> Weights | None:
        """Where its own weights are, downloaded if need be; None where it brings none.

        Not asked for where the user named a file with `--checkpoint`.

        Raises:
            CheckpointError: they are not where they have to be, and cannot be downloaded.
            UsageError: they are made for other data.
        """
        return None

    def dependencies(self) -> Mapping[str, str]:
        """What its outcomes depend on besides weights, parameters and this class.

        Such as the version of the library that holds the architecture. Stored outcomes with other
        ones are not reused.
        """
        return {}

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """From what its weights' files hold to the `state_dict` of `build`'s module.

        A single file's content as it is by default: then `state_dict`, `model` and `net` are
        looked into, and the prefix `module.` is taken off.

        Args:
            contents: of each file in turn, read without executing anything in it.
            module: made by `build`; parts of it may be loaded on the way.

        Raises:
            CheckpointError: they do not fit the module.
        """
        (content,) = contents
        return content

    def published(self, *, family: str | None, norm: Norm) -> Published | None:
        """What others published of it for this data and norm; None where nothing is known."""
        return None

    @classmethod
    def models(cls) -> Iterable[Offer]:
        """The models that a scheme offers; none where they cannot be counted."""
        return ()
