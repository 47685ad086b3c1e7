"""An attack on small models: what it was given, and what it did. `attack_rules` looks at it."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.api import Cost, Problem, Proposal
from bench.models.ambient import plain_torch
from bench.models.condition import Condition
from bench.models.counted import CountedModel
from bench.testing.conformance import NotApplicableError
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Attack

SHAPE, CLASSES, PIXELS = (1, 6, 6), 4, 36
#: Examples that are attacked, and the seed of the attack.
COUNT, SEED = 4, 7
EPSILONS = {Norm.LINF: "0.15", Norm.L2: "0.8", Norm.L1: "3"}
#: How many epsilons away the nearest adversarial example of the robust model lies.
FAR = 1.5


class AttackSubject:
    """An attack, and what became of it on two small models.

    Args:
        name: as written.
        device: where it attacks.

    Raises:
        UsageError: there is no such attack, or it does not take these options.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self.plugin = self.create()
        self._trials: dict[tuple[Norm, bool, int], Trial] = {}

    def create(self) -> Attack:
        """A new instance."""
        return registry.attacks.create(self.name)

    @functools.cached_property
    def norms(self) -> list[Norm]:
        """Those it searches in and can run in here, Linf first."""
        reasons = {
            norm: self.plugin.why_not(norm=norm, shape=SHAPE, classes=CLASSES)
            for norm in (Norm.LINF, Norm.L2, Norm.L1)
            if norm in self.plugin.norms
        }
        able = [norm for norm, reason in reasons.items() if reason is None]
        if not able:
            raise NotApplicableError(next(iter(reasons.values()), None) or "it has no norm")
        return able

    def trial(self, norm: Norm | None = None, *, robust: bool = False, count: int = COUNT) -> Trial:
        """One run; each is done once.

        Raises:
            NotApplicableError: it cannot run here, or raised; see `runs`.
        """
        key = (norm or self.norms[0], robust, count)
        if key not in self._trials:
            self._trials[key] = attempt(self.plugin, *key, self.device)
        if self._trials[key].error:
            raise NotApplicableError(f"run() raised {self._trials[key].error}")
        return self._trials[key]

    def attempts(self) -> list[tuple[str, Callable[[], Trial]]]:
        """Everything that it is tried on, each with what it is called."""
        first, *others = self.norms
        tries: list[tuple[str, Callable[[], Trial]]] = [
            (f"in {first}", lambda: self.trial()),
            (f"in {first} on examples that cannot be broken", lambda: self.trial(robust=True)),
            (f"in {first} on one example", lambda: self.trial(count=1)),
        ]
        for norm in others:
            tries.append((f"in {norm}", functools.partial(self.trial, norm)))
        return tries

    def done(self) -> list[tuple[str, Trial]]:
        """The trials that ran.

        Raises:
            NotApplicableError: none did.
        """
        found, reason = [], ""
        for where, trial in self.attempts():
            try:
                found.append((where, trial()))
            except NotApplicableError as error:
                reason = str(error)
        if not found:
            raise NotApplicableError(reason)
        return found


@dataclass
class Trial:
    """What an attack was given, and what it did."""

    problem: Problem
    inputs: Tensor
    """A copy of the inputs, as they were given."""
    labels: Tensor
    """A copy of the labels."""
    model: nn.Module
    """A copy of the model, as it was given."""
    logits: Tensor
    """What the model answered to the inputs, before."""
    condition: Condition
    """Of the model, before."""
    settings: dict[str, Any]
    """Of the process, before."""
    after: dict[str, Any]
    """The same, after."""
    proposal: Any = None
    error: str = ""
    """What it raised."""
    passes: Cost = field(default_factory=lambda: Cost(0))
    """Counted, all examples together."""

    def inside(self) -> Tensor:
        """Which candidates are in ball and box, or for minimum-norm attacks in the box; bool."""
        candidates: Tensor = self.proposal.candidates
        if self.problem.epsilon is None:
            return ((candidates >= 0) & (candidates <= 1)).flatten(1).all(dim=1)
        threat = ThreatModel(self.problem.norm, Epsilon.parse(self.problem.epsilon))
        return threat.contains(self.inputs, candidates)

    def wrong(self) -> Tensor:
        """Which candidates the model, as it was given, gets wrong; bool."""
        with torch.no_grad():
            logits: Tensor = self.model(self.proposal.candidates.float())
        return logits.argmax(dim=1) != self.labels


