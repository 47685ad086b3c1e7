"""What a file or a folder is that was given as data and is none, and what to make of it."""

from __future__ import annotations

import itertools
import re
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: What always serves, whatever the data come in.
_ARRAYS = "pass its arrays to bench.evaluate(model, images, labels)"
_FOLDERS = "write its images into one folder per class (folder:PATH)"
_DATASETS = "write it as Parquet with the library `datasets`"

#: Where a file begins with these bytes: what it is, and what to do.
_BEGINNINGS = (
    (b"PAR1", "a Parquet file", "give it as parquet:PATH"),
    (b"\x93NUMPY", "a NumPy array", f"give its folder as npz:PATH, or {_ARRAYS}"),
    (b"\x89HDF\r\n", "an HDF5 file", _ARRAYS),
    (b"MATLAB 5.0", "a MATLAB file", f"{_ARRAYS}, or name the set: svhn"),
    (
        b"ARROW1",
        "an Arrow file",
        f"{_DATASETS}: Dataset.from_file(FILE).to_parquet('test.parquet')",
    ),
    (b"\xff\xff\xff\xff", "an Arrow stream, as datasets' save_to_disk writes", "{disk}"),
    (b"ORC", "an ORC file", "write it as Parquet with pyarrow"),
    (b"Obj\x01", "an Avro file", _DATASETS),
    (b"SQLite format 3", "an SQLite file", _FOLDERS),
    (b"Rar!", "a RAR archive", "unpack it and give the folder"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it and give the folder"),
    (b"\x1f\x8b", "a gzip file", "unpack it first (MNIST's files are read by name: mnist)"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first"),
    (b"\0\0\x08\x01", "MNIST's own format (idx)", "name the set: mnist or fashion-mnist"),
    (b"\0\0\x08\x03", "MNIST's own format (idx)", "name the set: mnist or fashion-mnist"),
    *(
        (start, "a single image", "give the folder that holds a folder of images per class")
        for start in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
    ),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
)
#: Entries of a folder that are looked at.
_MOST = 10_000
_DISK = "load_from_disk(FOLDER) and .to_parquet('test.parquet') of its test split"
#: By endings, where the bytes do not tell.
_ENDINGS = (
    (r"\.(csv|tsv)$", "a table of text", f"where it names images and classes, {_FOLDERS}"),
    (r"\.jsonl?$", "JSON", f"where it names images and classes, {_FOLDERS}"),
    (r"tfrecord", "TFRecord", f"decode it with TensorFlow and {_FOLDERS}"),
    (r"\.(beton)$", "a file of FFCV", _FOLDERS),
    (r"\.(mdb|lmdb)$", "LMDB", _FOLDERS),
    (r"\.(pkl|pickle|joblib)$", "a pickle, which is never executed here", _ARRAYS),
    (r"\.arrow$", "an Arrow file", _DISK),
    (r"\.feather$", "a Feather file", "write it as Parquet with pyarrow"),
)


def what_is(path: Path) -> str:
    """What a file or folder is, and what to do with it: one sentence without its end; or nothing.

    Nothing in it is executed, and no more than its beginning and its list of contents is read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return ""
    if not head:
        return "it is empty: fetch or write it again"
    found = _archive(path, head) or _beginning(head) or _ending(path.name)
    if not found and head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        found = f"it is a pickle, which is never executed here: {_ARRAYS}"
    if not found and re.match(rb"\s*<(!doctype )?html", head, re.IGNORECASE):
        found = "it is a web page: the download went wrong"
    if not found and re.fullmatch(rb"[\t\r\n\x20-\x7e]{8,}", head):
        found = f"it is text: where it names images and classes, {_FOLDERS}"
    return found


def _beginning(head: bytes) -> str:
    for bytes_, what, do in _BEGINNINGS:
        if head.startswith(bytes_):
            return f"it is {what}: {do.format(disk=_DISK)}"
    return ""


def _ending(name: str) -> str:
    for pattern, what, do in _ENDINGS:
        if re.search(pattern, name, re.IGNORECASE):
            return f"it is {what}: {do}"
    return ""


def _archive(path: Path, head: bytes) -> str:
    """Of archives, by what lies in them."""
    if head[257:262] == b"ustar":
        return (
            "it is a tar archive: where it holds images and labels side by side (.jpg and .cls), "
            "give it as webdataset:PATH, else unpack it and give the folder"
        )
    if head[:4] != b"PK\x03\x04":
        return ""
    try:
        names = zipfile.ZipFile(path).namelist()
    except Exception:  # noqa: BLE001 - damaged archives make zipfile raise all sorts
        return "it is a zip archive that is damaged or cut off: fetch it again"
    if any(name.endswith(".npy") for name in names):
        return f"it is a NumPy archive (npz): give it as npz:PATH, or {_ARRAYS}"
    if any(name.endswith("data.pkl") for name in names):
        return f"it is a file of torch.save: load it and {_ARRAYS}"
    return "it is a zip archive: unpack it and give the folder"


def _folder(path: Path) -> str:
    entries = itertools.chain(path.glob("*"), path.glob("*/*"))
    below = [entry.name for entry in itertools.islice(entries, _MOST)]
    if {"dataset_dict.json", "state.json"}.intersection(below):
        return f"it is what datasets' save_to_disk writes: {_DISK}"
    for ending, what, do in (
        (".parquet", "Parquet files", "give it as parquet:PATH"),
        (".arrow", "Arrow files", _DISK),
        (".tar", "tar archives", "give it as webdataset:PATH, or unpack them"),
        (".npy", "NumPy arrays", f"give it as npz:PATH, or {_ARRAYS}"),
        (".npz", "NumPy archives", f"give one of them as npz:PATH, or {_ARRAYS}"),
        (".mdb", "LMDB", _FOLDERS),
        (".zip", "zip archives", "unpack them"),
    ):
        if any(name.lower().endswith(ending) for name in below):
            return f"it holds {what}: {do}"
    if any("tfrecord" in name for name in below):
        return f"it holds TFRecords: decode them with TensorFlow and {_FOLDERS}"
    if any(re.fullmatch(r"data_batch_\d|test_batch|batches\.meta", name) for name in below):
        return (
            "it holds CIFAR-10's own files: set WINNOW_CACHE to the folder above, and name cifar10"
        )
    return ""
