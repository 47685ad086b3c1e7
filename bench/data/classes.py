"""Class names: their order, and from the names of some data to the logits of a model."""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bench.data.reading import expanded
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

#: A name with one number that tells it from the others: what stands before it, it, and the rest.
_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)")
#: A number at the beginning of a name.
_LEADING = re.compile(r"\d+")
#: A synset of WordNet, with which a line may begin whose rest describes it.
_SYNSET = re.compile(r"n\d{8}(?=\s)")
#: What a column of names is called, and what others are, by which a heading is known.
_TITLES = {
    *("name", "names", "class", "classes", "class_name", "class_names", "classname", "label"),
    *("labels", "label_name"),
}
_HEADINGS = _TITLES | {
    *("", "category", "synset", "wnid", "words", "description", "id", "class_id", "label_id"),
    *("index", "idx", "class_index", "class_idx", "number"),
}
#: A number before a name, or between a synset and a name, and one behind it.
_LEADS = re.compile(r"(?P<synset>n\d{8}\s+)?(?P<index>\d+)[.:)]?\s+(?P<name>.+)")
_FOLLOWS = re.compile(r"(?P<name>.+?)\s+(?P<index>\d+)")
#: What stands for the 1,000 classes of ImageNet in place of a file.
IMAGENET = "imagenet"
#: More classes than anybody tells apart are a label that is none.
MOST_CLASSES = 100_000


