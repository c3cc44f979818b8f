"""Progressive resizing: the first epochs see smaller images, so that they cost less.

Howard 2018, the DAWNBench entry of fast.ai; Tan and Le 2021, "EfficientNetV2".
"""

from dataclasses import dataclass

# Fractions of the full side, for an equal number of epochs each: a step then costs 0.4 and 0.65 of
# one at the full side.
STEPS = (0.5, 0.75)


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

    def left(self, done: int, epochs: int) -> int:
        """The pixels of one image, summed over the epochs to come: time is proportional to them."""
        return sum(self.side(n, epochs) ** 2 for n in range(done + 1, epochs + 1))
