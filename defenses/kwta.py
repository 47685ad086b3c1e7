"""k-Winners-Take-All in place of ReLU (Xiao, Zhong, Zheng, ICLR 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.defenses.activations.kinds import Kind, check_gamma
from bench.defenses.networks import NetworkDefense
from bench.defenses.recipes import GammaAnnealing, Natural, PGDAdversarialTraining, settings
from bench.errors import UsageError
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from bench.api import Recipe


@register_defense("kwta")
class KWTADefense(NetworkDefense):
    """A network whose activations keep the largest values of a layer, naturally trained.

    Published as robust; known to hide its gradients (Tramèr et al., NeurIPS 2020).

    Args:
        gamma: the share of units that win, in (0, 1].
        kind: which units compete, and by what: see `bench.defenses.activations.KWTA`.
        k: so many units win in place of a share; 0 for the share.
        exact: break ties by index, so that exactly k win.
        network: such as `resnet34`; the default for the data's size where it is empty.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: gamma is not in (0, 1], or k is negative.
    """

    summary = "k-Winners-Take-All activations (Xiao et al. 2020)"
    twin = "relu"

    def __init__(
        self,
        *,
        gamma: float = 0.1,
        kind: Kind = "layer",
        k: int = 0,
        exact: bool = False,
        network: str = "",
    ) -> None:
        self.use(network)
        check_gamma(gamma)
        if k < 0:
            raise UsageError(f"k has to be at least 1, or 0 for the share gamma (got {k})")
        self.gamma = gamma
        self.kind = kind
        self.k = k
        self.exact = exact

    def activation(self) -> Callable[[], nn.Module]:
        """k-WTA."""
        from bench.defenses import activations

        return functools.partial(
            activations.KWTA, self.gamma, kind=self.kind, k=self.k or None, exact=self.exact
        )

    def surrogates(
        self, *, network: str, shape: tuple[int, int, int], classes: int
    ) -> dict[str, nn.Module]:
        """See `NetworkDefense.surrogates`; nothing is kinder about winners when all units win."""
        if self.gamma >= 1 and not self.k:
            return {}
        return super().surrogates(network=network, shape=shape, classes=classes)


class _Annealed(KWTADefense):
    """k-WTA with few winners: gamma falls from that of a trained checkpoint to its own.

    Trained from the same defense with the first gamma, which has to be there already: 0.2 on
    CIFAR-10 and SVHN, 0.1 on MNIST. Parameters are those of `kwta`.

    Args:
        gamma: the last share of units that win.
        kind: which units compete, and by what: see `bench.defenses.activations.KWTA`.
        exact: break ties by index, so that exactly k win.
        network: such as `resnet34`; the default for the data's size where it is empty.
    """

    begins_as = "kwta"

    def __init__(
        self,
        *,
        gamma: float = 0.08,
        kind: Kind = "layer",
        exact: bool = False,
        network: str = "",
    ) -> None:
        super().__init__(gamma=gamma, kind=kind, exact=exact, network=network)

    def recipe(self, family: str) -> Recipe:
        """Annealing with the loss of `training`.

        Raises:
            UsageError: no settings for this family, or gamma is not below the first one.
        """
        written = f"gamma={settings(family).annealing.gamma},kind={self.kind},exact={self.exact}"
        if self._network:
            written += f",network={self._network}"
        base = self.training(family)  # type: ignore[call-arg]
        return GammaAnnealing(
            family, gamma=self.gamma, base=base, start=f"{self.begins_as}[{written}]"
        )


@register_defense("kwta-annealed")
class AnnealedKWTA(_Annealed):
    """As described in `_Annealed`, naturally trained."""

    summary = "k-Winners-Take-All with few winners, gamma annealed (Xiao et al. 2020)"
    training = Natural


@register_defense("kwta-at-annealed")
class AdversariallyAnnealedKWTA(_Annealed):
    """As described in `_Annealed`, adversarially trained by PGD."""

    summary = "k-Winners-Take-All with few winners, gamma annealed, adversarial training by PGD"
    begins_as = "kwta-at"
    twin = "relu-at"
    training = PGDAdversarialTraining
