"""The figure of units that change their state along a perturbation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from bench.api import Examples
from bench.data import open_dataset, subset
from bench.errors import ModelError
from bench.figures.canvas import Walk, activations_of, load_subjects
from bench.figures.units import Changes, draw, follow
from bench.threat import Epsilon
from tests.figures.models import Thresholds, band, footer, subject
from tests.toy_models import Sum

EPSILON = Epsilon.parse("0.1")
#: Three examples with this value in all pixels.
GREYS = [0.5, 0.51, 0.52]


def grey(size: int = 2) -> Examples:
    """Images of one grey, of class 1."""
    inputs = torch.tensor(GREYS).reshape(3, 1, 1, 1).expand(3, 1, size, size)
    return Examples.of(inputs, torch.ones(3, dtype=torch.int64), ("a", "b"), "greys")


#: The first is passed by all from the start, so that the gradient points up.
THRESHOLDS = (0.415, 0.525, 0.585, 0.615)


@functools.cache
def known() -> Changes:
    """In ten steps to Linf 0.1."""
    return follow([subject(Thresholds(*THRESHOLDS))], grey(), Walk(EPSILON, 10))


def test_units_change_where_the_path_crosses_their_threshold() -> None:
    """Along the gradient every pixel grows by 0.01 a step, computed by hand."""
    data = known()

    for place, start in enumerate(GREYS):
        path = [start + 0.01 * step for step in range(11)]
        on = [[value > threshold for threshold in THRESHOLDS] for value in path]
        for step in range(1, 11):
            for since, before in enumerate([on[step - 1], on[0]]):
                share = np.mean([a != b for a, b in zip(on[step], before, strict=True)])
                assert data.shares[0, 0, since, place, step - 1] == share
    assert data.shares[0, 0, 1, :, -1].tolist() == [0.5, 0.5, 0.75]


def test_what_never_changes_is_drawn_as_zero() -> None:
    """Units far from their thresholds, along the gradient and at random."""
    data = follow([subject(Thresholds(0.0, 0.1, 0.9))], grey(), Walk(EPSILON, 5))

    assert not data.shares.any()
    for axes in draw(data).axes:
        (line,) = axes.lines
        assert not np.asarray(line.get_ydata()).any()


def test_the_states_do_not_depend_on_the_batch() -> None:
    """More steps than the model takes at once: every third of 300 is one of 100."""
    one = grey().take([2])
    model = subject(Thresholds(0.0, 0.535, 0.561))
    fine = follow([model], one, Walk(EPSILON, 300)).shares[0, 0, 1, 0]
    coarse = follow([model], one, Walk(EPSILON, 100)).shares[0, 0, 1, 0]

    assert np.array_equal(fine[2::3], coarse)
    assert coarse.max() > 0


def test_lines_are_means_and_bands_are_percentiles() -> None:
    """Over the examples, of what was counted."""
    data = known()
    figure = draw(data)

    for place, axes in enumerate(figure.axes):
        since, way = divmod(place, 2)
        shares = data.shares[0, way, since]
        (line,) = axes.lines
        assert np.allclose(line.get_xdata(), np.arange(1, 11) / 10)
        assert np.allclose(line.get_ydata(), shares.sum(axis=0) / 3)
        low, high = band(axes, 0)
        ordered = np.sort(shares, axis=0)
        # Of three values, the 10th percentile is a fifth of the way from the first to the second.
        tenth, ninetieth = 0.8 * ordered[0] + 0.2 * ordered[1], 0.2 * ordered[1] + 0.8 * ordered[2]
        places = sorted(low)
        assert [low[x] for x in places] == pytest.approx(tenth.tolist())
        assert [high[x] for x in places] == pytest.approx(ninetieth.tolist())


def test_the_random_direction_is_seeded() -> None:
    """The same seed gives the same path, another one another."""
    model, test = subject(Thresholds(*np.linspace(0.3, 0.7, 50))), grey()
    paths = [follow([model], test, Walk(EPSILON, 10, seed)).shares[0, 1] for seed in (0, 0, 1)]

    assert np.array_equal(paths[0], paths[1])
    assert not np.array_equal(paths[0], paths[2])


def test_winners_of_committed_weights_stay_as_many() -> None:
    """k-WTA: a tenth is on, so that no more than two tenths can differ; ReLU has more on."""
    examples = subset(open_dataset("digits").load("test"), 2)
    subjects = load_subjects(["relu", "kwta"], "digits", examples, {}, "cpu")
    data = follow(subjects, examples, Walk(EPSILON, 4))

    assert data.on[1] == pytest.approx(0.1, abs=0.01)
    assert 0 < data.shares[1, :, 1].max() <= 0.2
    assert data.on[0] > data.on[1]
    labels = [line.get_label() for line in draw(data).axes[0].lines]
    assert labels == [f"relu ({data.on[0]:.0%} on)", "kwta (10% on)"]


@pytest.mark.parametrize(("name", "share"), [("max-pool", 1.0), ("broken-relu", 0.5)])
def test_units_that_are_never_zero_have_states_too(name: str, share: float) -> None:
    """On is what passes its own value.

    Units m - 0.5 and 0.54 - m of the mean pixel m, which grows from 0.51 to 0.61: the second is
    the maximum and positive at first, and neither at last.
    """
    (factory,) = activations_of([name]).values()
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.25] * 4, [-0.25] * 4]))
        layer.bias.copy_(torch.tensor([-0.5, 0.54]))
    last = nn.Linear(2, 2)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[1.0, -2.0], [-1.0, 2.0]]))
    model = nn.Sequential(nn.Flatten(), layer, factory(), last)

    data = follow([subject(model, name)], grey().take([1]), Walk(EPSILON, 10))

    assert data.shares[0, 0, 1, 0, [0, -1]].tolist() == [0.0, share]


def test_an_activation_in_place_is_seen() -> None:
    """What it overwrites was kept."""
    model = Thresholds(*THRESHOLDS)
    model.activation = nn.ReLU(inplace=True)

    assert np.array_equal(
        follow([subject(model)], grey(), Walk(EPSILON, 10)).shares, known().shares
    )


def test_a_model_that_does_not_use_its_activation_is_refused() -> None:
    """Nothing could be counted."""
    with pytest.raises(ModelError, match="relu: no ReLU at work in its network"):
        follow([subject(Sum())], grey(4), Walk(EPSILON, 2))


def test_no_hook_is_left_behind() -> None:
    """The model is as it was."""
    model = Thresholds(*THRESHOLDS)
    follow([subject(model)], grey(), Walk(EPSILON, 2))

    assert not model.activation._forward_hooks
    assert not model.activation._forward_pre_hooks


def test_the_table_and_the_footer_say_what_was_followed() -> None:
    """A row for each point; models, data, count and seed."""
    data = known()
    columns = data.columns()

    assert len(columns["mean"]) == 2 * 2 * 10
    assert columns["mean"] == data.mean.ravel().tolist()
    assert columns["distance"][:3] == [0.1, 0.2, 0.3]
    text = footer(draw(data))
    assert "in 10 equal steps to a perturbation of Linf 0.1" in text
    assert "relu (01234567); greys, n = 3, seed 0, torch 2." in text
