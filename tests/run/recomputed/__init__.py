"""Shards computed again from their seeds, and what comes of it."""
