"""The figure of the loss around an example."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from bench.data import open_dataset, subset
from bench.errors import CheckpointError, UsageError
from bench.figures.canvas import Walk, choose_epsilon, load_subjects
from bench.figures.landscape import Landscapes, draw, survey
from bench.threat import Epsilon
from tests.figures.models import footer, subject
from tests.toy_models import Sum, linear_examples

EPSILON = Epsilon.parse("1/8")


def centre(data: Landscapes) -> int:
    """The index of offset 0."""
    return len(data.offsets) // 2


@functools.cache
def linear() -> Landscapes:
    """Of the linear model."""
    return survey([subject(Sum())], linear_examples(), 2, Walk(EPSILON, 4))


def test_a_linear_model_s_loss_is_the_closed_form() -> None:
    """Softplus of twice the signed sum, which the gradient's sign moves by 16 pixels at a time."""
    data = linear()
    examples = linear_examples()
    s = float((examples.inputs[2] - 0.5).sum()) * (1 if examples.labels[2] else -1)

    assert data.offsets.tolist() == [k / 32 for k in range(-4, 5)]
    expected = [math.log1p(math.exp(-2 * (s - 16 * a))) for a in data.offsets]
    assert data.losses[0][:, 4] == pytest.approx(expected, rel=1e-4)


def test_a_linear_model_s_loss_grows_along_the_gradient() -> None:
    """Whatever the place along the random direction."""
    assert (np.diff(linear().losses[0], axis=0) > 0).all()


def test_the_random_direction_is_seeded_and_shared() -> None:
    """Two models see the same one; another seed gives another."""
    examples = linear_examples()
    twice = survey([subject(Sum()), subject(Sum())], examples, 2, Walk(EPSILON, 2))
    other = survey([subject(Sum())], examples, 2, Walk(EPSILON, 2, 1))

    assert np.array_equal(twice.losses[0], twice.losses[1])
    assert not np.array_equal(twice.losses[0], other.losses[0])
    assert np.array_equal(twice.losses[0][:, 2], other.losses[0][:, 2])


@functools.cache
def digits() -> Landscapes:
    """Of two committed models."""
    test = open_dataset("digits").load("test")
    subjects = load_subjects(["relu", "kwta"], "digits", test, {}, "cpu")
    return survey(subjects, subset(test, 4), 3, Walk(Epsilon.parse("0.3"), 3))


def test_the_middle_is_the_model_s_own_loss() -> None:
    """Of the committed weights, by a plain forward pass."""
    data = digits()
    test = open_dataset("digits").load("test")
    one = subset(test, 4).take([3])
    for place, each in enumerate(load_subjects(["relu", "kwta"], "digits", test, {}, "cpu")):
        with torch.no_grad():
            logits = each.model.module(one.inputs)[0].double()
        loss = torch.logsumexp(logits, 0) - logits[one.labels[0]]
        assert data.losses[place][3, 3] == pytest.approx(float(loss), abs=1e-5)


def test_what_is_drawn_is_the_loss_on_one_scale() -> None:
    """A surface and a map for each model, with the same limits."""
    data = digits()
    figure = draw(data)
    surfaces = [axes for axes in figure.axes if axes.name == "3d"]
    maps = [axes for axes in figure.axes if axes.get_xlabel() == "random" and axes.name != "3d"]

    assert [axes.get_title() for axes in surfaces] == ["relu", "kwta"]
    limits = (data.losses.min(), data.losses.max())
    for axes, flat, losses in zip(surfaces, maps, data.losses, strict=True):
        assert axes.get_zlim() == pytest.approx(limits)  # type: ignore[attr-defined]
        mesh = flat.collections[0]
        assert np.array_equal(np.asarray(mesh.get_array()).reshape(7, 7), losses)
        assert mesh.get_clim() == pytest.approx(limits)


def test_the_border_of_errors_is_where_the_model_errs() -> None:
    """The linear model errs where the loss of its two classes exceeds log 2."""
    data = linear()

    assert np.array_equal(data.wrong, data.losses > math.log(2))
    assert data.wrong.any()
    assert len(draw(data).axes[1].collections) == 2


def test_the_table_holds_every_point() -> None:
    """The row at the middle has the loss of the example."""
    data = linear()
    columns = data.columns()
    places = zip(columns["gradient"], columns["random"], columns["loss"], strict=True)

    assert len(columns["loss"]) == 81
    (loss,) = [loss for a, b, loss in places if a == b == 0]
    assert loss == data.losses[0, 4, 4]


def test_the_footer_names_models_data_and_seed() -> None:
    """With eight digits of the weights' digest."""
    text = footer(draw(linear()))

    assert "example 2, up to Linf 1/8 " in text
    assert "relu (01234567); sums, n = 1, seed 0, torch 2." in text


def test_epsilons_come_from_the_family_where_none_is_given() -> None:
    """The headline one or the largest; what no ball in the box has is refused."""
    assert choose_epsilon("", "digits").text == "0.1"
    assert choose_epsilon("", "digits", largest=True).text == "0.2"
    assert choose_epsilon("8/255", "digits").text == "8/255"
    with pytest.raises(UsageError, match="did you mean 8/255"):
        choose_epsilon("8", "digits")


def test_models_without_weights_are_refused() -> None:
    """As `run` refuses them; and so is no model."""
    test = open_dataset("digits").load("test")
    with pytest.raises(CheckpointError, match="python -m bench train"):
        load_subjects(["kwta[gamma=0.3]"], "digits", test, {}, "cpu")
    with pytest.raises(UsageError, match="no defense given"):
        load_subjects([], "digits", test, {}, "cpu")
