"""The libraries that Winnow drives, called as their own examples call them; and their passes."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from measuring import Side, timed
from torch import nn

from bench.matrix.tasks import shard_seed
from bench.models.ambient import plain_torch
from bench.record.schema import Cell
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bench.api import Attack
    from bench.run.prepare import Prepared


def alone(defense: str, attacks: str, *, n: int, **more: Any) -> Prepared:
    """A run of one defense in this process, all examples in one shard.

    Args:
        defense: its name.
        attacks: their names.
        n: examples.
        more: of `RunConfig`.
    """
    return prepare(
        RunConfig(
            defenses=(defense,),
            attacks=attacks,
            n=n,
            shard_size=n,
            workers=0,
            twins=False,
            **more,
        )
    )


class Counting(nn.Module):
    """A module and a note of each of its batches: `[rows, backward passes that followed]`.

    It counts where logits are left, apart from how `bench.models.counted` does, and costs next to
    nothing.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.batches: list[list[int]] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.module(x)
        batch = [len(x), 0]
        self.batches.append(batch)
        if logits.requires_grad:
            logits.register_hook(functools.partial(_note, batch))  # type: ignore[no-untyped-call]
        return logits

    @property
    def forwards(self) -> int:
        """Of all examples together."""
        return sum(rows for rows, _ in self.batches)

    @property
    def backwards(self) -> int:
        """Of all examples together."""
        return sum(rows * times for rows, times in self.batches)

    @property
    def passes(self) -> int:
        """Forwards and backwards."""
        return self.forwards + self.backwards


def _note(batch: list[int], _: Tensor) -> None:
    batch[1] += 1


def replay(module: nn.Module, inputs: Tensor, batches: Sequence[Sequence[int]]) -> None:
    """Make the passes that a `Counting` noted again, and nothing else.

    Args:
        module: any.
        inputs: as many as the largest batch, or more.
        batches: as noted.
    """
    for rows, times in batches:
        x = inputs[:rows].clone().requires_grad_(times > 0)
        with torch.set_grad_enabled(times > 0):
            logits = module(x)
        for left in reversed(range(times)):
            torch.autograd.grad(logits.sum(), x, retain_graph=left > 0)
    if inputs.is_cuda:
        torch.cuda.synchronize()


def foolbox_attack(attack: Attack) -> Any:
    """Foolbox's own attack in Linf with the parameters of Winnow's of this name.

    Raises:
        ValueError: an attack that is not compared.
    """
    import foolbox

    match attack.name.partition("[")[0]:
        case "fgsm":
            return foolbox.attacks.LinfFastGradientAttack()
        case "pgd":
            return foolbox.attacks.LinfPGD(
                steps=attack.parameters.get("steps", 40),
                rel_stepsize=attack.parameters.get("rel_stepsize", 0.1),
                random_start=True,
            )
        case "fmn":
            return foolbox.attacks.LInfFMNAttack(steps=attack.parameters.get("steps", 100))
    raise ValueError(f"no peer for {attack.name!r}; there are fgsm, pgd and fmn of Foolbox")


def by_foolbox(
    attack: Attack,
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[float],
    seed: int,
) -> Tensor:
    """Where Foolbox says that it found an adversarial example: bool, (epsilons, N)."""
    import foolbox

    with plain_torch(seed=seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its own use of NumPy
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device=inputs.device)
        _, _, success = foolbox_attack(attack)(model, inputs, labels, epsilons=list(epsilons))
    found: Tensor = success
    return found


def by_autoattack(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    seed: int,
    row: Attack | None = None,
) -> Tensor:
    """Where pyautoattack says that its standard version, in Linf, left the model right: bool, (N,).

    Args:
        module: to attack.
        inputs: all in one batch.
        labels: of the inputs.
        epsilon: the radius.
        seed: of each of its attacks.
        row: Winnow's row of that attack of its, which runs alone; the whole version where None.
    """
    members = None if row is None else [row.name.partition("[")[0]]
    queries = 0 if row is None else int(row.parameters.get("queries", 0))
    return by_pyautoattack(
        module, inputs, labels, norm=Norm.LINF, epsilon=epsilon, seed=seed, members=members,
        queries=queries,
    )  # fmt: skip


def by_pyautoattack(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    seed: int,
    members: list[str] | None = None,
    queries: int = 0,
) -> Tensor:
    """In any norm, all of its attacks or some.

    Args:
        module: to attack.
        inputs: all in one batch.
        labels: of the inputs.
        norm: of the ball.
        epsilon: the radius.
        seed: of each of its attacks.
        members: the names of those that run; all of the standard version where None.
        queries: of Square, where they are not those of the standard version (0).
    """
    import pyautoattack

    with plain_torch(seed=seed):
        adversary = pyautoattack.AutoAttack(
            module, norm=norm.value, eps=epsilon, seed=seed, device=inputs.device
        )
        adversary.attacks_to_run = members or adversary.attacks_to_run
        adversary.square.n_queries = queries or adversary.square.n_queries
        _, predicted = adversary.run_standard_evaluation(inputs, labels, batch_size=len(inputs))
    robust: Tensor = predicted == labels
    return robust


class Cascade(NamedTuple):
    """What AutoAttack by itself took and found."""

    took: Side
    robust: list[bool]
    """Which examples it left right."""
    again: Callable[[], None]
    """Makes its passes again in the same batches, and nothing else."""


def cascade(prepared: Prepared, place: int = 0, only: slice = slice(None)) -> Cascade:
    """AutoAttack by itself, from the seed that the shard of such a run has.

    Args:
        prepared: of one defense and one shard (`alone`).
        place: which of its epsilons.
        only: which of its examples.
    """
    setting, examples = prepared.setting, prepared.examples
    epsilon = setting.epsilons[place]
    cell = Cell(attack="autoattack", epsilon=epsilon.text)
    module = prepared.contenders[0].load().to(prepared.device)
    model = Counting(module)
    inputs, labels = (part[only].to(prepared.device) for part in (examples.inputs, examples.labels))
    robust, spent = timed(
        lambda: by_autoattack(
            model,
            inputs,
            labels,
            epsilon=float(epsilon),
            seed=shard_seed(setting.seed, cell, setting.norm, epsilon, 0),
        )
    )
    took = Side(model.forwards, model.backwards, spent.on(prepared.device))
    return Cascade(took, robust.tolist(), lambda: replay(module, inputs, model.batches))
