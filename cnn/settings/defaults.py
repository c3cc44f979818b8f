"""Defaults for special cases: the embedded digits, and short trainings."""

from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
"""Settings, nested in groups as in a YAML file."""

# Defaults for the embedded digits, of 8x8 pixels. No flip: a mirrored digit is another digit, or
# none. No smaller images and no CutMix: half of the pixels or of the area leaves too little.
DIGITS: Values = {
    "data": {"image_size": 16},
    "augmentation": {"flip": False},
    "network": {"filters": (32, 64, 128)},
    "training": {"epochs": 28, "growing": 0.0, "cutmix": 0.0},
}

# Settings that make training harder, which helps if each image is seen many times.
REGULARISERS = {
    "augmentation": ("rotation", "shift", "zoom"),
    "network": ("dropout",),
    "training": ("cutmix",),
}


def regularisation(epochs: int, usual: Values) -> dict[str, Any]:
    """The regularisers at their usual strength; in short trainings, scaled by the epochs.

    In a few epochs, nearly unchanged images train best. Accuracy on 20 classes of Tiny-ImageNet at
    full and at scaled strength: 0.36 and 0.53 after 4 epochs, 0.56 and 0.65 after 10.
    """
    part = min(1.0, epochs / usual["training"]["epochs"])
    return {
        group: {name: round(part * usual[group][name], 4) for name in names}
        for group, names in REGULARISERS.items()
    }


def unscaled(values: Values, epochs: int, usual: Values) -> dict[str, Any]:
    """Nested settings without the regularisers that are just what so many epochs give.

    With other epochs they can then be scaled anew.
    """
    scaled = regularisation(epochs, usual)
    kept = dict(values)
    for group in REGULARISERS.keys() & values.keys():
        if isinstance(values[group], Mapping):
            kept[group] = {
                name: value
                for name, value in values[group].items()
                if name not in scaled[group] or value != scaled[group][name]
            }
    return kept


def merged(below: Values, above: Values) -> dict[str, Any]:
    """Nested settings: `above`, completed with what only `below` has."""
    both = {name: below[name] for name in below.keys() - above.keys()}
    for name, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
        both[name] = merged(below[name], value) if nested else value
    return both
