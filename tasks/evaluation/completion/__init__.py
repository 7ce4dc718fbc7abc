"""Completion benchmark: spans of the user's own held-out code, to be written by both models.

documents.py     held-out rows of code -> texts by file
spans.py         rest of line, statement, block and function body in such a text
choose.py        which spans are used; those that the training data contain are left out
posed_span.py    a span as a prompt, with left context alone or with the suffix
measure.py       both models' completions and losses
span_metrics.py  metrics of them, for gate and report
infilling.py     a line of a HumanEval solution to fill in, with which forgetting is measured
scores.py        exact match, edit similarity, first line
span_results.py  what was measured, as values
"""
