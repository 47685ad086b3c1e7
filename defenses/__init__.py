"""Defense plugins: one module a defense; building blocks are the packages inside.

Their name is `bench.defenses`; the folder lies at the top of the repository. Python files in
`./defenses` of the working directory join them: see `bench.registry.discovery`.
"""

from bench.registry import join_local

if __name__ != "bench.defenses":
    raise ImportError(f"{__name__} is called bench.defenses: write `from bench.defenses… import …`")
join_local(__name__, __path__)
