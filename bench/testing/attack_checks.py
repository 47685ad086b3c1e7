"""What an attack has to keep, check by check: `CHECKS` is the list."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.api import Cost, Problem, Proposal
from bench.errors import AttackError
from bench.grammar import Written, parameters_of
from bench.matrix.isolation import isolated_generators
from bench.matrix.judge import check_candidates
from bench.matrix.model import CountedModel
from bench.record.checkpoints import weights_digest
from bench.testing.conformance import Check, NotApplicableError
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

    Raises:
        UsageError: there is no such attack, or it does not take these options.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.plugin: Attack = registry.attacks.create(name)
        self._trials: dict[tuple[Norm, bool, int], Trial] = {}

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

    def trial(
        self, norm: Norm | None = None, *, robust: bool = False, count: int = COUNT
    ) -> Trial:
        """One run; each is done once.

        Raises:
            NotApplicableError: it cannot run here, or raised; see `runs`.
        """
        key = (norm or self.norms[0], robust, count)
        if key not in self._trials:
            self._trials[key] = attempt(self.plugin, *key)
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
    settings: dict[str, Any]
    """Of the process, before."""
    after: dict[str, Any]
    """The same, after."""
    proposal: Any = None
    error: str = ""
    """What it raised."""
    passes: Cost = Cost(0)
    """Counted, all examples together."""

    def inside(self) -> Tensor:
        """Which candidates are in ball and box, or for minimum-norm attacks in the box; bool."""
        candidates = self.proposal.candidates
        if self.problem.epsilon is None:
            return ((candidates >= 0) & (candidates <= 1)).flatten(1).all(dim=1)
        threat = ThreatModel(self.problem.norm, Epsilon.parse(self.problem.epsilon))
        return threat.contains(self.inputs, candidates)

    def wrong(self) -> Tensor:
        """Which candidates the model, as it was given, gets wrong; bool."""
        with torch.no_grad():
            logits = self.model(self.proposal.candidates.float())
        return logits.argmax(dim=1) != self.labels


def attempt(attack: Attack, norm: Norm, robust: bool, count: int) -> Trial:  # noqa: FBT001
    """Run an attack as the matrix does."""
    make = robust_world if robust else network_world
    (module, inputs, labels), (copy, _, _) = make(norm), make(norm)
    inputs, labels = inputs[:count].clone(), labels[:count].clone()
    model = CountedModel(module, CLASSES, None, "cpu")
    problem = Problem(
        model=model,
        inputs=inputs.clone(),
        labels=labels.clone(),
        norm=norm,
        epsilon=float(EPSILONS[norm]) if attack.kind == "fixed" else None,
        classes=CLASSES,
        seed=SEED,
        surrogates={"first": model} if attack.needs == "surrogates" else {},
        source=model if attack.needs == "source" else None,
    )
    proposal, error, before = None, "", _settings()
    with isolated_generators(SEED):
        try:
            proposal = attack.run(problem)
        except Exception as raised:  # noqa: BLE001 - a plugin may raise anything
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        after = _settings()
    for name, value in before.items():
        _SETTINGS[name][1](value)
    if proposal is not None and isinstance(getattr(proposal, "candidates", None), Tensor):
        proposal = Proposal(proposal.candidates.clone(), proposal.flags, proposal.extra)
    passes = model.passes
    return Trial(
        problem, inputs, labels, copy.eval(), before, after, proposal, error, passes
    )


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
    with isolated_generators(1):
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
    module = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES))
    difference = weights[0] - weights[1:]
    needed = FAR * float(EPSILONS[norm]) * torch.linalg.vector_norm(difference, order, dim=1)
    bias = (needed - inputs.flatten(1) @ difference.T).max()
    with torch.no_grad():
        module[1].weight.copy_(weights)
        module[1].bias.copy_(torch.tensor([float(bias)] + [0.0] * (CLASSES - 1)))
    return module, inputs, torch.zeros(COUNT, dtype=torch.long)


def _name(subject: AttackSubject) -> str | None:
    plugin = subject.plugin
    again = registry.attacks.create(plugin.name)
    if (again.name, again.parameters) != (plugin.name, plugin.parameters):
        return f"{plugin.name!r} is read back as {again.name!r}, with {again.parameters}"
    bare = Written.parse(plugin.name).name
    for key, parameter in parameters_of(type(plugin)).items():
        if parameter.default == "":
            continue
        written = f"{bare}[{key}={parameter.write(parameter.default)}]"
        if (found := registry.attacks.create(written).name) != bare:
            return f"{written!r}, its default written out, is read as {found!r}"
    return None


def _norms(subject: AttackSubject) -> str | None:
    for norm in Norm:
        said = subject.plugin.why_not(norm=norm, shape=SHAPE, classes=CLASSES)
        if said is not None and not (isinstance(said, str) and said.strip()):
            return f"why_not says {said!r} of {norm}, which is no reason"
        if subject.plugin.kind == "fixed" and norm not in subject.plugin.norms and said is None:
            return f"it does not search in {norm}, and why_not says nothing about it"
    return None


def _runs(subject: AttackSubject) -> str | None:
    subject.norms  # noqa: B018 - or there is nothing to look at
    for where, trial in subject.attempts():
        try:
            proposal = trial().proposal
        except NotApplicableError as error:
            return f"{where}: {error}"
        if not isinstance(proposal, Proposal):
            return f"{where}: run() returned {type(proposal).__name__}"
    return None


def _proposal(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        candidates = trial.proposal.candidates
        try:
            check_candidates(candidates, trial.inputs)
        except AttackError as error:
            return f"{where}: {error}"
        if not bool(candidates.isfinite().all()):
            return f"{where}: candidates contain NaN or infinity"
        if candidates.requires_grad:
            return f"{where}: candidates carry a graph"
        for key, values in trial.proposal.extra.items():
            if len(values) != len(candidates):
                return f"{where}: extra[{key!r}] has {len(values)} values for {len(candidates)}"
    return None


def _usable(subject: AttackSubject) -> list[tuple[str, Trial]]:
    """The trials whose candidates can be judged."""
    if _proposal(subject):
        raise NotApplicableError("its candidates cannot be judged")
    return subject.done()


def _problem_unchanged(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        if not torch.equal(trial.problem.inputs, trial.inputs):
            return f"{where}: it changed problem.inputs in place"
        if not torch.equal(trial.problem.labels, trial.labels):
            return f"{where}: it changed problem.labels in place"
    return None


def _model_unchanged(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        module = trial.problem.model.module
        assert isinstance(module, nn.Module)
        if weights_digest(module) != weights_digest(trial.model):
            return f"{where}: it changed the model's weights"
        if any(m.training for m in trial.problem.model.modules()):
            return f"{where}: it left the model in training mode"
        if any(parameter.requires_grad for parameter in module.parameters()):
            return f"{where}: it left parameters that require gradients"
    return None


def _ball(subject: AttackSubject) -> str | None:
    for where, trial in _usable(subject):
        outside = int((trial.wrong() & ~trial.inside()).sum())
        if outside and trial.problem.epsilon is None:
            return f"{where}: {outside} misclassified candidates lie outside the box [0, 1]"
        if outside:
            threat = f"{trial.problem.norm} {trial.problem.epsilon}"
            return f"{where}: {outside} misclassified candidates lie outside the box or {threat}"
    return None


def _same_seed(subject: AttackSubject) -> str | None:
    first = subject.trial()
    again = attempt(registry.attacks.create(subject.name), subject.norms[0], False, COUNT)
    return _unlike(first, again, "a second instance with the same seed finds others")


def _no_state(subject: AttackSubject) -> str | None:
    first = subject.trial()
    subject.trial(robust=True)
    again = attempt(subject.plugin, subject.norms[0], False, COUNT)
    return _unlike(first, again, "after other examples the same instance finds others")


def _unlike(first: Trial, again: Trial, what: str) -> str | None:
    a, b = first.proposal, again.proposal
    if again.error:
        return f"run() raised {again.error}, which it had not before"
    if not torch.equal(a.candidates, b.candidates):
        rows = int((a.candidates != b.candidates).flatten(1).any(dim=1).sum())
        return f"{what}: {rows} of {len(a.candidates)} candidates differ"
    return None


def _settings_kept(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        for name, value in trial.settings.items():
            if trial.after[name] != value:
                return f"{where}: it left the {name} at {trial.after[name]} (was {value})"
    return None


def _cost(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        norm = trial.problem.norm
        cost = subject.plugin.cost(norm=norm, shape=SHAPE, classes=CLASSES)
        taken = trial.passes * (1 / len(trial.inputs))
        for word, took, said in (
            ("forwards", taken.forwards, cost.forwards),
            ("backwards", taken.backwards, cost.backwards),
        ):
            if took > said:
                return f"{where}: {took:g} {word} for an example, and cost() says {said:g}"
    return None


def _check(id: str, expected: str, mend: str, look: Callable[[AttackSubject], str | None]) -> Check[AttackSubject]:  # noqa: A002, E501
    return Check(id, expected, mend, look)


CHECKS: tuple[Check[AttackSubject], ...] = (
    _check("name", "Its name, and each option written out, is read back as the same attack",
        "give every parameter of __init__ a type, and a default that can be written", _name),
    _check("norms", "why_not() gives a reason for every norm that it does not search in",
        "call super().why_not(…) where you write your own, and return None or a sentence", _norms),
    _check("runs", "run() returns a bench.api.Proposal: in each norm, on many examples and on one",
        "write for N = 1 too (no squeeze()), and for batches in which nothing breaks", _runs),
    _check("proposal", "Candidates are finite floats of the inputs' shape, without a graph",
        "where nothing was found propose the input; detach(); one value of extra each", _proposal),
    _check("problem-unchanged", "The inputs and labels that it was given are left as they are",
        "clone() before changing in place", _problem_unchanged),
    _check("model-unchanged", "The model is left as it was: weights, eval mode, frozen",
        "leave the model's parameters and mode alone; copy it to change it", _model_unchanged),
    _check("ball", "What it proposes as broken lies within epsilon and in the box, unprojected",
        "end in ThreatModel(norm, epsilon).project(inputs, candidates)", _ball),
    _check("same-seed", "The same seed gives the same candidates",
        "draw from the global generators, which are seeded, or seed by problem.seed", _same_seed),
    _check("keeps-no-state", "What it finds does not depend on what it was asked before",
        "keep nothing in self in run(): one instance serves many shards", _no_state),
    _check("settings-kept", "Settings of the whole process are left as they were",
        "put them back in a finally clause, or use a context manager", _settings_kept),
    _check("cost", "cost() is at least what it takes for an example, forwards and backwards apart",
        "count every call of the model, those after the last step included", _cost),
)  # fmt: skip