def ordered(names: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Class names in their order, and a sentence on it where there was a choice.

    Numbered names (`0` … `11`, `class_1` … `class_12`, `0_airplane` … `11_moon`) go by their
    numbers, others by the alphabet.

    Raises:
        DataError: two of them are one name but for its spelling.
    """
    plain = sorted(set(names))
    spelled: dict[str, str] = {}
    for name in plain:
        if (other := spelled.setdefault(folded(name), name)) != name:
            raise DataError(
                f"the classes {other!r} and {name!r} differ in spelling alone; call them one name"
            )
    numbers = _numbers(plain)
    if not numbers:
        return tuple(plain), _by_alphabet(plain)
    found = [name for _, name in sorted(zip(numbers, plain, strict=True))]
    notes = []
    if found != plain:
        notes.append(
            f"numbered classes are in the order of their numbers ({shown(found)}), where "
            f"torchvision's ImageFolder takes the alphabet's ({shown(plain)})"
        )
    gaps = max(numbers) - min(numbers) >= len(numbers)
    if gaps and max(numbers) < MOST_CLASSES:  # numbers of synsets are not meant as labels
        notes.append(
            f"the numbers of the classes have gaps ({shown(found)}): a label is the place in this "
            "order, not the number"
        )
    advice = "; another order is given by [classes=FILE], a class a line" if notes else ""
    return tuple(found), "; ".join(notes) + advice


def _numbers(names: Sequence[str]) -> list[int]:
    """The number of each name, where that is all that differs or each begins with another one."""
    parts = [_NUMBERED.fullmatch(name) for name in names]
    alike = len({(part[1], part[3]) if part else None for part in parts}) == 1
    numbers = [int(part[2]) for part in parts if part and alike]
    if len(numbers) < len(names):
        numbers = [int(start[0]) for start in map(_LEADING.match, names) if start]
    return numbers if len({*numbers}) == len(names) else []


def _by_alphabet(names: Sequence[str]) -> str:
    """A sentence on sorted names that would be in another order by the numbers within them."""
    natural = sorted(names, key=lambda name: (_natural(name), name))
    first = next((place for place, name in enumerate(natural) if name != names[place]), None)
    if first is None:
        return ""
    before = "…, " if first else ""
    return (
        f"classes are in the alphabet's order ({before}{shown(names[first:])}), not in that of the "
        f"numbers in their names ({before}{shown(natural[first:])}); another order is given by "
        "[classes=FILE], a class a line"
    )


def _natural(name: str) -> list[tuple[int, int]]:
    """What sorts a name as the alphabet does but for numbers, which count as such."""
    return [
        (ord("0"), int(part)) if part.isascii() and part.isdecimal() else (ord(part), 0)
        for part in re.findall(r"[0-9]+|[^0-9]", name)
    ]


def numbered(labels: Collection[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes called by their numbers, up to the largest label, and sentences on them.

    Raises:
        DataError: a label that cannot be one.
    """
    largest = max(labels, default=-1)
    if largest >= MOST_CLASSES:
        raise DataError(
            f"a label is {largest}: labels count classes from 0, and cannot be that many"
        )
    names = tuple(map(str, range(largest + 1)))
    absent = sorted({*range(largest + 1)} - {*labels})
    if not absent:
        return names, ()
    return names, (
        f"no image has the label {shown([*map(str, absent)])}; classes are 0 … {largest}, as "
        "nothing else names them",
    )


def folded(name: str) -> str:
    """A name without what people do not tell names apart by: case, and spaces around it."""
    return name.casefold().strip()


def shown(names: Sequence[str], most: int = 4) -> str:
    """The first names of some, in one line, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    plain = (name if name.isprintable() else repr(name)[1:-1] for name in names[:most])
    return ", ".join(plain) + more


def read_classes(path: Path) -> list[tuple[str, ...]]:
    """Read a file of class names in the order of a model's logits: for each, what it is called.

    A text has a class a line: a name, names with commas between them, or a synset of ImageNet and
    such names; where each line has a number as well, and these are 0 … n-1, they are the indices.
    JSON is a list of names, names by index (each perhaps a list), or indices by name.
    `imagenet`, where it is no file, is ImageNet-1k as timm knows it: WordNet's ids, and names.

    Raises:
        DataError: no such file, it is not of that form, has a heading, comments or other numbers,
            or timm is not installed.
    """
    if str(path) == IMAGENET and not path.exists():
        return _imagenet()
    try:
        text = expanded(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"classes={path} cannot be read ({reason})") from error
    read = _from_json if text.lstrip()[:1] in ("{", "[") else _from_lines
    found = read(path, text)
    if not found:
        raise DataError(f"classes={path} is empty; write a class a line, in the logits' order")
    return found


def _from_lines(path: Path, text: str) -> list[tuple[str, ...]]:
    numbered_lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [line for _, line in numbered_lines if line]
    for place, line in numbered_lines:
        columns = re.split(r"[,;\s]", re.sub(r'"|unnamed: 0', "", line.lower()))
        known = _HEADINGS if len(columns) > 1 else _TITLES
        heading = [line] == lines[:1] and {*columns} <= known
        if heading or line.startswith("#"):
            raise DataError(
                f"line {place} of classes={path} is a {'heading' if heading else 'comment'} "
                f"({line[:40]!r}), where every line is a class: remove it, or write a JSON list"
            )
    if indexed := _indexed(path, lines):
        pairs = sorted(zip(indexed, lines, strict=True))
        return [(*_called(name), *_called(line)) for (_, name), line in pairs]
    return [*map(_called, lines)]


def _indexed(path: Path, lines: Sequence[str]) -> list[tuple[int, str]]:
    """The index that each line has, and the name beside it; nothing where lines are names alone.

    Raises:
        DataError: each has a number beside its name, and these are no indices.
    """
    for pattern in (None, _LEADS, _FOLLOWS):
        each = (_words(pattern, line) if pattern else _columns(line) for line in lines)
        found = [pair for pair in each if pair]
        if len(found) < len(lines) or len({name for _, name in found}) < len(lines):
            continue
        numbers = sorted(index for index, _ in found)
        if numbers == [*range(len(lines))]:
            return found
        counts = numbers == [*range(1, len(lines) + 1)]  # a Boeing 707 does not
        if counts or pattern is not _FOLLOWS:
            raise DataError(
                f"classes={path} has numbers beside the names ({'; '.join(lines[:2])}), and they "
                f"are not 0 … {len(lines) - 1}, each once, so that nothing tells the logits' "
                "order: count from 0, or write a JSON list of names in that order"
            )
    return []


def _columns(line: str) -> tuple[int, str] | None:
    """The one number among what commas, semicolons or tabs part, and the rest; -1 for several."""
    parts = [part for each in re.split(r"[,;\t]", line) if (part := each.strip("\"' "))]
    numbers = [part for part in parts if part.isdecimal()]
    if not 0 < len(numbers) < len(parts):
        return None
    rest = ", ".join(part for part in parts if part not in numbers)
    return int(numbers[0]) if len(numbers) == 1 else -1, rest


def _words(pattern: re.Pattern[str], line: str) -> tuple[int, str] | None:
    match = pattern.fullmatch(line)
    if match is None:
        return None
    return int(match["index"]), (match.groupdict().get("synset") or "") + match["name"]


def _imagenet() -> list[tuple[str, ...]]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it imports
            from timm.data import ImageNetInfo
    except ImportError as error:
        raise DataError(
            f"classes={IMAGENET} needs timm, which knows WordNet's ids: pip install "
            "'winnow-bench[zoo]'; or name a file, a class a line"
        ) from error
    known = ImageNetInfo("imagenet-1k")
    pairs = zip(known.label_names(), known.label_descriptions(detailed=False), strict=True)
    return [_called(f"{synset} {names}") for synset, names in pairs]


def _called(line: str) -> tuple[str, ...]:
    synset = _SYNSET.match(line)
    words = line[synset.end() :].strip() if synset else line
    synonyms = [part.strip() for part in words.split(",") if part.strip()]
    return (*([synset[0]] if synset else []), words, *synonyms)


def _from_json(path: Path, text: str) -> list[tuple[str, ...]]:
    wrong = DataError(
        f"classes={path} has to be a JSON list of names, names by index 0, 1, 2, …, or such "
        "indices by name"
    )
    try:
        content = json.loads(text)
        if isinstance(content, dict) and all(isinstance(v, int) for v in content.values()):
            content = {index: name for name, index in content.items()}
        if isinstance(content, dict):
            content = {int(index): names for index, names in content.items()}
            content = [content[index] for index in range(len(content))]
        return [(item,) if isinstance(item, str) else _texts(item) for item in content]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise wrong from error


def _texts(item: Any) -> tuple[str, ...]:
    if not (isinstance(item, list) and item and all(isinstance(name, str) for name in item)):
        raise TypeError
    return tuple(item)


def indices_of(
    names: Collection[str], known: Sequence[tuple[str, ...]], owner: str, source: str
) -> dict[str, int]:
    """For each name its index among known classes.

    Args:
        names: of some data.
        known: what each class is called, in the order of the logits.
        owner: of the names, for errors.
        source: of the known classes, for errors.

    Raises:
        DataError: a name is none of them, is called so twice, or two names are one class.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for index, called in enumerate(known):
        for name in dict.fromkeys(called):
            places[name].append(index)
    strange = [name for name in names if name not in places]
    if strange:
        raise DataError(
            f"{owner} has {len(strange)} of {len(names)} classes that are not among those of "
            f"{source}: {shown(strange)}; those are {shown([called[0] for called in known])}"
        )
    twice = [name for name in names if len(places[name]) > 1]
    if twice:
        raise DataError(
            f"{source} has {twice[0]!r} more than once, as class {places[twice[0]][0]} and "
            f"{places[twice[0]][1]}: give each a name of its own"
        )
    found = {name: places[name][0] for name in names}
    if len(set(found.values())) < len(found):
        raise DataError(f"two of the classes {shown(sorted(found))} are one class of {source}")
    return found
