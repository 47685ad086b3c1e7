"""RobustBench's model zoo: what is in it, and the architectures by name.

`import robustbench` needs `pkg_resources` and a module called `autoattack`, neither of which a
fresh environment has, and the zoo needs neither. So the zoo alone is imported, through a package
that stands in for RobustBench's own while that lasts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.defenses.zoo.library import missing_library
from bench.errors import ModelError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class Data(NamedTuple):
    """A data set of RobustBench."""

    shape: tuple[int, int, int]
    """(C, H, W) of one input, as RobustBench prepares it."""
    classes: int
    families: tuple[str | None, ...]
    """The families of data sets that may be it; those read from files go by their shape."""


DATA = {
    "cifar10": Data((3, 32, 32), 10, ("cifar10",)),
    "cifar100": Data((3, 32, 32), 100, ("cifar100", "cifar10")),
    "imagenet": Data((3, 224, 224), 1000, (None, "imagenet")),
}
#: Trained on images of another size than its data set's.
SIZES = {("imagenet", "Wong2020Fast"): (3, 288, 288)}

#: Architectures that fetch weights as they are built, and where those are to be had.
_FETCHING = {"Standard_R50": "torchvision:resnet50[weights=IMAGENET1K_V1]"}


@functools.cache
def zoo() -> dict[str, dict[str, dict[str, Any]]]:
    """RobustBench's entries by data set, threat model and name.

    Raises:
        UsageError: RobustBench is not installed, or what it needs does not import.
    """
    with _stand_in("robustbench"), warnings.catch_warnings(action="ignore"):
        try:
            models = importlib.import_module("robustbench.model_zoo.models")
        except Exception as error:  # other versions of timm or torch make it raise anything
            raise UsageError(
                f"RobustBench's model zoo cannot be imported ({type(error).__name__}: {error}); "
                "install the versions that it needs: pip install 'winnow-bench[zoo]'"
            ) from error
    return {
        data.value: {threat.value: dict(entries) for threat, entries in threats.items()}
        for data, threats in models.model_dicts.items()
    }


@contextlib.contextmanager
def _stand_in(package: str) -> Iterator[None]:
    """Have a package's modules importable without executing its `__init__`.

    Raises:
        UsageError: it is not installed.
    """
    if package in sys.modules:  # whole, and imported by somebody else
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_library("robustbench", "RobustBench")
    stand_in = types.ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]  # whoever imports it after this gets the whole


def entry(dataset: str, threat: str, name: str) -> dict[str, Any]:
    """What RobustBench knows of a model.

    Raises:
        UnknownNameError: there is no such model in the zoo.
        UsageError: it is there for another data set or threat model.
    """
    known = zoo()
    if name in known.get(dataset, {}).get(threat, {}):
        found: dict[str, Any] = known[dataset][threat][name]
        return found
    elsewhere = [
        f"robustbench:{name}[dataset={other},threat={kind}]"
        for other, threats in known.items()
        for kind, entries in threats.items()
        if name in entries
    ]
    if not elsewhere:
        every = {n for threats in known.values() for entries in threats.values() for n in entries}
        raise UnknownNameError(
            "model of RobustBench", name, known.get(dataset, {}).get(threat, {}) or every
        )
    raise UsageError(
        f"RobustBench has no {name} for {dataset} and {threat}; it has {', '.join(elsewhere)}"
    )


def timm_name(dataset: str, threat: str, name: str) -> str | None:
    """The name under which RobustBench registers a model with timm; None where it does not."""
    import timm

    registered = f"{name.lower().replace('-', '_')}_{dataset}_{threat.lower()}"
    return registered if timm.is_model(registered) else None


def build(dataset: str, threat: str, name: str) -> nn.Module:
    """A model's architecture, without its weights.

    Raises:
        UsageError: it fetches weights as it is built.
        ModelError: it cannot be built on this machine.
    """
    found = entry(dataset, threat, name)
    if name in _FETCHING:
        raise UsageError(
            f"RobustBench's {name} downloads its weights as it is built; they are those of "
            f"{_FETCHING[name]}"
        )
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        try:
            registered = timm_name(dataset, threat, name)
            if registered is None:
                module: nn.Module = found["model"]()
            else:
                import timm

                classes = DATA[dataset].classes
                module = timm.create_model(registered, pretrained=False, num_classes=classes)
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), "")
            raise ModelError(
                f"RobustBench's {name} ({dataset}, {threat}) cannot be built here: "
                f"{type(error).__name__}: {first}"
            ) from error
    return module


def parts(name: str, module: nn.Module) -> list[nn.Module]:
    """The modules that the files of an ensemble are for, in the order of the files."""
    inner: Any = module
    if name.startswith("Bai2023Improving"):
        return list(inner.comp_model.models)
    if name.startswith("Bai2024MixedNUTS"):
        return [inner.std_model, inner.rob_model]
    return list(inner.models)
