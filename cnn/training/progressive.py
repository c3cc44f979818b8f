"""Progressive resizing: the first epochs see smaller images, so that they cost less.

Howard 2018, the DAWNBench entry of fast.ai; Tan and Le 2021, "EfficientNetV2".
"""

from dataclasses import dataclass

# Fractions of the full side, for an equal number of epochs each: a step then costs 0.32 and 0.58 of
# one at the full side on CPUs with AVX512-BF16, and 0.4 and 0.65 on others.
STEPS = (0.5, 0.75)

# The fraction of an epoch's time that smaller images do not reduce, on the faster of those CPUs.
# Where it is more, epochs to come are expected to take longer than they will.
FIXED = 0.1


@dataclass(frozen=True)
class ProgressiveResizing:
    """The side, in pixels, of the images that each epoch of a run sees.

    `growing` is the fraction of the epochs before the full side `whole` is reached; no epoch sees
    less than `smallest`.
    """

    growing: float
    whole: int
    smallest: int

    def side(self, epoch: int, epochs: int) -> int:
        """The side in epoch 1..`epochs`; the last epoch always has the full side."""
        growing = self.growing * epochs
        if epoch > growing:
            return self.whole
        step = STEPS[int((epoch - 1) / growing * len(STEPS))]
        return max(self.smallest, round(self.whole * step))

    def cost(self, side: int, fixed: float) -> float:
        """The time that an epoch with images of this side takes, compared with a full one.

        fixed: the fraction of a full one that does not depend on the side.
        """
        return fixed + (1 - fixed) * (side / self.whole) ** 2

    def left(self, done: int, epochs: int, fixed: float) -> float:
        """The time that the epochs to come take, in full epochs."""
        sides = (self.side(number, epochs) for number in range(done + 1, epochs + 1))
        return sum(self.cost(side, fixed) for side in sides)
