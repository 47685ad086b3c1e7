"""A run's folder, changed at random: the same figures, a named fault, or one line; nothing else.

`WINNOW_MUTATIONS=2000 pytest tests/run/test_mutations.py` tries as many as it says.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from bench.errors import WinnowError
from bench.record.damage import DAMAGE
from bench.record.files import read_json
from bench.record.outcomes import Outcomes
from bench.run.verification import verify_run
from tests.run.forging import SOURCE, Forger, Silent, small_run
from tests.toy_models import Sum

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

#: How many changes are tried; each with its own seed, so that more repeat the first ones.
COUNT = int(os.environ.get("WINNOW_MUTATIONS", "25"))
#: What a value of a JSON file becomes.
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 10**25, 0.5, -1e300, "", "0", "nan", "8/255", "1e9999999",
    "../../x", "\x1b[2J\n", "\ud800", "é" * 300, [], [1], {}, {"a": {"b": []}}, [[[[]]]],
)  # fmt: skip
#: What a number of an outcome becomes.
NUMBERS = (0, 1, -1, 2, 100, 10**9, -(2**62), 0.0, 1e-9, 0.3, 1e300, float("nan"), float("inf"))


class Original(NamedTuple):
    """A run before it is changed."""

    folder: Path
    model: str
    """`FILE:FACTORY`."""
    figures: dict[str, Any]


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What a reader quotes of each defense: clean accuracy, worst cases, verdicts."""
    return {
        name: [part["clean_accuracy"], part["worst_case"], part.get("verdict")]
        for name, part in summary["defenses"].items()
    }


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    """Two runs, one of them examined."""
    file = tmp_path_factory.mktemp("models") / "models.py"
    file.write_text(SOURCE)
    found = []
    for model, examine in ((Sum, False), (Silent, True)):
        folder = small_run(model(), tmp_path_factory.mktemp("runs"), examine=examine)
        summary = read_json(folder / "summary.json")
        found.append(Original(folder, f"{file}:{model.__name__}", figures(summary)))
    return found


def a_file(draw: random.Random, forger: Forger, ending: str = "") -> Path:
    """One of the run's files."""
    files = sorted(
        p for p in forger.folder.rglob(f"*{ending}") if p.is_file() and p.name != ".lock"
    )
    return draw.choice(files)


def flip(draw: random.Random, forger: Forger) -> None:
    """A bit, or a few."""
    path = a_file(draw, forger)
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 20))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def cut(draw: random.Random, forger: Forger) -> None:
    """A file ends early, or goes on."""
    path = a_file(draw, forger)
    data = path.read_bytes()
    path.write_bytes(draw.choice((data[: draw.randrange(len(data))], b"", data + b"\0x", data * 2)))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = []
    for key in keys if isinstance(value, (dict, list)) else ():
        found += [(*path, key), *places(value[key], (*path, key))]
    return found


def change_json(draw: random.Random, forger: Forger) -> None:
    """A value becomes another, of another type, of another place, twice itself, or nothing."""
    path = a_file(draw, forger, ".json")
    content = read_json(path)
    spots = places(content)
    if not spots:
        return
    *way, last = draw.choice(spots)
    inner = functools.reduce(lambda part, key: part[key], way, content)
    match draw.randrange(4):
        case 0:
            del inner[last]
        case 1:
            *other, key = draw.choice(spots)
            inner[last] = functools.reduce(lambda part, k: part[k], other, content)[key]
        case 2 if isinstance(inner, list):
            inner.append(inner[last])
        case _:
            inner[last] = draw.choice(STRANGE)
    path.write_bytes(json.dumps(content, sort_keys=True, indent=2).encode())


def break_json(draw: random.Random, forger: Forger) -> None:
    """What is no JSON of Winnow."""
    texts = (b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00", b"NaN", b"[1e999]", b"null", b"{}",
             b"[]", b"1" * 5000, b'{"a": 1, "a": 2}', b'"\\ud800"')  # fmt: skip
    a_file(draw, forger, ".json").write_bytes(draw.choice(texts))


