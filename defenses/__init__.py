"""Defense plugins: one module a defense; building blocks are the packages inside.

Python files in `./defenses` of the working directory join them: see `bench.discovery`.
"""

from bench.registry import join_local

join_local("defenses", __path__)
