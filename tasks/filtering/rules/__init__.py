"""Filter rules: one measured value per rule, compared with a threshold.

protocol.py   what a rule is
row_view.py   a row as the rules read it
content.py    code, prose with code, prose or data: what the thresholds for code apply to
registry.py   the rules, in the order of reports
Every other module defines one rule, or a few that share a measure.
"""
