"""Defense plugins: one module a defense; building blocks are the packages inside."""
