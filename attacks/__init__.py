"""Attack plugins: one module a source; building blocks are the packages inside."""
