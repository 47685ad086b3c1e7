"""What the path of a descent says about the gradients that it followed.

The indicators are those of Pintor et al., "Indicators of Attack Failure" (NeurIPS 2022), read on
the logit margin: with the cross-entropy, honest models with large logits look masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.attacks.searching.descent import Path

#: Steps at the end over which a finished descent does not improve any more.
LAST = 10
#: The share of the whole range of the loss by which it may still improve there.
INCOMPLETE = 0.05
#: The share of the range of the loss by which a step has to raise it to count: signed steps of a
#: fixed size zigzag around the optimum of an honest model too, by less.
WORSE = 0.02


def trace(path: Path) -> dict[str, Any]:
    """Columns for `Proposal.extra`, one value per example.

    Args:
        path: from the inputs, of N examples that all went to the end.

    Returns:
        Arrays of shape (N,):
        `silent_success`: bool, some iterate was adversarial and the last was not.
        `incomplete`: bool, the running minimum of the margin, scaled to [0, 1] by the range of
        the margin on the path, fell by more than 0.05 over the last 10 steps.
        `worsened`: float, the share of steps on which the margin grew by over 2 % of its range.
        `zero_gradient`: bool, no gradient at the input, or one that is not finite.
        `trace_margin_first`, `trace_margin_last`, `trace_margin_best`: float.
    """
    history = path.margins
    best = history.cummin(dim=0).values
    spread = history.amax(dim=0) - best[-1]
    late = best[max(0, len(history) - 1 - LAST)] - best[-1]
    columns = {
        "silent_success": (best[-1] < 0) & (history[-1] >= 0),
        "incomplete": late > INCOMPLETE * spread,
        "worsened": (history.diff(dim=0) > WORSE * spread).double().mean(dim=0),
        "zero_gradient": path.flat,
        "trace_margin_first": history[0],
        "trace_margin_last": history[-1],
        "trace_margin_best": best[-1],
    }
    return {name: values.cpu().numpy() for name, values in columns.items()}
