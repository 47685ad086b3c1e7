"""Attack plugins: one module a source; building blocks are the packages inside.

Python files in `./attacks` of the working directory join them: see `bench.discovery`.
"""

from bench.registry import join_local

join_local("attacks", __path__)
