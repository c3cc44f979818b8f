"""Seeds: a stream of random numbers of its own for each purpose, and for each epoch and worker."""

from enum import IntEnum, auto

import numpy as np


class Draw(IntEnum):
    """What random numbers are drawn for."""

    ORDER = auto()  # of the rows in an epoch
    SHARDS = auto()  # their order in a streamed epoch
    WARP = auto()
    STREAMED_WARP = auto()
    CUTMIX = auto()
    DROPOUT = auto()


def sequence(draw: Draw, *parts: int) -> np.random.SeedSequence:
    """The start of a stream, such as that of (seed, epoch, rank), for one purpose.

    Up to four parts, and for one purpose always as many: numpy fills up fewer with zeros.
    """
    return np.random.SeedSequence(parts, spawn_key=(draw,))


def seed_of(draw: Draw, *parts: int) -> int:
    """The same as a seed for torch, 0..2**63: those of similar parts have nothing in common."""
    return int(sequence(draw, *parts).generate_state(1, np.uint64)[0] >> 1)
