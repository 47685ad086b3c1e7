"""What a run's folder may hold, by name: nothing is there that its record does not account for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.record.files import LOCK, Within
from bench.record.store import EXAMPLES, MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from bench.record.schema import RunRecord

#: Files at the top, besides the examples that a program passed.
TOP = {"run.json", MANIFEST, "summary.json", "evidence.json", "leaderboard.md", LOCK}


def irregular(folder: Path) -> list[str]:
    """A sentence for each link, pipe, socket or device in a folder: they are never opened."""
    return [
        f"{path.relative_to(folder)} is a link, a pipe or a device, which Winnow never writes; it "
        "was not opened"
        for path in Within.of(folder).others
    ]


def unaccounted(folder: Path, record: RunRecord) -> list[str]:
    """A sentence for each file and folder that nothing in `run.json` accounts for."""
    found = Within.of(folder)
    cells = {cell.key for cell in (*record.cells, *record.replaced) if cell.key}
    defenses = {entry.key for entry in record.defenses.values()}
    # Of what transfers start from beside the run's defenses, no key is recorded.
    transfers = any(declared.approach == "transfer" for declared in record.attacks.values())
    top = TOP if record.dataset.written else TOP | {EXAMPLES}
    faults = []
    for path in found.folders:
        match path.relative_to(folder).parts:
            case ("cells" | "adversarial" | "behaviour" | "errors",):
                continue
            case ("cells", key):
                known = key in cells
            case ("adversarial", key):
                known = key in defenses
            case _:
                known = False
        if not known:
            faults.append(f"{path.relative_to(folder)}/ is named by nothing in run.json")
    for path in found.files:
        match path.relative_to(folder).parts:
            case (name,):
                known = name in top
            case ("cells", _, name):
                known = re.fullmatch(r"\d{4,9}\.parquet", name) is not None
            case ("adversarial", _, name):
                known = re.fullmatch(r"\d{4,9}\.safetensors", name) is not None
            case ("behaviour", name):
                key = name.removesuffix(".safetensors")
                start = transfers and re.fullmatch(r"[0-9a-f]{16}", key) is not None
                known = name.endswith(".safetensors") and (key in defenses or start)
            case ("errors", name):
                match_ = re.fullmatch(r"([0-9A-Za-z_-]+)-\d{4,9}\.txt", name)
                known = match_ is not None and match_[1] in cells
            case _:
                known = True  # its folder is named already
        if not known:
            faults.append(f"{path.relative_to(folder)} is no file of this run")
    return faults
