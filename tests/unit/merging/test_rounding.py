"""Stochastic rounding keeps updates that are small next to their weights."""

import torch

from tasks.merging.rounding import round_at_random

SMALL = 2.0**-10  # an eighth of the distance from 1 to the next bfloat16 number


def test_small_updates_survive_on_average_where_the_nearest_number_loses_them() -> None:
    merged = torch.full((1000, 200), 1.0 + SMALL)
    assert float((merged.bfloat16().float() - 1).mean()) == 0
    kept = float((round_at_random(merged, "a").double() - 1).mean())
    assert abs(kept / SMALL - 1) < 0.03  # six standard deviations


def test_what_bfloat16_can_hold_is_unchanged() -> None:
    weight = torch.randn(300, 70).bfloat16()
    assert torch.equal(round_at_random(weight.float(), "a"), weight)


def test_every_value_goes_to_one_of_its_two_neighbours() -> None:
    merged = torch.randn(300, 70)
    error = (round_at_random(merged, "a").float() - merged).abs()
    assert bool((error < 2.0**-7 * merged.abs()).all())


def test_the_name_alone_decides_the_rounding() -> None:
    merged = torch.randn(300, 70)
    again, other = round_at_random(merged, "a"), round_at_random(merged, "b")
    assert torch.equal(again, round_at_random(merged, "a"))
    assert not torch.equal(again, other)
