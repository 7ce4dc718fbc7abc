"""Filter rules: one measured value a rule, compared with a threshold."""
