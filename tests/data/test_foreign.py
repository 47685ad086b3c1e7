"""Files of other kinds given as data: what they are and what to make of them, in one line."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench.data import open_dataset
from bench.errors import DataError, UsageError
from tests.data.conftest import Pixels, WriteParquet, fill, png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def written(write: Callable[[io.BytesIO], Any]) -> bytes:
    """What is written to a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def archive(buffer: io.BytesIO) -> None:
    """A tar archive with one file."""
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("0.cls"), io.BytesIO())


def zipped(buffer: io.BytesIO) -> None:
    """A zip archive with one file."""
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr(zipfile.ZipInfo("a/1.png"), b"")


def stream(buffer: io.BytesIO) -> None:
    """An Arrow stream."""
    table = pa.table({"label": [1]})
    with pa.ipc.new_stream(buffer, table.schema) as target:
        target.write_table(table)


KINDS = [
    ("x.npz", written(lambda b: np.savez(b, x=np.zeros(3))), "a NumPy archive .*bench.evaluate"),
    ("x.npy", written(lambda b: np.save(b, np.zeros(3))), "a NumPy array: .*bench.evaluate"),
    ("x.tar", written(archive), "a tar archive: .*webdataset:PATH, else unpack it"),
    ("x.zip", written(zipped), "a zip archive: unpack it and give the folder"),
    ("x.pt", written(lambda b: torch.save({}, b)), "a file of torch.save: load it"),
    ("x.arrow", written(stream), "an Arrow stream, as datasets' save_to_disk .*to_parquet"),
    ("x.csv", b"file,label\n", "a table of text: .*one folder per class"),
    ("x.jsonl", b"{}\n", "JSON: .*one folder per class"),
    ("x.tfrecord-00000-of-00001", bytes(range(16)), "TFRecord: decode it with TensorFlow"),
    ("data_batch_1", pickle.dumps({}), "a pickle, which is never executed here"),
    ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "of Git LFS.*git lfs pull"),
    ("y.parquet", b"<!DOCTYPE html><html>", "a web page: the download went wrong"),
    ("x.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0", "a gzip file: unpack it"),
    ("x.png", png(np.zeros((8, 8), np.uint8)), "a single image: give the folder"),
]


@pytest.mark.parametrize(
    ("written_as", "name", "data", "message"),
    [
        (written_as, *kind)
        for written_as in ("parquet:", "folder:", "", "hdf5:", "npz:")
        for kind in KINDS
        if (written_as, kind[0]) != ("npz:", "x.npz")
    ],
    # Not by the bytes, which may hold the time at which they were written.
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_files_of_other_kinds_are_called_what_they_are(
    tmp_path: Path, name: str, data: bytes, message: str, written_as: str
) -> None:
    """However they are given; never that they are damaged."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(f"{written_as}{tmp_path / name}").load("test")
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_archives_are_one_line(tmp_path: Path, seed: int) -> None:
    """Whatever a changed byte makes of a zip archive or a file of torch's."""
    random = np.random.RandomState(seed)
    data = bytearray(written(zipped if seed % 2 else lambda b: torch.save({"a": 1}, b)))
    for place in random.randint(4, len(data), 5):
        data[place] = random.randint(256)
    (tmp_path / "x.parquet").write_bytes(data)

    with pytest.raises(DataError) as caught:
        open_dataset(f"parquet:{tmp_path / 'x.parquet'}").load("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["dataset_dict.json", "test/state.json"], "what datasets' save_to_disk writes"),
        (["gaussian_noise.npy", "labels.npy"], "NumPy arrays: give it as npz:PATH, or pass its"),
        (["train-000.tar"], "tar archives: give it as webdataset:PATH, or unpack them"),
        (["a.tfrecord"], "TFRecords"),
        (["data_batch_1", "test_batch"], "CIFAR-10's own files: set WINNOW_CACHE"),
        (["data.mdb", "lock.mdb"], "LMDB"),
        (["all.zip"], "zip archives"),
    ],
)
@pytest.mark.parametrize("scheme", ["parquet", "folder"])
def test_folders_of_other_files_are_called_what_they_are(
    tmp_path: Path, files: list[str], message: str, scheme: str
) -> None:
    """As the libraries that write them leave them."""
    fill(tmp_path, dict.fromkeys(files, b"x"))

    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"{scheme}:{tmp_path}").load("test")
    assert "\n" not in str(caught.value)


def test_the_two_kinds_of_files_point_to_one_another(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Parquet given as a folder, and a folder given as Parquet."""
    write_parquet(tmp_path / "a/test.parquet", [png(pixels[0])], [0])
    fill(tmp_path / "b", {"cat/1.png": png(pixels[0]), "dog/1.png": png(pixels[1])})

    for written_as, message in (
        ("folder:a", "holds Parquet files: give it as parquet:PATH"),
        ("folder:a/test.parquet", "is a Parquet file: give it as parquet:PATH"),
        ("parquet:b", "holds folders of images: give it as folder:PATH"),
    ):
        scheme, _, place = written_as.partition(":")
        with pytest.raises(DataError, match=message):
            open_dataset(f"{scheme}:{tmp_path / place}").load("test")
