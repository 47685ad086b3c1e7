"""Figures, each from numbers that are computed first and written beside it.

One module a kind: a frozen dataclass holds what is drawn, a function computes it, and `draw` makes
a matplotlib figure of it. Importing this package imports neither torch nor matplotlib.
"""
