"""Every setting: one module per section, each a frozen pydantic model; the only place where
defaults are defined.

`config` composes them. This package is left out of the code digests of the stages: a setting
affects a stage only by its value, and the values of the sections that a stage reads enter its key.
"""
