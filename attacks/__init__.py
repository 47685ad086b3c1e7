"""Attack plugins: one module a source; building blocks are the packages inside.

Their name is `bench.attacks`; the folder lies at the top of the repository. Python files in
`./attacks` of the working directory join them: see `bench.discovery`.
"""

from bench.registry import join_local

if __name__ != "bench.attacks":
    raise ImportError(f"{__name__} is called bench.attacks: write `from bench.attacks… import …`")
join_local(__name__, __path__)
