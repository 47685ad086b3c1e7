"""A defense with its weights, ready to be asked."""
