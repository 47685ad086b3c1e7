"""Threat models: a norm and an epsilon around inputs that live in the box [0, 1].

Distances are computed in float64, because a float32 sum over a few thousand pixels is off by more
than the tolerance that membership allows. torch is imported only for its types: tensors bring
their own methods, so that reading an epsilon does not cost the import of torch.
"""

from __future__ import annotations

import enum
import re
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

#: By how much a perturbation may exceed epsilon: the rounding of float32 inputs.
TOLERANCE = 1e-6

#: The longest number that is read as an epsilon, and an exponent that none of them needs.
_LONGEST, _EXPONENT = 1100, re.compile(r"[eE][+-]?0*[1-9][0-9_]{3}")

#: What an epsilon may be: the range of float64 that keeps all its digits.
_SMALLEST = Fraction(sys.float_info.min)
_LARGEST = Fraction(sys.float_info.max)


#: Other names of the largest coordinate's norm.
_INFINITY = {"∞": "inf", "infinity": "inf", "max": "inf"}


class Norm(enum.StrEnum):
    """The norm that measures a perturbation."""

    LINF = "Linf"
    L2 = "L2"
    L1 = "L1"

    @classmethod
    def parse(cls, text: str | float) -> Norm:
        """Read a norm as people write it: `Linf`, `linf`, `L_inf`, `inf`, `L2`, 2.

        Raises:
            UsageError: the text is no norm.
        """
        order = str(text).strip().lower().removeprefix("l").removeprefix("_").removesuffix(".0")
        for norm in cls:
            if norm.value.lower() == f"l{_INFINITY.get(order, order)}":
                return norm
        raise UsageError(f"unknown norm {text!r}; allowed: {', '.join(norm.value for norm in cls)}")

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each example of `a` to its partner in `b`.

        Args:
            a: shape (N, ...), any floating dtype.
            b: same shape as `a`.

        Returns:
            float64, shape (N,).
        """
        delta = (b.double() - a.double()).flatten(1).abs()
        if self is Norm.LINF:
            return delta.amax(dim=1)
        if self is Norm.L2:
            return delta.square().sum(dim=1).sqrt()
        return delta.sum(dim=1)

    def project(self, inputs: Tensor, candidates: Tensor, radius: float | Tensor) -> Tensor:
        """Bring candidates into the ball and the box.

        Linf clips each coordinate, which is the exact projection. L2 and L1 clip to the box and
        then shrink the perturbation towards the input: both sets are convex and hold the input, so
        the result is in both (it is a point of the intersection, not always its nearest).

        Args:
            inputs: clean examples, float32 in [0, 1], shape (N, ...).
            candidates: same shape; NaN stays NaN and fails `ThreatModel.contains`.
            radius: of all examples, or float64 of each, (N,).

        Returns:
            float32, same shape.
        """
        x = inputs.double()
        wide = x.new_tensor(radius) if isinstance(radius, float) else radius.double()
        wide = wide.reshape(-1, *([1] * (inputs.ndim - 1)))
        if self is Norm.LINF:
            moved = candidates.double().clamp(min=x - wide, max=x + wide)
            return moved.clamp(0, 1).float()
        boxed = candidates.double().clamp(0, 1)
        size = self.distance(inputs, boxed).reshape(-1, *([1] * (boxed.ndim - 1)))
        delta = (boxed - x) * (wide / size)
        shrunk = (x + delta).float()
        # Rounded away from the input, thousands of coordinates leave the ball: round towards it.
        too_far = (shrunk.double() - x).abs() > delta.abs()
        shrunk = shrunk.nextafter(inputs.float()).where(too_far, shrunk)
        return boxed.float().where(size <= wide, shrunk)


@dataclass(frozen=True)
class Epsilon:
    """The radius of a ball: the text as written, and its exact value.

    Two epsilons are equal when their values are, however they were written: `0.5` is `1/2`.
    """

    text: str = field(compare=False)
    """As a person wrote it; shown in every table and used as the key in every file."""
    exact: Fraction
    """The exact value, greater than 0."""

    def __float__(self) -> float:
        return float(self.exact)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, written: str | float | Fraction | Epsilon) -> Epsilon:
        """Read `8/255`, `0.031`, a number or a Fraction.

        Raises:
            UsageError: not a number, not finite, or not greater than 0.
        """
        if isinstance(written, Epsilon):
            return written
        text = str(written).strip().replace(" ", "")
        try:
            if len(text) > _LONGEST or _EXPONENT.search(text):
                raise ValueError("a number that takes as long to work out as somebody likes")
            exact = Fraction(text)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise UsageError(
                f"epsilon {text!r} is not a number; write a positive decimal or fraction, "
                "such as 0.031 or 8/255"
            ) from None
        if not _SMALLEST <= exact <= _LARGEST:
            raise UsageError(
                f"epsilon has to be greater than 0 and finite (got {text!r}); clean accuracy, "
                "which is epsilon 0, is always reported"
            )
        return cls(text=text, exact=exact)

    @classmethod
    def parse_many(cls, written: Iterable[str | float | Fraction | Epsilon]) -> list[Epsilon]:
        """Read several, ascending; a value written twice is kept as it was first written.

        Raises:
            UsageError: none given, or one of them is invalid.
        """
        unique: dict[Fraction, Epsilon] = {}
        for item in written:
            epsilon = cls.parse(item)
            unique.setdefault(epsilon.exact, epsilon)
        if not unique:
            raise UsageError("no epsilon given; write at least one, such as --eps 8/255")
        return [unique[value] for value in sorted(unique)]


@dataclass(frozen=True)
class ThreatModel:
    """What the adversary may do: move an input within a ball around it, inside the box [0, 1]."""

    norm: Norm
    epsilon: Epsilon

    def __post_init__(self) -> None:
        if self.norm is Norm.LINF and self.epsilon.exact > 1:
            in_levels = self.epsilon.exact.denominator == 1 and self.epsilon.exact <= 255
            hint = f"did you mean {self.epsilon.exact}/255?" if in_levels else "give at most 1"
            raise UsageError(f"Linf epsilon {self.epsilon} is wider than the box [0, 1]; {hint}")

    def __str__(self) -> str:
        return f"{self.norm} {self.epsilon}"

    def contains(self, inputs: Tensor, candidates: Tensor) -> Tensor:
        """Which candidates are finite, in the box, and within epsilon (plus `TOLERANCE`).

        Args:
            inputs: clean examples, float32 in [0, 1], shape (N, ...).
            candidates: same shape.

        Returns:
            bool, shape (N,).
        """
        flat = candidates.flatten(1)
        in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)  # False for NaN as well
        return in_box & (self.norm.distance(inputs, candidates) <= float(self.epsilon) + TOLERANCE)

    def project(self, inputs: Tensor, candidates: Tensor) -> Tensor:
        """Bring candidates into the ball and the box: `Norm.project`."""
        return self.norm.project(inputs, candidates, float(self.epsilon))
