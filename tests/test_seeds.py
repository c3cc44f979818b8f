"""Laws of seeds: no two purposes, epochs, workers or runs draw the same random numbers."""

from itertools import product

from cnn.training.seeds import Draw, seed_of


def test_seeds_of_similar_numbers_and_of_different_purposes_have_nothing_in_common() -> None:
    found = [seed_of(draw, *parts) for draw in Draw for parts in product(range(9), repeat=3)]
    assert all(0 <= seed < 2**63 for seed in found)  # valid for torch
    assert len({seed >> 32 for seed in found}) == len(Draw) * 9**3


def test_a_purpose_with_more_numbers_draws_nothing_that_another_does() -> None:
    """Without a purpose (0, 1, 0) and (0, 1, 0, 0) would be one stream: numpy fills up with 0."""
    assert seed_of(Draw.WARP, 0, 1, 0) != seed_of(Draw.STREAMED_WARP, 0, 1, 0, 0)
