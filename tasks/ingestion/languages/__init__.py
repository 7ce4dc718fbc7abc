"""Programming languages: source text -> documented functions."""
