"""What is kept: results, their store and provenance, and checkpoints."""
