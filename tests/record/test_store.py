"""Files that are whole or absent, and records that survive a round trip."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from bench.api import Flag
from bench.errors import StoreError
from bench.record.adversarial import BLOCK, Found, Smallest
from bench.record.files import canonical_json, is_held, locked, read_json, write_bytes
from bench.record.outcomes import COLUMNS, Outcomes, Totals
from bench.record.statistics import wilson

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new content is gone, the old is whole, and nothing half written is left."""
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"disk is full.*run the same command again"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where a folder has to be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")
    with pytest.raises(StoreError, match="cannot write"), locked(tmp_path / "file"):
        pass


def test_a_folder_is_held_until_its_process_ends(tmp_path: Path) -> None:
    """A second process is told at once by whom; killed, the first one lets go."""
    code = (
        "import sys, time, pathlib\n"
        "from bench.record.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print(flush=True); time.sleep(60)\n"
    )
    assert not is_held(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_held(tmp_path)
        said = f"in use by process {holder.pid};"
        with pytest.raises(StoreError, match=said), locked(tmp_path):
            pass
        holder.kill()
    assert not is_held(tmp_path)
    with locked(tmp_path):
        assert is_held(tmp_path)


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Not JSON, and not there."""
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StoreError, match="is not JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(StoreError, match="cannot read"):
        read_json(tmp_path / "none.json")


def test_canonical_json_refuses_nan() -> None:
    """A figure that is no number never reaches a file."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"accuracy": float("nan")})


FLAGS = (Flag("", "a flag"), Flag("autoattack-square", "AutoAttack: a sentence"))


def outcomes(n: int = 3) -> Outcomes:
    """A small table with every column."""
    frame = pd.DataFrame(
        {
            name: ["" if kind == "str" else np.zeros(1, dtype=kind)[0]] * n
            for name, kind in COLUMNS.items()
        }
    )
    return Outcomes(frame, Totals(10, 5, 3, 0.25), FLAGS)


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    """Frame, totals and flags."""
    outcomes().save(tmp_path / "shard.parquet")
    loaded = Outcomes.load(tmp_path / "shard.parquet")
    pd.testing.assert_frame_equal(loaded.frame, outcomes().frame, check_dtype=False)
    assert loaded.totals == Totals(10, 5, 3, 0.25)
    assert loaded.flags == FLAGS


def test_flags_of_older_files_get_their_identifiers(tmp_path: Path) -> None:
    """They held sentences alone; what AutoAttack said is known again, and nothing else."""
    said = ("AutoAttack: the gradient is zero for some examples", "gradient is zero, says x")
    Outcomes(outcomes().frame, Totals(), tuple(Flag("", text) for text in said)).save(
        tmp_path / "shard.parquet"
    )
    found = Outcomes.load(tmp_path / "shard.parquet").flags
    assert found == (Flag("autoattack-zero-gradient", said[0]), Flag("", said[1]))


def test_damaged_and_foreign_outcomes_are_refused(tmp_path: Path) -> None:
    """Bytes that are no Parquet, a Parquet file of somebody else's, one without a column."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "b.parquet")
    lacking = outcomes()
    lacking.frame = lacking.frame.drop(columns="margin")
    lacking.save(tmp_path / "c.parquet")
    for name, message in (("a", "damaged"), ("b", "not written by Winnow"), ("c", "margin")):
        with pytest.raises(StoreError, match=message):
            Outcomes.load(tmp_path / f"{name}.parquet")


def test_the_smallest_adversarial_examples_do_not_depend_on_the_order(tmp_path: Path) -> None:
    """Any order of arrival, over several files and a reopening, ends in the same bytes."""
    generator = np.random.RandomState(0)
    found = [
        Found(int(i), float(d), f"attack-{k}", np.full((1, 2, 2), d, dtype=np.float32))
        for k, (i, d) in enumerate(
            zip(generator.randint(0, 2 * BLOCK, 200), generator.choice(5, 200) / 10, strict=True)
        )
    ]
    contents = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        shuffled = [found[i] for i in np.random.RandomState(seed).permutation(len(found))]
        for start in range(0, 200, 40):
            Smallest(folder).add(shuffled[start : start + 40])
        contents.append({p.name: p.read_bytes() for p in sorted(folder.iterdir())})
        best = Smallest(folder).all()
        for index, item in best.items():
            assert item.distance == min(f.distance for f in found if f.example == index)
            assert item.input.max() == np.float32(item.distance)
    assert contents[0] == contents[1] == contents[2]
    assert sorted(contents[0]) == ["0000.safetensors", "0001.safetensors"]


def test_a_damaged_adversarial_file_is_refused(tmp_path: Path) -> None:
    """By name."""
    Smallest(tmp_path).add([Found(0, 0.1, "pgd @ 0.1", np.zeros((1, 2, 2), dtype=np.float32))])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match="is damaged"):
        Smallest(tmp_path).all()


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_newcombe_s(successes: int, n: int, low: float, high: float) -> None:
    """Against the published examples."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
