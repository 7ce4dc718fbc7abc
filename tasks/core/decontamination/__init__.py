"""Which rows hold a task that must not be trained on: of a benchmark, or held out by ourselves.

tasks.py          a task, and what of it is looked for
words.py          texts -> hashes of words and n-grams
shapes.py         function -> digest of its syntax tree, names aside
contamination.py  rows that hold a task: substring, n-grams, syntax
execution.py      rows that hold a task: its tests pass
"""
