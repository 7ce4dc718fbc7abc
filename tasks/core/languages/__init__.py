"""Syntax trees of source code, one parser per language behind one protocol.

protocol.py       what the filter rules and the decontamination read from a tree
python.py         Python, by the standard library's `ast`
python_shape.py   digest of a Python function that renaming and reformatting do not change
"""
