"""The fit: which part of a picture fills a square."""

from typing import Literal

Fit = Literal["squash", "crop"]
"""`squash` squeezes the whole image into the square; `crop` keeps its aspect, and its centre."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels and parts of them."""


def view(width: float, height: float, fit: Fit) -> Box:
    """The part of the image that fills the square.

    Odd margins are halved exactly, so that the view stays centred in all eight orientations.
    """
    if fit == "squash":
        return 0, 0, width, height
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
