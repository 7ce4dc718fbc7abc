"""Languages that tree-sitter parses, each described by a `Grammar`."""
