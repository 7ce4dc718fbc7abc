"""Programming languages: what is known about each, and syntax trees of source text.

protocol.py    what the rest of the project reads of a language and of a tree
registry.py    all languages; from a path to its language
encoding.py    encodings before UTF-8
authorship.py  files to leave out: generated, minified, vendored, lock and binary files
without_grammar.py  languages whose files are text with no functions
definitions/   one file per language that tree-sitter parses: its grammar, described as data
tree_sitter/   everything that those languages share
python/        Python, by the standard library's `ast`, and notebooks
"""
