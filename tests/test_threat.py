from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import UsageError
from bench.threat import TOLERANCE, Epsilon, Norm, ThreatModel

NORMS = list(Norm)
ORDERS = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}
#: A radius of each norm that is far inside the box for 3,072 coordinates.
RADII = {Norm.LINF: "8/255", Norm.L2: "0.5", Norm.L1: "12"}


def batch(seed: int, *, low: float = 0.0, high: float = 1.0, n: int = 64) -> torch.Tensor:
    """Random float32 images, shape (n, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 32, 32, generator=generator) * (high - low) + low


def numpy_distance(norm: Norm, a: torch.Tensor, b: torch.Tensor) -> np.ndarray[Any, Any]:
    """Distances by numpy in float64."""
    delta = b.numpy().astype(np.float64) - a.numpy().astype(np.float64)
    distances = np.linalg.norm(delta.reshape(len(delta), -1), ord=ORDERS[norm], axis=1)
    return np.asarray(distances)


def test_epsilon_is_exact() -> None:
    """A value is what a person reads, not the nearest float, and keeps its text."""
    cases: list[tuple[Any, Fraction]] = [
        ("8/255", Fraction(8, 255)),
        (" 8 / 255 ", Fraction(8, 255)),
        ("0.031", Fraction(31, 1000)),
        ("1e-3", Fraction(1, 1000)),
        (0.1, Fraction(1, 10)),
        (Fraction(2, 255), Fraction(2, 255)),
        (np.float64(0.25), Fraction(1, 4)),
        (3, Fraction(3)),
    ]
    for written, exact in cases:
        epsilon = Epsilon.parse(written)

        assert exact == epsilon.exact, written
        assert float(exact) == float(epsilon), written
        assert str(written).replace(" ", "") == str(epsilon), written


def test_epsilon_is_its_value() -> None:
    """The same value written twice is one epsilon, kept as it was first written."""
    assert Epsilon.parse("0.5") == Epsilon.parse("1/2") != Epsilon.parse("0.51")
    assert len({Epsilon.parse("0.5"), Epsilon.parse("1/2")}) == 1

    several = Epsilon.parse_many(["0.5", "1/4", "1/2", "2/8"])

    assert [str(epsilon) for epsilon in several] == ["1/4", "0.5"]


def test_epsilon_has_to_be_positive_and_finite() -> None:
    """Zero is clean accuracy, and nothing else out of range is a radius."""
    odd: list[Any] = ["0", "-0.1", "0/255", "1e-400", "1e400", "-8/255", 0, 0.0, -1.0]
    for written in odd:
        with pytest.raises(UsageError, match=rf"greater than 0 and finite \(got '{written}'\)"):
            Epsilon.parse(written)


def test_epsilon_has_to_be_a_number() -> None:
    """The error repeats the text and shows how to write one; a float is refused as its text is."""
    odd: list[Any] = [
        "8/0",
        "nan",
        "inf",
        "-inf",
        "eps",
        "",
        "8/255/2",
        "0.1,0.2",
        math.nan,
        math.inf,
    ]
    for written in odd:
        with pytest.raises(UsageError, match=rf"epsilon '{written}' is not a number; .*8/255"):
            Epsilon.parse(written)


def test_no_epsilon_is_refused() -> None:
    """A run has at least one."""
    with pytest.raises(UsageError, match="write at least one, such as --eps 8/255"):
        Epsilon.parse_many([])


@pytest.mark.parametrize(("written", "norm"), [("linf", Norm.LINF), (" L2", Norm.L2), ("l1", "L1")])
def test_norm_is_read_in_any_case(written: str, norm: Norm) -> None:
    """Upper and lower case are one, and the norm prints as in tables."""
    assert norm == Norm.parse(written)
    assert f"{Norm.LINF}" == "Linf"


def test_unknown_norm_is_refused() -> None:
    """The error lists what is allowed."""
    with pytest.raises(UsageError, match="unknown norm 'L3'; allowed: Linf, L2, L1"):
        Norm.parse("L3")


@pytest.mark.parametrize(
    ("written", "hint"),
    [("8", "did you mean 8/255"), ("8.0", "did you mean 8/255"), ("1.5", "give at most 1"),
     ("300", "give at most 1")],
)  # fmt: skip
def test_linf_wider_than_the_box_is_refused(written: str, hint: str) -> None:
    """Someone who writes 8 means 8/255; in other norms 8 is a radius like any other."""
    with pytest.raises(UsageError, match=rf"Linf epsilon {written} is wider than the box.*{hint}"):
        ThreatModel(Norm.LINF, Epsilon.parse(written))

    assert str(ThreatModel(Norm.L2, Epsilon.parse("8"))) == "L2 8"


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_numpys(norm: Norm) -> None:
    """In float64, whatever the inputs are in."""
    a, b = batch(0), batch(1)

    distance = norm.distance(a, b)

    assert torch.float64 is distance.dtype
    np.testing.assert_allclose(numpy_distance(norm, a, b), distance.numpy(), rtol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_in_ball_and_box(norm: Norm) -> None:
    """For inputs at the borders of the box too, float32 rounding included."""
    threat = ThreatModel(norm, Epsilon.parse(RADII[norm]))
    for spread, seed in itertools.product((0.001, 0.1, 3.0), range(3)):
        inputs = batch(seed)
        inputs[:20] = inputs[:20].round()
        candidates = inputs + batch(seed + 10, low=-spread, high=spread)

        projected = threat.project(inputs, candidates)

        case = (spread, seed)
        distances = numpy_distance(norm, inputs, projected)
        assert torch.float32 is projected.dtype, case
        assert 0 <= float(projected.min()) <= float(projected.max()) <= 1, case
        assert (distances <= float(threat.epsilon) + TOLERANCE).all(), case
        assert bool(threat.contains(inputs, projected).all()), case


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2])
def test_projection_of_large_images_is_in_the_ball(norm: Norm) -> None:
    """Rounding errors of 150,528 coordinates do not add up beyond the tolerance."""
    threat = ThreatModel(norm, Epsilon.parse("20"))
    stream = torch.Generator().manual_seed(0)
    inputs, candidates = torch.rand(2, 8, 3, 224, 224, generator=stream)

    projected = threat.project(inputs, candidates)

    distances = numpy_distance(norm, inputs, projected)
    assert (distances <= 20 + TOLERANCE).all()
    assert (distances > 20 * 0.999).all()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_reaches_the_border(norm: Norm) -> None:
    """A far candidate ends on the border of the ball, and no further inside."""
    threat = ThreatModel(norm, Epsilon.parse(RADII[norm]))
    inputs = batch(0, low=0.4, high=0.6)

    projected = threat.project(inputs, batch(1))

    expected = np.full(len(inputs), float(threat.epsilon))
    np.testing.assert_allclose(expected, numpy_distance(norm, inputs, projected), rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_keeps_what_is_inside(norm: Norm) -> None:
    """Bit by bit, for tiny values as well."""
    threat = ThreatModel(norm, Epsilon.parse("1" if norm is Norm.LINF else "4000"))
    inputs, candidates = batch(0), batch(1)
    candidates[:, 0, 0, :4] = torch.tensor([1e-30, 1e-20, 0.0, 1.0])

    assert torch.equal(candidates, threat.project(inputs, candidates))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_does_not_hide_nan(norm: Norm) -> None:
    """A NaN stays one and is no member; infinity is clipped."""
    threat = ThreatModel(norm, Epsilon.parse(RADII[norm]))
    inputs = batch(0, n=3)
    candidates = inputs.clone()
    candidates[0, 0, 0, 0] = math.nan
    candidates[1, 0, 0, 0] = math.inf

    assert threat.contains(inputs, candidates).tolist() == [False, False, True]
    assert threat.contains(inputs, threat.project(inputs, candidates)).tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("norm", NORMS)
def test_membership_allows_rounding_alone(norm: Norm) -> None:
    """One coordinate moved by epsilon is a member, by more than the tolerance beyond is not."""
    threat = ThreatModel(norm, Epsilon.parse("0.25"))
    inputs = torch.zeros(4, 1, 2, 2)
    candidates = inputs.clone()
    candidates[:, 0, 1, 1] = 0.25 + torch.tensor([0.0, 0.9e-6, 1.1e-6, -0.01])

    assert threat.contains(inputs, candidates).tolist() == [True, True, False, True]


@pytest.mark.parametrize("value", [-1e-7, 1 + 2e-7])
def test_membership_allows_nothing_beyond_the_box(value: float) -> None:
    """The box has no tolerance: a real image has no such pixel."""
    threat = ThreatModel(Norm.LINF, Epsilon.parse("0.25"))
    inputs = torch.full((1, 1, 2, 2), round(value))

    assert threat.contains(inputs, torch.full((1, 1, 2, 2), value)).tolist() == [False]
