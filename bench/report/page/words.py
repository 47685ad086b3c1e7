"""What a reader of the page may not know: each family and kind of evidence, in a few sentences."""

from __future__ import annotations

#: The families of evidence, in the order of the page: what they are about, and what a failure says.
FAMILIES: dict[str, tuple[str, str]] = {
    "gradients": (
        "Gradients",
        "Attacks that follow the model's gradient can only be as good as that gradient. Here it is "
        "compared with how the model really changes nearby. Where the two disagree, a failed "
        "attack says that the gradient misleads, not that the example is robust.",
    ),
    "optimisation": (
        "Optimisation",
        "An attack is a search. These tests look at its path: whether it still improves when it "
        "ends, whether more effort finds more, whether it finds examples that are known to be "
        "there. Where the search fails, its figure is too high.",
    ),
    "comparisons": (
        "Comparisons",
        "Attacks that know more should break what attacks that know less break: gradients more "
        "than scores, many steps more than one, one step more than noise. Where the weaker one "
        "wins, the stronger one was misled.",
    ),
    "bounds": (
        "Bounds",
        "With a large enough epsilon every model has to fall, and a curve of robust accuracy can "
        "only fall. Where something survives that cannot, the attack failed to find it.",
    ),
    "answers": (
        "Answers",
        "One input has to get one answer: alone or in a batch, first or last, today or tomorrow. "
        "Where it does not, what an attack finds at one moment may be gone at the next, and a "
        "figure says little.",
    ),
    "output": (
        "Output",
        "Attacks read logits. Where the model answers with NaN, with probabilities or with a "
        "class alone, the loss that they lower may be flat or undefined.",
    ),
    "twin": (
        "Twin",
        "The same architecture and training with ReLU, attacked on the same examples. The "
        "difference is what the defense itself gains. It explains a figure and never counts "
        "against it.",
    ),
}

#: How evidence counts.
KINDS: dict[str, str] = {
    "soft": "A failure is a number of examples that contradict the test, seen again with a fresh "
    "seed. One soft failure sets no verdict; failures of two independent families do.",
    "deterministic": "A fact about the model. It counts at once.",
    "context": "It explains, and never counts against the defense.",
}

#: What each verdict says of the worst case.
VERDICTS: dict[str, str] = {
    "credible": "the attacks worked, as far as these tests can tell",
    "suspect": "the figure may be too high: independent tests say that attacks failed",
    "unreliable": "the figure would fall further, or the model has a fault that no honest one has",
    "broken": "no better than guessing: nothing is left that could be masked",
    "not examined": "no evidence was gathered on these outcomes",
}
