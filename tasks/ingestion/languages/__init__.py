"""Programming languages: source text -> documented functions, one registry entry per language."""
