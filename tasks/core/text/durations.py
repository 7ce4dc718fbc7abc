"""Durations as text, the same in the terminal, in reports and on Prefect's pages."""


def duration(seconds: float) -> str:
    """Seconds as "3.2 s", "12 s", "3 min 20 s" or "2 h 41 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
