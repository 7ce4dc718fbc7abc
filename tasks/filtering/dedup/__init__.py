"""Deduplication: which rows have a kept twin, and which rows belong together.

exact_dedup.py      key of a text
common_ngrams.py    n-grams that many rows of a source share, and that say nothing about a pair
minhash.py          n-grams -> MinHash signatures -> band keys
near_dedup.py       band keys -> candidate pairs -> true Jaccard similarity
find_duplicates.py  who is kept: one pass over the rows, best first
"""
