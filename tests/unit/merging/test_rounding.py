"""Stochastic rounding keeps updates that are small next to their weights."""

import torch

from tasks.merging.rounding import generator_of, round_at_random

SMALL = 2.0**-10  # an eighth of the distance from 1 to the next bfloat16 number


def test_small_updates_survive_on_average_where_the_nearest_number_loses_them() -> None:
    merged = torch.full((1000, 200), 1.0 + SMALL)
    assert float((merged.bfloat16().float() - 1).mean()) == 0
    kept = float((round_at_random(merged, generator_of("a")).double() - 1).mean())
    assert abs(kept / SMALL - 1) < 0.03  # six standard deviations


def test_what_bfloat16_can_hold_is_unchanged() -> None:
    weight = torch.randn(300, 70).bfloat16()
    assert torch.equal(round_at_random(weight.float(), generator_of("a")), weight)


def test_every_value_goes_to_one_of_its_two_neighbours() -> None:
    merged = torch.randn(300, 70)
    error = (round_at_random(merged, generator_of("a")).float() - merged).abs()
    assert bool((error < 2.0**-7 * merged.abs()).all())


def test_the_name_alone_decides_the_rounding() -> None:
    merged = torch.randn(300, 70)
    first, again, other = (round_at_random(merged, generator_of(name)) for name in "aab")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rounding_in_blocks_gives_the_bytes_of_rounding_at_once() -> None:
    merged, generator = torch.randn(301, 70), generator_of("a")
    blocks = torch.cat([round_at_random(part, generator) for part in merged.split(43)])
    assert torch.equal(blocks, round_at_random(merged, generator_of("a")))
