"""Rules about the shape of the text: long lines and few letters tell data, minified or generated
code."""

from tasks.filtering.rules.row_view import Sample

ASCII_OTHERS = bytes(b for b in range(128) if not chr(b).isalpha())


def line_count(row: Sample) -> float:
    """Lines of the output."""
    return len(row.lines)


def mean_line(row: Sample) -> float:
    """Mean length of the output's lines in characters."""
    return sum(map(len, row.lines)) / len(row.lines)


def longest_line(row: Sample) -> float:
    """Longest line of the output in characters."""
    return max(map(len, row.lines))


def alphabetic_share(row: Sample) -> float:
    """Share of the output's characters that are letters, whitespace counted."""
    text = row.output
    if text.isascii():  # the same, thirty times faster
        letters = len(text.encode("ascii").translate(None, ASCII_OTHERS))
    else:
        letters = sum(map(str.isalpha, text))
    return letters / max(1, len(text))
