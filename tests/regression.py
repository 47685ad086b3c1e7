"""The committed defenses against their published baselines: `tox -e regression [-- --update]`.

Evaluates the four digits checkpoints with the suite `quick` and APGD-CE, and compares each cell
with `results/published/baselines/NAME.json`. A cell that left its tolerance, in either direction,
is named and fails the check: a figure that rises means that an attack became weaker.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.record.files import write_json
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare

BASELINES = Path(__file__).resolve().parents[1] / "results" / "published" / "baselines"
DEFENSES = ("relu", "kwta", "relu-at", "kwta-at")
ATTACKS = "quick,apgd-ce"
#: Examples by which a cell may differ: other processors and libraries round differently.
TOLERANCE = 2

Baseline = dict[str, Any]


def measure(defense: str) -> Baseline:
    """The number of robust examples in every cell of a defense."""
    with tempfile.TemporaryDirectory() as out:
        config = RunConfig(
            defenses=(defense,),
            attacks=ATTACKS,
            examine=False,
            device="cpu",
            workers=0,
            out=Path(out),
        )
        summary = run(prepare(config)).summary
    entry = summary["defenses"][defense]
    n = summary["n"]
    return {
        "defense": defense,
        "n": n,
        "seed": summary["seed"],
        "data_digest": summary["data_digest"],
        "weights_digest": entry["weights_digest"],
        "versions": summary["provenance"]["versions"],
        "robust": {
            "clean": {"0": entry["clean_correct"]},
            "worst case": {
                epsilon: round(n * cell["robust_accuracy"])
                for epsilon, cell in entry["worst_case"].items()
            },
            **{
                attack: {
                    epsilon: None
                    if cell["robust_accuracy"] is None
                    else round(n * cell["robust_accuracy"])
                    for epsilon, cell in cells.items()
                }
                for attack, cells in entry["attacks"].items()
            },
        },
    }


def differences(baseline: Baseline, now: Baseline) -> list[str]:
    """What left its tolerance, a sentence each."""
    found = [
        f"{now['defense']}: {key} changed; if that is meant, rewrite the baseline with --update"
        for key in ("n", "seed", "data_digest", "weights_digest")
        if baseline[key] != now[key]
    ]
    for attack in sorted(baseline["robust"].keys() | now["robust"].keys()):
        then, here = baseline["robust"].get(attack, {}), now["robust"].get(attack, {})
        for epsilon in sorted(then.keys() | here.keys()):
            old, new = then.get(epsilon), here.get(epsilon)
            if old is None or new is None or abs(old - new) > TOLERANCE:
                found.append(
                    f"{now['defense']} × {attack} @ {epsilon}: {new} of {now['n']} robust, "
                    f"baseline {old} ± {TOLERANCE}"
                )
    return found


def main(arguments: list[str]) -> int:
    """Compare, or rewrite with --update; 1 where a cell left its tolerance."""
    parser = argparse.ArgumentParser(
        prog="tests.regression",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="rewrite the baselines")
    update = parser.parse_args(arguments).update
    found = []
    for defense in DEFENSES:
        now = measure(defense)
        path = BASELINES / f"{defense}.json"
        if update:
            write_json(path, now)
        elif not path.is_file():
            found.append(f"{defense}: no baseline at {path.name}; make it with --update")
        else:
            found += differences(json.loads(path.read_text()), now)
    for line in found:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len(DEFENSES)} defenses, {len(found)} difference(s)\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
