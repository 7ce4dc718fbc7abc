"""How many held-out projects, files or other units of the split the evaluation needs.

Rows of one unit are alike, so a unit is one observation.
"""

# a test of signs can reach 5 % only from six on: 2 of 2^6 ways to choose them are as extreme
FEWEST_CLUSTERS = 6


def held_out_units(unit: str, number: int) -> str:
    """The end of the summary of a split by `unit`; rows and projects, which it names already, are
    named only if they are too few."""
    is_enough = number >= FEWEST_CLUSTERS
    if is_enough and unit in ("project", "row"):
        return ""
    found = f", {number:,} {unit if number == 1 else f'{unit}s'} held out for the evaluation"
    return (
        found if is_enough else f"{found}: too few to claim anything, which takes {FEWEST_CLUSTERS}"
    )
