"""The matrix of cells: planned, executed, and judged."""
