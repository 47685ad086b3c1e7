"""All that the author of a plugin has to read: `Examples`, `Defense`, `Recipe`, `Attack`.

A plugin is a class with a registered name. Its parameters are the keyword-only arguments of its
`__init__`, each annotated (`bool`, `int`, `float`, `str` or a `Literal`) and with a default;
`kwta[gamma=0.2]` on the command line is then `KWTA(gamma=0.2)`. Import torch inside methods, not
at the top of a plugin's module: listing plugins has to be instant.

    from bench.registry import register_defense

    @register_defense("my-defense")
    class MyDefense(Defense):
        summary = "What it does, in one line"
        twin = "relu"

        def network(self, *, shape): ...

        def build(self, *, network, shape, classes): ...

A plugin with an `argument` is a scheme: `robustbench:NAME` is one defense for each NAME, which its
`__init__` takes first, by position. A defense that brings weights of its own says in `weights`
where they are.

`bench.defenses.networks.NetworkDefense` does the rest for a defense that is one of our networks
with another activation, and the files in `defenses/` and `attacks/` are meant as examples.
"""

from bench.api.attacks import PLANTED, TRACES, Attack, Candidates, Cost, Flag, Problem, Proposal
from bench.api.defenses import Defense, Offer, Published, Recipe, Schedule, Weights
from bench.api.examples import Examples
from bench.api.plugins import Plugin

__all__ = [
    "PLANTED",
    "TRACES",
    "Attack",
    "Candidates",
    "Cost",
    "Defense",
    "Examples",
    "Flag",
    "Offer",
    "Plugin",
    "Problem",
    "Proposal",
    "Published",
    "Recipe",
    "Schedule",
    "Weights",
]
