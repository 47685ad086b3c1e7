"""What a model answers: by this it is known, since weights alone do not say what is done with them.

A mean kept outside the `state_dict`, a flag, a helper module, an edited `forward`: each makes
another model of the same weights. So a run keeps the logits of its clean inputs, and of the same
inputs a little changed (a defense may act on what looks attacked alone), and answers only for a
model whose logits are these. Attacks meet gradients besides: where a straight-through estimator or
another backward pass was put in since, it is another model to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from bench.errors import NonFiniteLogitsError, StoreError, is_out_of_memory
from bench.record.files import digest_of, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from bench.models.counted import CountedModel

#: By how much logits may differ, of the range of their row: on the same kind of device, where only
#: the order of additions changes with the size of batches, and on another; and by so many units in
#: the last place of the largest besides.
TOLERANCE, ELSEWHERE, UNITS = 1e-4, 1e-3, 16
#: A class so many margins below the highest is out of the race, as one that is masked by -1e9 is:
#: it counts in no range, and may differ by its own size.
BEHIND = 50
#: The share of rows that may differ more on another kind of device, where an activation that jumps
#: (k-winners-take-all) may choose otherwise.
JUMPS = 0.05
#: The gradients of so many inputs are kept, each as its products with so many fixed patterns of
#: signs; two models differ where more than half of them do by so much of their length: at a jump of
#: the gradient rounding decides.
SOME, PATTERNS, TURNED = 8, 16, 0.1
#: How often a model is asked, and how often where two of the answers differ.
TWICE, DRAWS = 2, 16
#: Random splits of the draws of two randomised models that the difference between them is held
#: against; it has to be larger than in every one of them.
SPLITS = 2000
#: How far, and by which pattern of signs, the inputs are changed.
AMPLITUDE, PATTERN = 8 / 255, 2


@dataclass(frozen=True, eq=False)
class Behaviour:
    """The logits of one model."""

    logits: NDArray[np.float32]
    """(draws, 2, N, classes): of the clean inputs, and of those near by, 0 where these are not
    finite; one draw where the same question gets the same answer."""
    device: str
    """The kind of device: `cpu` or `cuda`."""
    resolution: float
    """The relative step of the numbers that the model computes with, 1.2e-7 for float32."""

    slopes: NDArray[np.float32] | None = None
    """(M, `PATTERNS`): of the first inputs, 0 where there is no gradient; None where it is another
    one each time, and in runs from before it was kept."""
    drawn: int | None = None
    """Digest of seeds and batches, which its draws follow from; None where it has randomness of its
    own, or none."""

    @classmethod
    def of(cls, model: CountedModel, inputs: Tensor, seed: int, *, gradients: bool = True) -> Self:
        """Ask a model, in plain surroundings.

        Args:
            model: to logits.
            inputs: clean, float32 (N, C, H, W), on its device.
            seed: of the global generators.
            gradients: whether to keep them: of blocks those of the first one count.
        """
        import torch

        from bench.models.ambient import plain_torch
        from bench.models.manner import dtype_of

        questions = (inputs, near_by(inputs))
        answers: list[NDArray[np.float32]] = []

        def ask() -> NDArray[np.float32]:
            clean = model(questions[0])
            try:
                near = model(questions[1])
            except NonFiniteLogitsError:  # some models answer nothing off their data
                near = torch.zeros_like(clean)
            return np.stack([logits.cpu().numpy() for logits in (clean, near)])

        with plain_torch(str(model.device), seed), torch.no_grad():
            while len(answers) < TWICE or (len(answers) < DRAWS and not _one(answers)):
                answers.append(ask())
        randomised = not _one(answers)
        with plain_torch(str(model.device), seed), torch.no_grad():
            again = randomised and _one([answers[0], ask()])
        logits = np.stack(answers if randomised else answers[:1])
        resolution = torch.finfo(dtype_of(model.module)).eps
        parts = min(model.batch_size or len(inputs), len(inputs))
        drawn = int(digest_of([seed, parts])[:15], 16) if again else None
        told = []
        for _ in range(TWICE if gradients else 0):
            with plain_torch(str(model.device), seed):
                told.append(_slopes(model, inputs[:SOME]))
        slopes = None if not told or _turned(*told).any() else told[0]
        return cls(logits, inputs.device.type, resolution, slopes, drawn)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """That of all inputs, from those of blocks of them."""
        draws = max(len(part.logits) for part in parts)
        whole = [
            part.logits
            if part.randomised
            else np.broadcast_to(part.logits, (draws, *part.logits.shape[1:]))
            for part in parts
        ]
        all_drawn = [part.drawn for part in parts if part.randomised]
        drawn = None
        if all_drawn and None not in all_drawn:
            ends = [(part.drawn, part.logits.shape[2]) for part in parts]
            drawn = int(digest_of(ends)[:15], 16)
        first, logits = parts[0], np.concatenate(whole, axis=2)
        return cls(logits, first.device, first.resolution, first.slopes, drawn)

    @property
    def randomised(self) -> bool:
        """Whether the same question got different answers."""
        return len(self.logits) > 1

    @property
    def size(self) -> float:
        """The median of the ranges of its rows."""
        return float(np.median(_race(self.logits)[1]))

    def margins(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Logit of the label minus the best other, of the clean inputs, in the first draw.

        Args:
            labels: (N,).
        """
        logits = self.logits[0, 0].astype(np.float64)
        own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        others = logits.copy()
        np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
        margins: NDArray[np.float64] = own - others.max(axis=1)
        return margins

    def difference(self, other: Self) -> str:
        """How another's logits differ from these beyond rounding and chance; empty where not."""
        mine, others = self.logits, other.logits
        if mine.shape[1:] != others.shape[1:]:
            return f"{_shape(others)} logits instead of {_shape(mine)}"
        apart = self._apart(other)
        if mine.shape == others.shape and not apart.any():
            return self._steered(other)
        repeatable = self.drawn is not None and self.drawn == other.drawn
        if (
            self.randomised
            and other.randomised
            and not (repeatable and self.device == other.device)
        ):
            return "draws of another distribution" if _far(mine, others) else ""
        if self.randomised != other.randomised:
            return f"it is {'no longer' if self.randomised else 'now'} randomised"
        if self.device != other.device and apart.mean() <= JUMPS:
            return ""
        inputs = np.atleast_1d(apart.any(axis=(0, 1)))
        most = np.abs(mine - others).max()
        return f"other logits for {inputs.sum()} of {len(inputs)} inputs, by up to {most:.3g}"

    def _apart(self, other: Self) -> NDArray[np.bool_]:
        """Where two rows of logits differ by more than rounding: (draws, 2, N)."""
        draws = min(len(self.logits), len(other.logits))
        mine, others = (each.logits[:draws] for each in (self, other))
        share = ELSEWHERE if self.device != other.device else TOLERANCE
        allowed = _allowed(mine, share, max(self.resolution, other.resolution))
        within: NDArray[np.bool_] = _between(mine, others) <= allowed
        return np.asarray(~within.all(axis=-1))

    def _steered(self, other: Self) -> str:
        """How the gradients of another with the same logits differ; empty where they do not."""
        mine, theirs = self.slopes, other.slopes
        if mine is None or theirs is None or self.randomised or mine.shape != theirs.shape:
            return ""
        turned = _turned(mine, theirs)
        found = f"other gradients for {turned.sum()} of {len(turned)} inputs"
        return found if turned.mean() > 0.5 else ""

    def save(self, path: Path) -> None:
        """Write it, atomically.

        Raises:
            StoreError: the disk is full, or the place cannot be written.
        """
        import safetensors.numpy

        about = {
            "device": self.device,
            "resolution": json.dumps(self.resolution),
            "drawn": json.dumps(self.drawn),
        }
        kept = {"logits": self.logits} | ({} if self.slopes is None else {"slopes": self.slopes})
        kept = {name: np.ascontiguousarray(array) for name, array in kept.items()}
        write_bytes(path, safetensors.numpy.save(kept, metadata=about))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        import safetensors

        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                about, logits = file.metadata(), file.get_tensor("logits")
                slopes = file.get_tensor("slopes") if "slopes" in file.keys() else None  # noqa: SIM118
            drawn = json.loads(about["drawn"])
            found = cls(logits, about["device"], float(about["resolution"]), slopes, drawn)
            if logits.dtype != np.float32 or logits.ndim != 4 or not 0 < found.resolution < 1:
                raise ValueError(f"{logits.dtype} of shape {logits.shape}")
        except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
            raise StoreError(f"{path} is damaged: {error}; run the command with --fresh") from error
        return found


