"""Model families that can be exported as GGUF: one file per family, listed in registry.py."""
