"""The gate: paired comparisons of base and tuned model, and the verdict that follows from them."""
