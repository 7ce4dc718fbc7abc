"""Python and notebooks, by the standard library's `ast`."""
