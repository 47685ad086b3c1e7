"""What an attack has to keep, rule by rule: `RULES` is the list."""

from __future__ import annotations

import torch
from torch import nn

from bench import registry
from bench.api import Proposal
from bench.errors import AttackError, WinnowError
from bench.matrix.judge import check_candidates
from bench.models.checkpoints import weights_digest
from bench.models.condition import Condition
from bench.models.counted import CountedModel
from bench.testing.attack_subject import (
    CLASSES,
    COUNT,
    SEED,
    SHAPE,
    AttackSubject,
    Trial,
    answers,
    attempt,
    rows_together,
)
from bench.testing.conformance import NotApplicableError, Rule, read_back
from bench.threat import Norm


def _name(subject: AttackSubject) -> str | None:
    return read_back(registry.attacks, subject.plugin)


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
        if "modules" in Condition.of(module).changed(trial.condition):
            return f"{where}: it left hooks on the model, or other parts in it"
        if not torch.allclose(answers(trial.problem.model, trial.inputs), trial.logits, atol=1e-5):
            return f"{where}: the same inputs get other logits afterwards"
    return None


def _access(subject: AttackSubject) -> str | None:
    if subject.plugin.access == "white-box":
        raise NotApplicableError("it may take gradients: it is white-box")
    for where, trial in subject.done():
        model = trial.problem.model
        assert isinstance(model, CountedModel)
        if taken := model.backwards:
            return f"{where}: it is {subject.plugin.access}, and took {taken} gradients"
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
    again = attempt(subject.create(), subject.norms[0], False, COUNT, subject.device)
    return _unlike(first, again, "a second instance with the same seed finds others")


def _no_state(subject: AttackSubject) -> str | None:
    first = subject.trial()
    subject.trial(robust=True)
    again = attempt(subject.plugin, subject.norms[0], False, COUNT, subject.device)
    return _unlike(first, again, "after other examples the same instance finds others")


def _deterministic(subject: AttackSubject) -> str | None:
    if not subject.plugin.deterministic:
        raise NotApplicableError("it does not say that it draws no random numbers")
    for robust in (False, True):
        first = subject.trial(robust=robust)
        again = attempt(
            subject.create(), subject.norms[0], robust, COUNT, subject.device, seed=SEED + 1
        )
        if seen := _unlike(first, again, "another seed finds others"):
            return seen
    return None


def _unlike(first: Trial, again: Trial, what: str) -> str | None:
    a, b = first.proposal, again.proposal
    if again.error:
        return f"run() raised {again.error}, which it had not before"
    if not torch.equal(a.candidates, b.candidates):
        rows = int((a.candidates != b.candidates).flatten(1).any(dim=1).sum())
        return f"{what}: {rows} of {len(a.candidates)} candidates differ"
    return None


def _rows(subject: AttackSubject) -> str | None:
    if not subject.plugin.each_row:
        raise NotApplicableError("it takes one epsilon at a time")
    for norm in subject.norms:
        together, alone = rows_together(subject.create(), norm, subject.device)
        rows = int((together != alone).flatten(1).any(dim=1).sum())
        if rows:
            return f"{norm}: {rows} of {len(alone)} candidates differ from those of one epsilon"
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


def _traces(subject: AttackSubject) -> str | None:
    for where, trial in subject.done():
        for name in subject.plugin.traces:
            if name not in trial.proposal.extra:
                return f"{where}: it declares the trace {name!r}, and extra does not have it"
    return None


def _examination(subject: AttackSubject) -> str | None:
    plugin = subject.plugin
    name = plugin.name.partition("[")[0]
    rounds = (options for tried in plugin.escalation for options in tried)
    for options in (*plugin.examination, *plugin.planted, plugin.stand_in, *rounds):
        written = f"{name}[{options}]"
        try:
            made = registry.attacks.create(written)
        except WinnowError as error:
            return f"{written}: {error}"
        if options and made.name == name:
            return f"{written} is {name}: its options are the defaults"
    return None


RULES: tuple[Rule[AttackSubject], ...] = (
    Rule("name", "Its name, and each option written out, is read back as the same attack",
        "give every parameter of __init__ a type, and a default that can be written", _name),
    Rule("norms", "why_not() gives a reason for every norm that it does not search in",
        "call super().why_not(…) where you write your own, and return None or a sentence", _norms),
    Rule("runs", "run() returns a bench.api.Proposal: in each norm, on many examples and on one",
        "write for N = 1 too (no squeeze()), and for batches in which nothing breaks", _runs),
    Rule("proposal", "Candidates are finite floats of the inputs' shape, without a graph",
        "where nothing was found propose the input; detach(); one value of extra each", _proposal),
    Rule("problem-unchanged", "The inputs and labels that it was given are left as they are",
        "clone() before changing in place", _problem_unchanged),
    Rule("model-unchanged", "The model is left as it was: weights, eval mode, frozen, no hooks",
        "copy it to change it; remove() hooks in a finally clause", _model_unchanged),
    Rule("access", "A black-box or noise attack takes no gradient of the model that it attacks",
        "declare access white-box, or search by outputs; a source's gradient is free", _access),
    Rule("ball", "What it proposes as broken lies within epsilon and in the box, unprojected",
        "end in ThreatModel(norm, epsilon).project(inputs, candidates)", _ball),
    Rule("same-seed", "The same seed gives the same candidates",
        "draw from the global generators, which are seeded, or seed by problem.seed", _same_seed),
    Rule("keeps-no-state", "What it finds does not depend on what it was asked before",
        "keep nothing in self in run(): one instance serves many shards", _no_state),
    Rule("deterministic", "With deterministic, another seed finds the same",
        "draw no random numbers, or leave `deterministic` out", _deterministic),
    Rule("rows", "With each_row, what it finds for a row follows from that row alone",
        "draw from bench.attacks.blocks.ball.Streams; take each row's epsilon from radii()", _rows),
    Rule("settings-kept", "Settings of the whole process are left as they were",
        "put them back in a finally clause, or use a context manager", _settings_kept),
    Rule("cost", "cost() is at least what it takes for an example, forwards and backwards apart",
        "count every call of the model, those after the last step included", _cost),
    Rule("traces", "What it declares to trace or to measure stands in extra, whatever it attacks",
        "give extra one value an example under each name in `traces`", _traces),
    Rule("examination", "What an examination or an escalation may run of it can be made",
        "write options as in brackets, 'steps=80', each with a value it takes", _examination),
)  # fmt: skip
