"""Checkpoints as others publish them: the weights that fit are found, a choice is said."""