def change_cell(draw: random.Random, forger: Forger) -> None:
    """A value of an outcome, or a column of them."""
    path = a_file(draw, forger, ".parquet")
    outcomes = Outcomes.load(path)
    frame = outcomes.frame
    column = draw.choice(list(frame.columns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match draw.randrange(6):
            case 0:
                outcomes.frame = frame.drop(columns=column)
            case 1:
                outcomes.frame = frame.astype({column: draw.choice(("str", "float32", "object"))})
            case 2:
                outcomes.frame = frame.sample(frac=1.0, random_state=draw.randrange(99))
            case 3:
                frame[column] = frame[draw.choice(list(frame.columns))]
            case _:
                put(draw, frame, column)
    outcomes.save(path)


def put(draw: random.Random, frame: pd.DataFrame, column: str) -> None:
    """Another value, of the column's own type where there is one."""
    row = draw.randrange(len(frame))
    kind = frame[column].to_numpy().dtype
    if kind.kind == "b":
        frame.loc[row, column] = not frame.loc[row, column]
    elif column == "fault":
        frame.loc[row, column] = draw.choice(("not finite", "outside the ball or box", "x"))
    else:
        value = np.array([draw.choice(NUMBERS)]).astype(kind.str)[0]
        frame.loc[row, column] = value


def change_note(draw: random.Random, forger: Forger) -> None:
    """What a shard says of itself."""
    path = a_file(draw, forger, ".parquet")
    outcomes = Outcomes.load(path)
    match draw.randrange(3):
        case 0:
            outcomes.totals.forwards = draw.choice((-1, 10**30, "many", None, 1.5))  # type: ignore[assignment]
        case 1:
            outcomes.place = None
        case _:
            outcomes.place = outcomes.place and outcomes.place._replace(
                **draw.choice(({"attack": "x"}, {"epsilon": "1e99999999"}, {"repeat": 1}))
            )
    outcomes.save(path)


def change_example(draw: random.Random, forger: Forger) -> None:
    """A stored adversarial example."""
    found = forger.found()
    index = draw.choice(sorted(found))
    item = found.pop(index)
    changes: tuple[dict[str, Any], ...] = (
        {"distance": draw.choice([float(x) for x in NUMBERS])},
        {"example": draw.choice((0, 7, 49))},
        {"input": item.input * draw.choice((0.0, 0.5, -1.0, 1e30))},
        {"input": item.input + np.float32(draw.choice((1e-8, 1e-3)))},
        {"origin": "\x1b" * 9},
    )
    if draw.random() < 0.8:
        changed = item._replace(**draw.choice(changes))
        found[changed.example] = changed
    forger.write_found(found)


def move(draw: random.Random, forger: Forger) -> None:
    """Files change places, go, come, or become what is no file."""
    path, other = a_file(draw, forger), a_file(draw, forger)
    match draw.randrange(7):
        case 0:
            path.unlink()
        case 1:
            first, second = path.read_bytes(), other.read_bytes()
            path.write_bytes(second)
            other.write_bytes(first)
        case 2:
            shutil.copy(path, path.with_name(draw.choice(("x", "0009.parquet", "a.safetensors"))))
        case 3:
            path.unlink()
            os.mkfifo(path)
        case 4:
            path.unlink()
            path.symlink_to(draw.choice((other, "/dev/zero", "/etc/hostname", ".", "nowhere")))
        case 5:
            path.unlink()
            path.mkdir()
        case _:
            shutil.rmtree(path.parent) if path.parent != forger.folder else path.unlink()


CHANGES: tuple[Callable[[random.Random, Forger], None], ...] = (
    flip, cut, change_json, change_json, break_json, change_cell, change_cell, change_note,
    change_example, move,
)  # fmt: skip


def change(seed: int, original: Original, place: Path) -> tuple[Path, str]:
    """A copy of a run with one to three changes, and what was done."""
    draw = random.Random(seed)
    folder = place / original.folder.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original.folder, folder)
    forger, done = Forger(folder), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        done.append(draw.choice(CHANGES))
        # What an earlier change damaged a later one may not be able to read.
        try:
            done[-1](draw, forger)
        except (WinnowError, *DAMAGE, IndexError, UnicodeError):
            continue
    how = draw.choice(("as it is", "manifest", "everything"))
    if how != "as it is":
        try:
            forger.rewrite() if how == "everything" else forger.rewrite_manifest()
        except (WinnowError, *DAMAGE):
            how += ", which failed"
    return folder, f"{', '.join(change.__name__ for change in done)}; rewritten: {how}"


def test_no_change_is_verified_with_other_figures_and_none_ends_in_a_traceback(
    originals: list[Original], tmp_path: Path
) -> None:
    """Bytes, JSON values, outcomes, examples and kinds of files, with and without rewriting."""
    outcomes: Counter[str] = Counter()
    for seed in range(COUNT):
        original = originals[seed % 5 == 4]
        folder, what = change(seed, original, tmp_path)
        told = f"seed {seed}: {what}"
        try:
            findings = verify_run(folder, model=original.model, device="cpu")
        except WinnowError as error:
            refused = str(error)
            findings = None
        except Exception as error:
            raise AssertionError(told) from error
        if findings is None:
            assert "\n" not in refused, told
            outcomes["refused in one line"] += 1
        elif findings.verified:
            assert figures(read_json(folder / "summary.json")) == original.figures, told
            outcomes["verified with the same figures"] += 1
        else:
            assert all(text.isprintable() for text in findings.faults), told
            outcomes["named as a fault"] += 1
    report(outcomes)
    assert sum(outcomes.values()) == COUNT


def report(outcomes: Counter[str]) -> None:
    """Say what came of how many, to whoever asked for more than usual."""
    if "WINNOW_MUTATIONS" in os.environ:
        warnings.warn(f"{COUNT} changes: {dict(outcomes)}", stacklevel=1)
