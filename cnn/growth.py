"""Growth: the first epochs look at smaller images, so that they cost less."""

from dataclasses import dataclass

# The fractions of the whole side that the growing epochs take, an equal number of epochs each:
# a step then costs 0.4 and 0.65 of one at the whole side.
STEPS = (0.5, 0.75)


@dataclass(frozen=True)
class Growth:
    """The side, in pixels, of the images that each epoch of a run looks at.

    `growing` is the fraction of the epochs before the whole side is reached; no epoch looks at
    less than `smallest`.
    """

    growing: float
    whole: int
    smallest: int

    def side(self, epoch: int, epochs: int) -> int:
        """The side in epoch 1..`epochs`; in the last it is the whole side."""
        growing = self.growing * epochs
        if epoch > growing:
            return self.whole
        step = STEPS[int((epoch - 1) / growing * len(STEPS))]
        return max(self.smallest, round(self.whole * step))

    def left(self, done: int, epochs: int) -> int:
        """The pixels of an image over all epochs still to come: time goes by them."""
        return sum(self.side(n, epochs) ** 2 for n in range(done + 1, epochs + 1))
