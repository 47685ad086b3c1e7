"""The judge: whatever an attack proposes, what counts is decided here (DESIGN.md, law 1).

A candidate counts as adversarial when it is finite, lies in the box and within epsilon (measured
in float64, 1e-6 allowed for the rounding of float32), and the model gets it wrong in a fresh fp32
forward pass, both in its batch and alone. A candidate outside is projected once and judged again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import AttackError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.models.counted import CountedModel
    from bench.threat import ThreatModel

#: Raise it when what counts as adversarial changes: figures of other versions do not compare.
JUDGING_VERSION = 2

#: How often a defense that answers differently to the same input is asked about a candidate: once
#: over to choose the worst candidate, and as often again, fresh, to report what it is worth.
#: Choosing and reporting on the same draws would make the defense look weaker than it is.
DRAWS = 100
#: Repeated calls that detect such a defense, and by how much normalised logits may differ
#: (AutoAttack's own check).
REPEATS, SAME = 5, 1e-4

NOT_FINITE = "not finite"
OUTSIDE = "outside the ball or box"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of some inputs."""

    classes: Tensor
    """int64, (N,): in the batch, but alone where it is right alone only, as points may be that lie
    on a jump of the model (k-WTA), where rounding decides."""
    margins: Tensor
    """float64, (N,): logit of the label minus the best other, of the same answer."""
    wrong: Tensor
    """bool, (N,): wrong in the batch and wrong alone; of a randomised defense, in most draws."""
    draws: int
    """How often each input was asked about for the report: 1, or `DRAWS`."""
    wrong_draws: Tensor
    """int64, (N,): how often it was wrong then."""
    choice: Tensor
    """int64, (N,): how often it was wrong in the draws before, by which a worst case is chosen."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the candidates of one shard are worth in one threat model."""

    judged: Tensor
    """float32, shape of the inputs: the candidates as they were judged."""
    prediction: Prediction
    broken: Tensor
    """bool, (N,)."""
    projected: Tensor
    """bool, (N,): the candidate lay outside and was brought back."""
    faults: list[str]
    """Why a candidate was refused; empty where it was judged."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the best other logit: negative where the model is wrong.

    Args:
        logits: (N, classes), at least two classes.
        labels: int64, (N,).

    Returns:
        float64, (N,).
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    return own - others


def is_randomised(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the model answers differently when it is asked again in the same words."""
    import torch

    with torch.no_grad():
        answers = [model(inputs) for _ in range(REPEATS)]
    scaled = [a / (a.norm(dim=1, keepdim=True) + 1e-10) for a in answers]
    return any(
        bool((a.argmax(dim=1) != answers[0].argmax(dim=1)).any())
        or float((s - scaled[0]).norm(dim=1).max()) > SAME
        for a, s in zip(answers[1:], scaled[1:], strict=True)
    )


def predict(model: CountedModel, inputs: Tensor, labels: Tensor, *, draws: int = 1) -> Prediction:
    """Ask the model in one batch, and again alone about each input it got wrong.

    A randomised defense is asked `draws` times to choose and as often to report instead.
    """
    import torch

    if draws > 1:
        return _predict_draws(model, inputs, labels, draws)
    with torch.no_grad():
        logits = model(inputs)
        rows = (logits.argmax(dim=1) != labels).nonzero().flatten()
        if len(rows):
            alone = model.singly(inputs[rows])  # read together: a GPU is waited for once
            right = (alone.argmax(dim=1) == labels[rows])[:, None]
            logits = logits.index_copy(0, rows, torch.where(right, alone, logits[rows]))
    classes = logits.argmax(dim=1)
    wrong = classes != labels
    count = wrong.long()
    return Prediction(classes, margins(logits, labels), wrong, 1, count, count)


def _predict_draws(model: nn.Module, inputs: Tensor, labels: Tensor, draws: int) -> Prediction:
    import torch

    with torch.no_grad():
        choice = sum((model(inputs).argmax(dim=1) != labels).long() for _ in range(draws))
        answers = [model(inputs) for _ in range(draws)]
    wrong_draws = sum((logits.argmax(dim=1) != labels).long() for logits in answers)
    assert isinstance(choice, torch.Tensor)
    assert isinstance(wrong_draws, torch.Tensor)
    classes = torch.stack([logits.argmax(dim=1) for logits in answers]).mode(dim=0).values
    margin = torch.stack([margins(logits, labels) for logits in answers]).mean(dim=0)
    return Prediction(classes, margin, 2 * wrong_draws > draws, draws, wrong_draws, choice)


def judge(
    model: CountedModel,
    inputs: Tensor,
    labels: Tensor,
    candidates: Tensor,
    threat: ThreatModel,
    *,
    draws: int = 1,
) -> Judgement:
    """Judge one candidate per example.

    Args:
        model: to float32 logits.
        inputs: the clean examples, float32 in [0, 1], (N, C, H, W).
        labels: int64, (N,).
        candidates: what an attack proposes.
        threat: the ball they have to lie in.
        draws: how often to ask a randomised defense.

    Raises:
        AttackError: the candidates are not one tensor of the inputs' shape.
    """
    import torch

    check_candidates(candidates, inputs)
    candidates = candidates.detach().to(inputs.device).float()
    finite = torch.isfinite(candidates.flatten(1)).all(dim=1)
    spread = finite.reshape(-1, *([1] * (inputs.ndim - 1)))
    candidates = torch.where(spread, candidates, inputs)
    inside = member = threat.contains(inputs, candidates)
    judged = candidates.contiguous()
    if inside.is_cuda or not bool(inside.all()):  # a GPU would have to be waited for
        kept = inside.reshape(-1, *([1] * (inputs.ndim - 1)))
        judged = torch.where(kept, candidates, threat.project(inputs, candidates)).contiguous()
        member = threat.contains(inputs, judged)
    prediction = predict(model, judged, labels, draws=draws)
    faults = [
        NOT_FINITE if not fine else OUTSIDE if not held else ""
        for fine, held in zip(finite.tolist(), member.tolist(), strict=True)
    ]
    return Judgement(
        judged=judged,
        prediction=prediction,
        broken=prediction.wrong & member & finite,
        projected=~inside & finite,
        faults=faults,
    )


def check_candidates(candidates: object, inputs: Tensor) -> None:
    """Raise AttackError unless the candidates are one floating tensor of the inputs' shape."""
    import torch

    if not isinstance(candidates, torch.Tensor):
        raise AttackError(f"the attack returned {type(candidates).__name__}, not a tensor")
    if candidates.shape != inputs.shape:
        raise AttackError(
            f"the attack returned shape {tuple(candidates.shape)} for inputs of shape "
            f"{tuple(inputs.shape)}"
        )
    if not candidates.is_floating_point():
        raise AttackError(f"the attack returned {candidates.dtype}, not a floating dtype")