def near_by(inputs: Tensor) -> Tensor:
    """The inputs moved by one fixed pattern of signs, within the box; the same on every device."""
    import torch

    generator = torch.Generator().manual_seed(PATTERN)
    signs = 2 * torch.randint(2, inputs.shape[1:], generator=generator) - 1
    return (inputs + AMPLITUDE * signs.to(inputs.device)).clamp(0, 1)


def _slopes(model: CountedModel, inputs: Tensor) -> NDArray[np.float32]:
    """Input gradients of one fixed sum of logits, as `Behaviour.slopes` keeps them."""
    import torch

    generator = torch.Generator().manual_seed(PATTERN)
    form = torch.randn(model.classes, generator=generator).to(inputs.device)
    signs = 2 * torch.randint(2, (inputs[0].numel(), PATTERNS), generator=generator) - 1
    x = inputs.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad((model(x) * form).sum(), x)
    except Exception as error:  # a module without gradients may raise anything
        if is_out_of_memory(error):
            raise
        gradient = torch.zeros_like(x)
    products = gradient.nan_to_num(0.0, 0.0, 0.0).flatten(1).double().cpu() @ signs.double()
    return products.float().numpy()


def _turned(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which gradients differ by more than rounding."""
    lengths = (np.linalg.norm(each, axis=1) for each in (mine, theirs))
    return np.asarray(np.linalg.norm(mine - theirs, axis=1) > TURNED * np.maximum(*lengths))


def _shape(logits: NDArray[np.float32]) -> str:
    return f"({logits.shape[-2]}, {logits.shape[-1]})"


def _one(answers: Sequence[NDArray[np.float32]]) -> bool:
    """Whether all answers are the same, but for rounding."""
    allowed = _allowed(answers[0], TOLERANCE, float(np.finfo(np.float32).eps))
    return all(bool((_between(each, answers[0]) <= allowed).all()) for each in answers[1:])


def _between(mine: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.abs(mine.astype(np.float64) - others)


def _race(logits: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which classes are not far behind, (..., N, classes), and the range of these, (..., N)."""
    behind = logits.max(axis=-1, keepdims=True).astype(np.float64) - logits
    margins = np.partition(behind, 1, axis=-1)[..., 1:2]
    near = behind <= BEHIND * np.maximum(margins, np.median(margins))
    return near, np.where(near, behind, 0).max(axis=-1)


def _allowed(logits: NDArray[np.float32], share: float, resolution: float) -> NDArray[np.float64]:
    """By how much each logit may differ, (..., N, classes)."""
    near, ranges = _race(logits)
    sizes = np.abs(logits.astype(np.float64))
    highest = np.where(near, sizes, 0).max(axis=-1)
    allowed = share * np.maximum(ranges, np.median(ranges)) + UNITS * resolution * highest
    every: NDArray[np.float64] = np.maximum(allowed[..., None], np.where(near, 0, share * sizes))
    return every


def _far(mine: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether draws of two randomised models come from different distributions.

    The generalised energy distance (Székely and Rizzo, 2013) between them is larger than in each of
    `SPLITS` random divisions of all the draws: one in 2,000 of equal models is called different.
    Of the exponents between 0 and 2 the limit at 0, logarithms of distances: as good as the usual 1
    where a mean moved, far better where noise grew (half as much again: found in 8 pairs of 10, not
    in 1).
    """
    both = np.concatenate([mine, others]).reshape(len(mine) + len(others), -1).astype(np.float64)
    squares = (both**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * both @ both.T, 0)
    distances = np.log(distances + 1e-12 * (distances.mean() or 1.0))  # some draws may be the same
    signs = np.repeat([1 / len(mine), -1 / len(others)], [len(mine), len(others)])
    observed = -signs @ distances @ signs
    generator = np.random.default_rng(0)
    splits = generator.permuted(np.tile(signs, (SPLITS, 1)), axis=1)
    return bool(observed > (-np.einsum("si,ij,sj->s", splits, distances, splits)).max())
