"""What `bench.evaluate` answers with: read, drawn and shown, against a model with a closed form."""

from __future__ import annotations

import html.parser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.errors import UnknownNameError, UsageError
from bench.record.results import outcomes_frame
from tests.toy_models import Sum, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = linear_examples(30)
RADII = ("0.02", "0.04")
ROBUST = {eps: float((linf_thresholds(EXAMPLES) > float(eps)).double().mean()) for eps in RADII}


def evaluated(**settings: Any) -> bench.Result:
    """The model whose every figure is known, attacked by what is exact on it."""
    return bench.evaluate(
        Sum(), EXAMPLES.inputs, EXAMPLES.labels, epsilons=RADII, attacks=["fgsm", "pgd[steps=5]"],
        examine=False, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result() -> bench.Result:
    """Of a run that is not stored."""
    return evaluated(name="sum")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bench.Result:
    """The same, stored and read back."""
    folder = evaluated(name="sum", out=tmp_path_factory.mktemp("runs")).folder
    assert folder is not None
    return bench.load_results(folder)


def test_figures_are_read_by_name(result: bench.Result) -> None:
    """The worst case of the headline epsilon, and that nobody examined it."""
    assert result.worst_case == pytest.approx(ROBUST["0.04"])
    assert result.verdict == "not examined"
    figure = f"{100 * ROBUST['0.04']:.1f}"
    assert repr(result).startswith(f"<Result: sum: worst case {figure} (")
    assert repr(result).endswith("at ε = 0.04, not examined, n = 30>")


def test_outcomes_have_the_columns_that_people_use(result: bench.Result) -> None:
    """Twelve of them; the rest of what is stored is in the full frame, of the same rows."""
    full, shown = result.outcomes_full, result.outcomes
    assert len(shown.columns) == 12
    assert "distance_linf" in shown
    assert "distance_l2" not in shown
    assert {"draws", "repeat", "distance_l2", "projected"} <= set(full)
    assert shown.equals(full[list(shown)])
    assert len(shown) == 2 * len(RADII) * len(EXAMPLES)


def test_outcomes_of_nothing_are_an_empty_frame(result: bench.Result) -> None:
    """As where every attack was left out."""
    empty = bench.Result(result.summary, outcomes_frame({}))
    assert empty.outcomes.empty


@pytest.mark.parametrize("kind", ["result", "stored"])
@pytest.mark.parametrize("epsilon", [None, 0.02, "0.03", "0.04"])
def test_adversarial_examples_are_those_that_the_closed_form_has(
    kind: str, epsilon: Any, request: pytest.FixtureRequest
) -> None:
    """Within epsilon, taken for another class by the model itself, and no example is missing."""
    found = request.getfixturevalue(kind).adversarial(epsilon)
    inputs, labels, attacks = found
    limit = float(epsilon or "0.04")
    clean = EXAMPLES.inputs[found.indices]
    away = (inputs.double() - clean.double()).flatten(1).abs().amax(dim=1)
    assert bool((away <= limit + 1e-6).all())
    assert torch.allclose(away, found.distances)
    assert torch.equal(labels, EXAMPLES.labels[found.indices])
    assert bool((Sum()(inputs).argmax(dim=1) != labels).all())
    assert set(attacks) <= {"fgsm", "pgd[steps=5]"}
    assert len(attacks) == len(found)
    # A fast gradient step of the smaller radius is exact; of radii between, only up to it.
    reached = max(float(radius) for radius in RADII if float(radius) <= limit)
    sure = (linf_thresholds(EXAMPLES) <= reached).nonzero()[:, 0]
    assert set(sure.tolist()) <= set(found.indices.tolist())
    if limit == reached:
        assert len(sure) == len(found)


@pytest.mark.parametrize("epsilon", [0.05, "0.01, 0.02", -1])
def test_an_epsilon_that_no_attack_reached_has_none(result: bench.Result, epsilon: Any) -> None:
    """Nothing is said about what was not attacked."""
    with pytest.raises(UsageError, match="epsilon"):
        result.adversarial(epsilon)


def test_the_curve_is_the_closed_form(result: bench.Result) -> None:
    """On axes of the caller's, or on new ones: clean accuracy at 0, then the worst case."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert result.curve(ax) is ax
    own = result.curve()
    for axes in (ax, own):
        (line,) = axes.get_lines()
        assert np.allclose(np.asarray(line.get_ydata(), float), [1.0, *ROBUST.values()])
    assert any(pyplot.figure(number) is own.figure for number in pyplot.get_fignums())
    pyplot.close("all")


@pytest.mark.parametrize("order", ["closest", "hardest"])
def test_a_gallery_shows_the_examples_with_the_smallest_or_largest_distance(
    stored: bench.Result, order: Any
) -> None:
    """The image, what the attack made of it, and the scaled difference, a row each."""
    found = stored.adversarial()
    by_distance = found.distances.argsort(stable=True, descending=order == "hardest")
    figure = stored.gallery(n=2, order=order)
    pictures = [panel.get_images()[0].get_array() for panel in figure.get_axes()]
    assert len(pictures) == 6
    first = int(by_distance[0])
    assert np.allclose(np.asarray(pictures[0]), EXAMPLES.inputs[found.indices[first], 0])
    assert np.allclose(np.asarray(pictures[1]), found.inputs[first, 0])
    assert np.abs(np.asarray(pictures[2]) - 0.5).max() == pytest.approx(0.5)
    label = str(int(found.labels[first]))
    assert figure.get_axes()[0].get_title() == label
    assert figure.get_axes()[1].get_title().startswith(f"{1 - int(label)}, margin -")


def test_a_gallery_of_nothing_says_so(result: bench.Result) -> None:
    """Nothing is broken within a tiny epsilon."""
    with pytest.raises(UsageError, match=r"no adversarial example was found within ε = 0\.00001"):
        result.gallery("0.00001")


class Tags(html.parser.HTMLParser):
    """Elements that are open, and every one that was."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open one."""
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the last."""
        assert self.open.pop() == tag


def test_a_notebook_shows_a_card(result: bench.Result) -> None:
    """Whole HTML with verdict and rows; nothing in it runs or is loaded, and names are text."""
    name = "<img src=//x onerror=alert(1)>&"
    part = result.summary["defenses"]["sum"]
    hostile = bench.Result({**result.summary, "defenses": {name: part}}, result.outcomes_full)
    text = hostile._repr_html_()
    tags = Tags(text)
    assert tags.open == []
    assert {tag for tag, _ in tags.seen} == {
        "div", "b", "table", "caption", "thead", "tbody", "tr", "th", "td"
    }  # fmt: skip
    assert all(set(attributes) <= {"style"} for _, attributes in tags.seen)
    assert f"{100 * ROBUST['0.04']:.1f}" in text
    assert "not examined" in text
    assert "fgsm" in text


def test_of_several_defenses_one_is_asked_for(result: bench.Result) -> None:
    """What is about one says which there are; `of` takes one with its outcomes."""
    part, frame = result.summary["defenses"]["sum"], result.outcomes_full
    two = bench.Result(
        {**result.summary, "defenses": {"sum": part, "other": part}}, frame, held=result.held
    )
    with pytest.raises(UsageError, match=r"several defenses \(sum, other\): say which, result.of"):
        _ = two.worst_case
    assert two.of("sum").worst_case == result.worst_case
    assert two.of("sum").outcomes.equals(result.outcomes)
    assert two.of("other").outcomes.empty
    with pytest.raises(UnknownNameError, match="defense of this run 'sums'; did you mean 'sum'"):
        two.of("sums")


def test_pictures_of_other_data_are_not_shown(stored: bench.Result, tmp_path: Path) -> None:
    """Examples that are not those of the run would stand beside adversarial ones of others."""
    import shutil

    from safetensors.torch import load_file, save_file

    assert stored.folder is not None
    folder = tmp_path / stored.folder.name
    shutil.copytree(stored.folder, folder)
    (path,) = folder.glob("examples*")
    tensors = load_file(path)
    save_file({**tensors, "inputs": tensors["inputs"].flip(0).contiguous()}, path)
    with pytest.raises(UsageError, match=r"is not what run .* was about"):
        bench.load_results(folder).adversarial()


class Pictures(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """CIFAR's shape, as torchvision gives it where nothing is asked of it: pictures and numbers."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        level = 118 + 3 * index
        return Image.new("RGB", (32, 32), (level, level, level)), int(level > 127)


def test_a_model_of_ones_own_is_evaluated_from_its_data_set_to_a_picture() -> None:
    """The mean level is what the model goes by: all within epsilon of the middle are broken."""
    model = Sum()
    torch.nn.init.constant_(model.scale, 0.01)  # no loss of so many pixels is flat
    result = bench.evaluate(model, Pictures(), epsilons=8 / 255, attacks="PGD", examine=False)
    levels = torch.tensor([(118 + 3 * i) / 255 for i in range(8)])
    away = (levels - 0.5).abs()
    assert result.worst_case == pytest.approx(float((away > 8 / 255).double().mean()))
    found = result.adversarial(8 / 255)
    assert found.indices.tolist() == (away <= 8 / 255).nonzero()[:, 0].tolist()
    picture = result.gallery(n=1).get_axes()[0].get_images()[0].get_array()
    assert picture is not None
    assert picture.shape == (32, 32, 3)
