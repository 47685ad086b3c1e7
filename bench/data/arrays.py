"""`npz:PATH`: images and labels as NumPy arrays, in one `.npz` file or a folder of `.npy` files."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.data.base import FAMILY_OF_SHAPE, Dataset, Split, chosen
from bench.data.classes import indices_of, numbered, ordered, read_classes, shown
from bench.data.foreign import what_is
from bench.data.mapped import as_inputs
from bench.data.numpy_files import ArrayFiles, axes_of, row_of_labels
from bench.data.reading import Reading
from bench.data.splits import choose, role_of
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from bench.api import Examples
    from bench.data.base import OnProgress
    from bench.data.splits import Role

What = Literal["image", "label"]
#: What arrays are called, besides the name of a split.
_CALLED: dict[What, tuple[str, ...]] = {
    "image": ("x", "image", "images", "img", "imgs", "data", "inputs", "input"),
    "label": ("y", "label", "labels", "target", "targets", "fine_labels"),
}
#: How whole numbers that are not of 8 bits become inputs, by dtype.
_TO_INPUTS = {
    "uint16": "divide them by 65535, or by what white is",
    "int8": "add 128 to them as int16 first, then divide by 255",
    "int16": "add 32768 to them as int32 first, then divide by 65535; or divide by what white is",
}
#: Splits in the names of arrays, wherever they stand.
_SPLITS = re.compile("train|test|val")
_CLASS_NAMES = ("class_names", "classes", "label_names")


class ArraysDataset(Dataset):
    """`npz:PATH`: arrays of images and labels, by the usual names or as `[image=…,label=…]` say.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), of 8 bits or in [0, 1]; labels are whole
    numbers, class names or one-hot rows. `x_test` and `test_images` are of the test split, arrays
    whose names say no split as well. Nothing is unpickled.
    """

    scheme = "npz"
    options: ClassVar[tuple[str, ...]] = ("image", "label", "classes", "split")

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        if not path.exists():
            raise DataError(
                f"there is no file or folder {str(path)!r}; give the path of a .npz file, or of a "
                "folder of .npy files"
            )
        packed = path.suffix.lower() == ".npz"
        found = "" if packed or path.is_dir() else what_is(path) or "it is of another kind"
        if found and not found.startswith("it is a NumPy archive"):
            raise DataError(f"{str(path)!r} is no .npz file: {found}")
        self.path = path
        self.reading = reading or Reading()
        called = path.resolve()
        self.name = (called.stem if packed else called.name) + str(self.reading)
        self._files = ArrayFiles(path)
        self._whole: dict[str, bool] = {}

    @property
    def family(self) -> str | None:
        """By the shape of its images."""
        split: Split = "test" if "test" in self._pairs else "train"
        return FAMILY_OF_SHAPE.get(self._images(split, [0]).shape[1:])

    def load(self, split: Split) -> Examples:
        """All examples of a split, in the order of the arrays.

        Raises:
            DataError: no such arrays, or they are no images and labels.
        """
        return self._examples(split, range(len(self._labels(split))))

    def choose(
        self,
        split: Split,
        n: int,
        *,
        fewer: bool = False,
        on_progress: OnProgress = lambda done, of: None,
    ) -> Examples:
        """`n` examples of a split by their labels; of `.npy` files only these are read.

        Raises:
            DataError: as `load`.
        """
        labels = self._labels(split)
        count = min(n, len(labels)) if fewer else n
        return self._examples(split, chosen(labels, len(self.class_names), count, self.name))

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray:
        """These alone are converted."""
        import numpy as np

        every = chosen(self._labels(split), len(self.class_names), n, self.name)
        images = self._images(split, [every[place] for place in places])
        return np.ascontiguousarray(images.clip(0, 1))

    def digest(self, split: Split) -> str:
        """SHA-256 over what the examples are."""
        return self.load(split).digest

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the file of classes, an array of names, or the labels."""
        return self._classes[0]

    def _examples(self, split: Split, rows: Sequence[int]) -> Examples:
        import torch

        from bench.api import Examples

        images = torch.from_numpy(self._images(split, rows))
        for note in (*self._found[1], *self._classes[2]):
            self.note(note)
        labels = torch.from_numpy(self._labels(split)[[*rows]])
        return Examples.of(images, labels, self.class_names, self.name)

    def _images(self, split: Split, rows: Sequence[int]) -> np.ndarray:
        """Some images of a split, float32 in [0, 1], (N, C, H, W).

        Raises:
            DataError: they are no images.
        """
        import numpy as np

        name, array = self._pair(split)[0], self._stored_images(split)
        axes = axes_of(name, array.shape)
        some = np.ascontiguousarray(np.asarray(array[[*rows]]).reshape(len(rows), *axes[0]))
        some = some.transpose(0, *axes[1])
        if some.dtype == np.uint8 and some.max() <= 1 and 0 < array.max() <= 1:
            raise DataError(
                f"the images {name!r} are 0 and 1 in 8 bits, where white is 255: multiply them by "
                "255, or save them as floating point"
            )
        if some.dtype == np.uint8:
            return _eight_bits(some)
        if some.dtype.kind not in "fiu":
            raise DataError(f"the images {name!r} are {some.dtype}; they have to be numbers")
        if name not in self._whole:  # of all images: one alone may be black
            whole = bool((array == np.round(array)).all())
            self._whole[name] = whole and array.min() >= 0 and 1 < array.max() <= 255
            if self._whole[name]:
                self.note(f"the images {name!r} are whole numbers up to 255: divided by 255")
        if self._whole[name]:
            return _eight_bits(some)
        if some.dtype.kind in "iu" and not 0 <= array.min() <= array.max() <= 1:
            advice = _TO_INPUTS.get(str(some.dtype), "divide them by what white is")
            raise DataError(
                f"the images {name!r} are {some.dtype} from {array.min()} to {array.max()}, and "
                f"have to be in [0, 1]: {advice}"
            )
        return some.astype(np.float32)

    def _labels(self, split: Split) -> np.ndarray:
        """The label of every image of a split, int64."""
        import numpy as np

        labels = self._stored_labels(split)
        images = self._stored_images(split)
        if len(labels) != len(images):
            raise DataError(
                f"{self.name} has {len(images)} images and {len(labels)} labels of its {split} "
                f"split ({', '.join(self._pair(split))}); there has to be one for each"
            )
        if labels.dtype.kind == "U":
            places = self._classes[1]
            labels = np.array([places[label] for label in labels.tolist()], dtype=np.int64)
        classes = len(self._classes[0])
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(
                f"{self.name} has labels from {labels.min()} to {labels.max()}; they have to be in "
                f"0 … {classes - 1}, for there are {classes} classes"
            )
        return labels

    def _stored_images(self, split: Split) -> np.ndarray:
        """All images of a split as stored.

        Raises:
            DataError: they are no images, or there are none.
        """
        name = self._pair(split)[0]
        array = self._array(name)
        axes_of(name, array.shape)
        if not array.size:
            raise DataError(
                f"{self.name} holds no images, for its array {name!r} is of shape {array.shape}; "
                "there is nothing to evaluate"
            )
        return array

    def _stored_labels(self, split: Split) -> np.ndarray:
        """Labels as stored, a row of whole numbers or of text."""
        name = self._pair(split)[1]
        return row_of_labels(name, self._array(name))

    @functools.cached_property
    def _classes(self) -> tuple[tuple[str, ...], Mapping[str, int], tuple[str, ...]]:
        """The classes' names, the place of each label that is text, and what was chosen."""
        stored = [self._stored_labels(split) for split in self._pairs]
        text = [labels.dtype.kind == "U" for labels in stored]
        if any(text) and not all(text):
            raise DataError(f"{self.name} has labels that are text in one split, numbers in other")
        found = {label for labels in stored for label in labels.tolist()}
        if given := self._given():
            source, known = given
            names = tuple(called[0] for called in known)
            return (
                names,
                indices_of(sorted(found), known, self.name, source) if any(text) else {},
                (),
            )
        if any(text):
            names, sentence = ordered(found)
            said = sentence or f"text labels are classes in the alphabet's order ({shown(names)})"
            return names, {name: place for place, name in enumerate(names)}, (said,)
        names, notes = numbered(found)
        return names, {}, notes

    def _given(self) -> tuple[str, list[tuple[str, ...]]] | None:
        """What names the classes in their order, a file or an array, and what each is called."""
        if self.reading.classes:
            file = Path(self.reading.classes)
            return file.name, read_classes(file)
        for name in (each for each in _CLASS_NAMES if each in self._files.names):
            array = self._array(name)
            if array.ndim == 1 and array.dtype.kind in "US":
                return f"the array {name!r}", [(each,) for each in array.astype(str).tolist()]
        return None

    def _array(self, name: str) -> np.ndarray:
        return self._files.array(name)

    def _pair(self, split: Split) -> tuple[str, str]:
        """The names of the arrays of a split.

        Raises:
            DataError: there are none.
        """
        if split not in self._pairs:
            raise DataError(
                f"{self.name} has no {split} split: its arrays are {shown(self._files.names)}; "
                f"call them x_{split} and y_{split}, or name them: npz:PATH[image=NAME,label=NAME]"
            )
        return self._pairs[split]

    @property
    def _pairs(self) -> Mapping[Split, tuple[str, str]]:
        return self._found[0]

    @functools.cached_property
    def _found(self) -> tuple[Mapping[Split, tuple[str, str]], list[str]]:
        """The names of image and label of each split, and what was chosen.

        Raises:
            DataError: it cannot be told which arrays are which.
        """
        for given in (self.reading.image, self.reading.label):
            if given and given not in self._files.names:
                raise DataError(
                    f"{self.name} has no array {given!r}; it has {shown(self._files.names, 20)}"
                )
        parts: dict[str, dict[What, str]] = {}
        for what in _CALLED:
            named = getattr(self.reading, what)
            for name, part in (
                (n, p) for n in self._files.names if (p := _part(n, what)) is not None
            ):
                if not named and parts.setdefault(part, {}).setdefault(what, name) != name:
                    raise DataError(
                        f"{self.name} has several arrays of {what}s ({parts[part][what]}, {name}); "
                        f"say which is meant: npz:PATH[{what}={name}]"
                    )
        if self.reading.image or self.reading.label:
            whole = {what: getattr(self.reading, what) or parts.get("", {}).get(what)
                     for what in _CALLED}  # fmt: skip
            parts = {"": {what: name for what, name in whole.items() if name}}
        whole_parts = {p: (found["image"], found["label"])
                       for p, found in parts.items() if len(found) == 2}  # fmt: skip
        if not whole_parts and (pair := self._only_two()):
            return {"test": pair}, [
                f"its two arrays are read as images ({pair[0]}) and labels ({pair[1]})"
            ]
        if not whole_parts:
            raise DataError(
                f"{self.name} has no arrays of images and labels by their names, only "
                f"{shown(self._files.names, 20) or 'none'}: say which they are, "
                "npz:PATH[image=NAME,label=NAME]"
            )
        called: dict[str, tuple[Role | None, Path]] = {
            part or "test": (role_of(part) if part else "test", self.path) for part in whole_parts
        }
        taken, notes = choose(called, self.reading.split, self.name)
        return {
            split: whole_parts[part if part in whole_parts else ""] for split, part in taken.items()
        }, notes

    def _only_two(self) -> tuple[str, str] | None:
        """Images and labels where there are two arrays of one split, and one can be images."""
        if len(self._files.names) != 2 or self.reading.image or self.reading.label:
            return None
        images = [name for name in self._files.names if self._array(name).ndim >= 3]
        labels = [name for name in self._files.names if self._array(name).ndim <= 2]
        if not len(images) == len(labels) == 1:
            return None
        said = [{*_SPLITS.findall(name.lower())} for name in (images[0], labels[0])]
        return None if all(said) and said[0] != said[1] else (images[0], labels[0])


def _eight_bits(images: np.ndarray) -> np.ndarray:
    """Whole numbers up to 255 as inputs in [0, 1]."""
    import numpy as np

    inputs: np.ndarray = as_inputs(images, np.empty(images.shape, dtype=np.float32))
    return inputs


def _part(name: str, what: What) -> str | None:
    """The split that an array's name says (empty for none), if it is called images or labels."""
    words = [word for word in re.split(r"[-_. ]", name.lower()) if word]
    roles = [word for word in words if role_of(word)]
    rest = "_".join(word for word in words if not role_of(word))
    return (roles[0] if roles else "") if rest in _CALLED[what] and len(roles) < 2 else None
