"""Building blocks of defenses that bring models and weights of others."""
