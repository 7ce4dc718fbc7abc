"""Decontamination: which rows hold a problem that must not be trained on, because it belongs to a
benchmark or is held out for the evaluation.

problems.py          a problem, and the texts and functions of it that a row must not hold
set_fields.py        names of the fields in a user's evaluation set
set_formats.py       published formats of problem sets, rewritten to these fields
ngrams.py            texts -> hashes of words and word n-grams
problem_index.py     problems arranged for lookup, limits, and what a match is
text_match.py        matches by substring and by n-grams
syntax_match.py      matches by the shape of a function's syntax tree
execution_match.py   matches by passing the problem's tests in the sandbox
"""
