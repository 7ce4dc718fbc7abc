"""Every setting, one module a section, each a frozen pydantic model: the single place where a
default lives.

`config` composes them. This package is left out of the code digests of the stages: a setting acts
on a stage only by its value, and the values of the sections that a stage reads enter its key.
"""
