"""How much of a step is in memory at once: layers that keep activations, tokens of a window.

Neither changes what a step means, so both can be lowered in the middle of a run that does not fit.
"""

LEAST_TOKENS = 256  # shorter windows save nothing that matters beside the weights


def less(kept_layers: int, window_tokens: int) -> tuple[int, int] | None:
    """The next smaller size: half the kept layers, then half the window; None at the end."""
    if kept_layers:
        return kept_layers // 2, window_tokens
    if window_tokens > LEAST_TOKENS:
        return 0, max(LEAST_TOKENS, window_tokens // 2)
    return None
