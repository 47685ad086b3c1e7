"""Adversarial examples of large images are compressed without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.errors import StoreError
from bench.record import adversarial
from bench.record.adversarial import Found, Packed, Smallest, packed, unpacked

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 80, 80)


def clean(seed: int = 0) -> Any:
    """An image of 8 bits."""
    image = np.random.RandomState(seed).randint(0, 256, SHAPE)
    return (image / np.float32(255)).astype(np.float32)


def moved(kind: str, x: Any) -> Any:
    """What attacks in each norm make of it, and what none would."""
    random = np.random.RandomState(7)
    if kind == "Linf":
        x = x + np.float32(4 / 255) * np.sign(random.randn(*SHAPE))
    elif kind == "L2":
        noise = random.randn(*SHAPE)
        x = x + 0.5 * noise / np.linalg.norm(noise)
    elif kind == "L1":
        x = x + (random.rand(*SHAPE) < 0.01)
    elif kind == "bits":  # signs, subnormals and all else that is finite
        bits = random.randint(0, 2**32, SHAPE, dtype=np.uint64).astype(np.uint32)
        found = bits.view(np.float32)
        return np.where(np.isfinite(found), found, np.float32(-0.0))
    return np.clip(x, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "share"), [("Linf", 0.12), ("L2", 0.7), ("L1", 0.05), ("none", 0.01), ("bits", 1.1)]
)
def test_compressed_without_loss(tmp_path: Path, kind: str, share: float) -> None:
    """Bit for bit, and in so much of the bytes."""
    x = clean()
    adversarial_input = moved(kind, x)
    Smallest(tmp_path).add([Found(3, 0.1, "pgd @ 0.1", packed(adversarial_input, x))])
    item = Smallest(tmp_path).all()[3]

    assert item[:3] == (3, 0.1, "pgd @ 0.1")
    assert unpacked(item.input, x).tobytes() == adversarial_input.tobytes()
    assert (tmp_path / "0000.safetensors").stat().st_size < share * adversarial_input.nbytes + 500


def test_blocks_of_older_versions_stay_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of large images that is not compressed is read, and gone on with."""
    x = clean()
    inputs = {i: moved("L2", x) * np.float32(1 - i / 100) for i in range(3)}
    with monkeypatch.context() as context:
        context.setattr(adversarial, "LARGE", 2**40)
        Smallest(tmp_path).add([Found(i, 0.5, "old", packed(inputs[i], x)) for i in (0, 1)])
    assert {i: f.input.shape for i, f in Smallest(tmp_path).all().items()} == {0: SHAPE, 1: SHAPE}
    Smallest(tmp_path).add([Found(i, 0.4, "new", packed(inputs[i], x)) for i in (1, 2)])

    found = Smallest(tmp_path).all()
    assert {i: item.origin for i, item in found.items()} == {0: "old", 1: "new", 2: "new"}
    for i, item in found.items():
        assert unpacked(item.input, x).tobytes() == inputs[i].tobytes()
    assert Smallest(tmp_path).distances() == {0: 0.5, 1: 0.4, 2: 0.4}


def test_small_images_lie_as_they_are(tmp_path: Path) -> None:
    """So that other tools read them; their files are those of before."""
    small = np.full((3, 64, 64), 0.5, dtype=np.float32)
    Smallest(tmp_path).add([Found(0, 0.1, "pgd @ 0.1", packed(small, small))])

    assert isinstance(Smallest(tmp_path).all()[0].input, np.ndarray)


def test_damage_is_never_another_image() -> None:
    """Every changed byte is refused, or gives numbers whose distance tells; no memory is taken."""
    x = clean()
    stored, random = packed(moved("L1", x), x), np.random.RandomState(0)
    refused = 0
    for _ in range(200):
        data = bytearray(stored.data)
        data[random.randint(len(data))] ^= 1 << random.randint(8)
        try:
            assert unpacked(Packed(bytes(data), SHAPE), x).shape == SHAPE
        except ValueError:
            refused += 1
    assert refused > 50
    for broken in (b"", b"\1", b"\0abc", b"\2" + stored.data, stored.data[:-9]):
        with pytest.raises(ValueError, match=r"damaged|compressed|size|reshape"):
            unpacked(Packed(bytes(broken), SHAPE), x)
    with pytest.raises(ValueError, match="another example"):
        unpacked(stored, x[:, :40])


@pytest.mark.parametrize("spoil", ["lengths", "shape", "kind", "sum"])
def test_a_compressed_block_that_does_not_fit_is_refused(tmp_path: Path, spoil: str) -> None:
    """By name, before anything of it is unpacked."""
    import safetensors.numpy

    x = clean()
    Smallest(tmp_path).add([Found(3, 0.1, "pgd @ 0.1", packed(moved("L1", x), x))])
    path = tmp_path / "0000.safetensors"
    tensors = safetensors.numpy.load_file(path)
    changed = {
        "lengths": {"lengths": np.array([5, 5])},
        "shape": {"shape": np.array([3, -80, 80])},
        "kind": {"packed": tensors["packed"].astype(np.float32)},
        "sum": {"lengths": tensors["lengths"] + 1},
    }[spoil]
    safetensors.numpy.save_file(tensors | changed, path, {"origin": '["pgd @ 0.1"]'})
    with pytest.raises(StoreError, match="is damaged"):
        Smallest(tmp_path).all()
