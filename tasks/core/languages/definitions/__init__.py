"""One module per language that tree-sitter parses."""
