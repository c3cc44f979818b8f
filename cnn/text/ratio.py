"""Ratios in figures: one looks like 0 or 1 only if it is."""

# What is nearer to 0 or 1 is shown as this near: one in a million.
NEAREST = 1e-6


def decimal(ratio: float, decimals: int = 3) -> str:
    """A ratio, 0..1, with this many decimals, or as many more as keep it from 0 and 1."""
    return _figures(ratio, decimals, "f")


def percent(ratio: float, decimals: int = 1) -> str:
    """A ratio, 0..1, as a percentage, with this many decimals, or more as in `decimal`."""
    return _figures(ratio, decimals, "%")


def _figures(ratio: float, decimals: int, unit: str) -> str:
    if 0 < ratio < 1:
        ratio = min(max(ratio, NEAREST), 1 - NEAREST)
        while any(f"{ratio:.{decimals}{unit}}" == f"{end:.{decimals}{unit}}" for end in (0, 1)):
            decimals += 1
    return f"{ratio:.{decimals}{unit}}"
