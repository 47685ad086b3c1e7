"""The files of each split, by their names, and whether all of them are there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.data.classes import shown
from bench.data.foreign import what_is
from bench.data.splits import called_train, choose, is_leftover, role_of, role_of_file
from bench.data.trees import holds_classes
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.data.base import Split

#: `…-00000-of-00004.parquet`, perhaps with a digest behind.
_SHARD = re.compile(
    r"(?P<stem>.*?)[-_. ](?P<index>\d+)[-_. ]?of[-_. ]?(?P<total>\d+)"
    r"([-_.][0-9a-z]+)?\.(parquet|tar)",
    re.IGNORECASE,
)
#: What stands before a number that counts copies or versions rather than parts.
_COPIES = re.compile(r".*(\(|(^|[-_. ])(v|ver|version|rev|copy|old|new|backup|bak)[-_. ]*)", re.I)
#: Numbers that are years when all are among them.
_YEARS = range(1900, 2101)


class NoSuchSplitError(DataError):
    """The split that was asked for is not there; the other one may be."""


def files_of(path: Path, wanted: str) -> tuple[Mapping[Split, Sequence[Path]], list[str]]:
    """The files of each split, in order, and sentences on what was chosen.

    Args:
        path: a Parquet file, or a folder of them.
        wanted: the part to evaluate in place of the test split, by name; empty for none.

    Raises:
        DataError: there is none, or which files are which split cannot be told.
    """
    if not path.is_dir():
        return _single(path, wanted)
    place, parts, notes = _parts(path)
    found = {name: (role_of(name) or role_of_file(f"{name}.parquet"), path) for name in parts}
    known = {n: part for n, part in found.items() if part[0] or n.lower() == wanted.lower()}
    chosen, more = choose(known, wanted, str(place))
    if rest := sorted(found.keys() - known.keys()):
        more.append(f"of no split by their names, not read: {shown(rest)}")
    return {split: parts[name] for split, name in chosen.items()}, [*notes, *more]


def _single(path: Path, wanted: str) -> tuple[Mapping[Split, Sequence[Path]], list[str]]:
    if wanted:
        raise DataError(f"{path.name} is one file, so that [split={wanted}] has nothing to choose")
    match = _SHARD.fullmatch(path.name)
    if match and int(match["total"]) > 1:
        raise DataError(
            f"{path.name} is one of {int(match['total'])} files of a split; give the folder that "
            "holds them all, or rename it if it is meant alone"
        )
    if path.name.lower().startswith("train"):
        return {"train": [path]}, []
    role = role_of_file(path.name)
    notes = [f"{path.name} is evaluated in place of a test split"] if role == "validation" else []
    if called_train(path.stem):
        notes = [f"the file is called {path.name}, and all of it is evaluated"]
    return {"test": [path]}, notes


def _parts(path: Path) -> tuple[Path, dict[str, list[Path]], list[str]]:
    """Where the files lie, and which of them go together, by the name of the part.

    They lie in the folder, or in its `data`, or in the one folder of a configuration, as the Hub
    writes what it converts; or each part lies in a folder called after it.

    Raises:
        DataError: they lie in both, or in several other folders.
    """
    place, notes = path, []
    own, data = files_in(path), files_in(path / "data")
    if own and data:
        raise DataError(
            f"{str(path)!r} holds Parquet files, and its folder data as well; say which are meant: "
            f"parquet:{path / 'data'}, or move the others elsewhere"
        )
    if data:
        place, own = path / "data", data
        notes.append("its files lie in data/")
    if own:
        parts: dict[str, list[Path]] = {}
        for file in own:
            parts.setdefault(_part_of(file), []).append(file)
        return place, parts, notes
    below = {f.name: files_in(f) for f in sorted(path.iterdir()) if f.is_dir()}
    below = {name: files for name, files in below.items() if files}
    partial = [name for name in below if name.lower().startswith("partial-")]
    if partial:
        raise DataError(
            f"{str(path)!r} holds a part of its data ({shown(partial)}); fetch the rest"
        )
    if any(role_of(name) for name in below):
        return path, below, notes
    if hive := [f.name for f in sorted(path.glob("*=*")) if f.is_dir()]:
        splits = [name for name in hive if role_of(name.partition("=")[2])]
        advice = (
            f"rename {splits[0]} to {splits[0].partition('=')[2]}, and the others likewise"
            if splits
            else "write them as one test.parquet, where that is a column: "
            "pyarrow.dataset.dataset(FOLDER, partitioning='hive').to_table()"
        )
        raise NoSuchSplitError(
            f"{str(path)!r} has its files in folders that are values of a column ({shown(hive)}), "
            f"which are not read: {advice}"
        )
    deeper = (file.parent for file in path.glob("*/*/*.parquet"))
    deeper = (place.parent if role_of(place.name) else place for place in deeper)
    places = [*(path / name for name in below), *sorted({*deeper})]
    if len(places) == 1:
        place, parts, notes = _parts(places[0])
        return place, parts, [f"its files lie in {places[0].relative_to(path).as_posix()}/", *notes]
    hint = f": they lie in {shown([str(p.relative_to(path)) for p in places])}" if places else ""
    found = "" if places else what_is(path)
    if not (places or found) and holds_classes(path):
        found = "it holds folders of images: give it as folder:PATH"
    raise NoSuchSplitError(
        f"{path.name} has no test split: no test-*.parquet in {str(path)!r}{hint}"
        + (f"; give parquet:{places[0]}" if places else "")
        + (f" ({found})" if found else "")
    )


def files_in(folder: Path, ending: str = ".parquet") -> list[Path]:
    """The files in a folder that end so, in whatever case, sorted.

    Raises:
        DataError: one of them is a link to nothing.
    """
    if not folder.is_dir():
        return []
    every = [file for file in folder.iterdir() if file.suffix.lower() == ending]
    named = sorted(file for file in every if not is_leftover(file.name))
    for file in named:
        if file.is_symlink() and not file.exists():
            raise DataError(
                f"{str(file)!r} is a link to nothing: fetch what it leads to, or remove it"
            )
    return [file for file in named if file.is_file()]


def _part_of(file: Path) -> str:
    """The name of the part that a file belongs to: `train` of `train-00000-of-00004.parquet`."""
    match = _SHARD.fullmatch(file.name)
    stem = match["stem"] if match else file.stem
    role = role_of_file(file.name)
    if role is None:
        return stem
    return re.split(r"[-_. ]", stem)[0] if role_of(stem) is None else stem


def check_complete(files: Sequence[Path]) -> None:
    """Refuse a split of which some files are missing or doubled, by their names.

    Raises:
        DataError: they do not say the same number of files, one is there twice, or one is not;
            or nothing in their names says that they belong together.
    """
    folder = files[0].parent.name
    reached: dict[tuple[int, int], str] = {}
    for file in files:
        status = file.stat()
        other = reached.setdefault((status.st_dev, status.st_ino), file.name)
        if other != file.name:
            raise DataError(
                f"{folder} holds a file of a split twice: {other} and {file.name} are one by a "
                "link; remove one of them"
            )
    matches = [_SHARD.fullmatch(file.name) for file in files]
    if not any(matches):
        _check_numbers(files)
        return
    loose = [file.name for file, match in zip(files, matches, strict=True) if not match]
    totals = sorted({int(match["total"]) for match in matches if match})
    if loose or len(totals) > 1:
        raise DataError(
            f"{folder} mixes files of one split that do not belong together: "
            f"{shown([file.name for file in files])}; leave those of one download"
        )
    indices = [int(match["index"]) for match in matches if match]
    twice = [f.name for f, index in zip(files, indices, strict=True) if indices.count(index) > 1]
    if twice:
        raise DataError(
            f"{folder} holds a part of a split twice: {shown(twice)}; leave those of one download"
        )
    first = min(min(indices), 1) if len(files) == totals[0] else 0
    missing = sorted({*range(first, first + totals[0])} - {*indices})
    if missing or len(files) != totals[0]:
        raise DataError(
            f"{folder} holds {len(files)} of the {totals[0]} files that {files[0].name} belongs "
            f"to; fetch the others (number {shown([*map(str, missing)])})"
        )


def _check_numbers(files: Sequence[Path]) -> None:
    """Refuse files whose numbers leave one out, or which have none: `test.parquet`, `test (1)`."""
    folder, names = files[0].parent.name, [file.name for file in files]
    numbers = re.findall(r"(\d+)\.\w+$", names[0]) if len(names) == 1 else _numbers(names)
    if not numbers and len(names) > 1:
        scheme = "webdataset" if files[0].suffix.lower() == ".tar" else "parquet"
        raise DataError(
            f"{folder} holds several files of one split, and no numbers in their names say that "
            f"they belong together: {shown(names)}; give the one that is meant, such as "
            f"{scheme}:{files[0]}, or leave it alone there"
        )
    padded = all(re.match(r"0\d{3}", number) for number in numbers)
    if len(names) == 1 and not (numbers and padded):  # a year, a version
        return
    counts = [*map(int, numbers)]
    missing = sorted({*range(min(counts), max(counts))} - {*counts})
    if missing or (padded and min(counts) > 1):
        raise DataError(
            f"{folder} holds {shown(names)}: by their numbers, others are missing; fetch them"
        )


def _numbers(names: Sequence[str]) -> list[str]:
    """The one number in which names of files differ; none where it is that of copies or years.

    It may stand anywhere: `0000.parquet`, `part-00000-0a1b.snappy.parquet`.
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    differing = [place for place, same in enumerate(zip(*parts, strict=False)) if len({*same}) > 1]
    if len({*map(len, parts)}) > 1 or len(differing) != 1 or differing[0] % 2 == 0:
        return []
    found = [part[differing[0]] for part in parts]
    numbers = [*map(int, found)]
    copies = _COPIES.fullmatch(parts[0][differing[0] - 1]) or len({*numbers}) < len(numbers)
    return [] if copies or all(number in _YEARS for number in numbers) else found