def attempt(
    attack: Attack, norm: Norm, robust: bool, count: int, device: str = "cpu", seed: int = SEED
) -> Trial:
    """Run an attack as the matrix does."""
    make = robust_world if robust else network_world
    (module, inputs, labels), (copy, _, _), (other, _, _) = make(norm), make(norm), make(norm)
    inputs, labels = inputs[:count].clone().to(device), labels[:count].clone().to(device)
    model, helper = (CountedModel(each, CLASSES, None, device) for each in (module, other))
    logits = answers(model, inputs)
    model.reset_counts()
    condition = Condition.of(module)
    problem = Problem(
        model=model,
        inputs=inputs.clone(),
        labels=labels.clone(),
        norm=norm,
        epsilon=float(EPSILONS[norm]) if attack.kind == "fixed" else None,
        classes=CLASSES,
        seed=seed,
        surrogates={"first": helper} if attack.needs == "surrogates" else {},
        source=helper if attack.needs == "source" else None,
    )
    proposal, error, before = None, "", _settings()
    with plain_torch(seed=seed):
        try:
            proposal = attack.run(problem)
        except Exception as raised:  # noqa: BLE001 - a plugin may raise anything
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        after = _settings()
    for name, value in before.items():
        _SETTINGS[name][1](value)
    if proposal is not None and isinstance(getattr(proposal, "candidates", None), Tensor):
        proposal = Proposal(proposal.candidates.clone(), proposal.flags, proposal.extra)
    passes = model.passes + helper.passes
    return Trial(
        problem, inputs, labels, copy.to(device).eval(), logits, condition, before, after, proposal,
        error, passes,
    )  # fmt: skip


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """What a model says of a copy of the inputs."""
    with torch.no_grad():
        logits: Tensor = model(inputs.clone())
    return logits


def rows_together(attack: Attack, norm: Norm, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Candidates for some examples at two epsilons: in one batch, and one after another.

    The model computes in float64, so that no batch changes what it answers. (2 N, C, H, W) each,
    the epsilons one after another.
    """
    module, inputs, labels = robust_world(norm)
    model = CountedModel(_Double(module), CLASSES, None, device)
    radii = torch.full((COUNT,), float(EPSILONS[norm]), dtype=torch.float64, device=device)
    whole = Problem(
        model=model, inputs=inputs.to(device), labels=labels.to(device), norm=norm, epsilon=None,
        classes=CLASSES, seed=SEED, surrogates={"first": model}, source=model,
        examples=torch.arange(COUNT, device=device), epsilons=radii,
    )  # fmt: skip
    assert whole.epsilons is not None
    found = []
    with plain_torch(seed=SEED):
        for times in (1, 2 * FAR):
            alone = dataclasses.replace(whole, epsilons=times * whole.epsilons)
            found.append(attack.run(alone.of_its_own()).candidates)
    both = whole.part(torch.arange(2 * COUNT) % COUNT)
    assert both.epsilons is not None
    both.epsilons[COUNT:] *= 2 * FAR
    order = torch.arange(2 * COUNT).flip(0)
    with plain_torch(seed=SEED):
        together = attack.run(both.part(order)).candidates
    return together.flip(0), torch.cat(found)


class _Double(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x.double())
        return logits.float()


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms,
    ),
}  # fmt: skip


def _settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _SETTINGS.items()}


World = tuple[nn.Module, Tensor, Tensor]


def network_world(norm: Norm) -> World:
    """An untrained network, inputs with many black and white pixels, and what it says of them."""
    generator = torch.Generator().manual_seed(3)
    inputs = (1.6 * torch.rand(COUNT, *SHAPE, generator=generator) - 0.3).clamp(0, 1)
    with plain_torch(seed=1):
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * PIXELS, CLASSES)
        )
    with torch.no_grad():
        module[3].bias -= module(inputs).mean(dim=0)
        labels = module(inputs).argmax(dim=1)
    return module, inputs, labels


def robust_world(norm: Norm) -> World:
    """A linear model whose nearest adversarial examples lie at 1.5 times epsilon.

    The distance to the border with class j is the margin over the dual norm of the difference of
    the weights, which sets the bias of class 0, the label of all.
    """
    generator = torch.Generator().manual_seed(5)
    inputs = 0.5 + 0.05 * torch.randn(COUNT, *SHAPE, generator=generator)
    weights = torch.randn(CLASSES, PIXELS, generator=generator) / PIXELS
    order = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: float("inf")}[norm]
    linear = nn.Linear(PIXELS, CLASSES)
    difference = weights[0] - weights[1:]
    needed = FAR * float(EPSILONS[norm]) * torch.linalg.vector_norm(difference, order, dim=1)
    bias = (needed - inputs.flatten(1) @ difference.T).max()
    with torch.no_grad():
        linear.weight.copy_(weights)
        linear.bias.copy_(torch.tensor([float(bias)] + [0.0] * (CLASSES - 1)))
    return nn.Sequential(nn.Flatten(), linear), inputs, torch.zeros(COUNT, dtype=torch.long)
