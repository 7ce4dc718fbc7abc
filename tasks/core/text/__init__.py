"""Text and tokens: prompt templates, special tokens, cached byte-pair encoding."""
