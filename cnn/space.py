"""The search space: what a search may vary, and how a point of it becomes settings."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnn.command import leaves, locations, read_yaml, validate
from cnn.config import TrainConfig, merged
from cnn.errors import Mendable
from cnn.ranges import Choice, Integer, LogUniform, Range, Uniform, Value, parse_range

Point = Mapping[str, Value]
"""A value for each dimension of a space."""

GROUPS = ("data", "augmentation", "network", "training")
"""The settings that may be searched; the others do not change what is learned."""

# Dimensions that stand for several settings at once: filters double from stage to stage, up to
# WIDEST times the first stage's, and `strength` is a multiple of the augmentation that was given.
STAGES, WIDTH, STRENGTH = "stages", "width", "strength"
COMPOUND: dict[str, Range] = {
    STAGES: Integer(2, 6),
    WIDTH: Choice((16, 32, 48, 64)),
    STRENGTH: Uniform(0.3, 1.5),
}
WIDEST = 8
AUGMENTATIONS = ("rotation", "shift", "zoom")
ARCHITECTURE = {STAGES, WIDTH, "convolutions"}


@dataclass(frozen=True)
class Space:
    """Ranges by dimension, around the settings that a search begins with."""

    ranges: dict[str, Range]
    base: TrainConfig

    @property
    def start(self) -> dict[str, Value]:
        """The point of the given settings, or the nearest to it that the ranges allow."""
        own = given(self.base)
        return {name: limits.nearest(own[name]) for name, limits in self.ranges.items()}  # type: ignore[arg-type]

    @property
    def image_sizes(self) -> list[int]:
        """Every image size that a trial may ask for."""
        searched = self.ranges.get("image_size")
        own: tuple[Any, ...] = (self.base.data.image_size,)
        return sorted(searched.values if isinstance(searched, Choice) else own)  # type: ignore[type-var, arg-type]

    @property
    def most_epochs(self) -> int:
        """The most epochs that a trial may ask for."""
        searched = self.ranges.get("epochs")
        if isinstance(searched, Integer):
            return searched.high
        asked = searched.values if isinstance(searched, Choice) else (self.base.training.epochs,)
        return int(max(asked))  # type: ignore[type-var, arg-type]

    def settings(self, point: Point) -> TrainConfig:
        """The settings of a point: what it leaves at the given value stays as it was given."""
        own = given(self.base)
        changed = {name: value for name, value in point.items() if value != own[name]}
        values = self.base.model_dump(mode="json")
        for name, value in settle(changed, own).items():
            *groups, leaf = locations(TrainConfig)[name]
            for group in reversed(groups):
                value = {group: {leaf: value}}
            values = merged(values, value)
        return validate(TrainConfig, values)


def settle(changed: Point, own: Point) -> dict[str, Any]:
    """The values of single settings that a changed point stands for."""
    settings = {name: value for name, value in changed.items() if name not in COMPOUND}
    if changed.keys() & {STAGES, WIDTH}:
        shape = {**own, **changed}
        settings["filters"] = ladder(int(shape[WIDTH] or 0), int(shape[STAGES] or 0))
    if STRENGTH in changed:
        strength = float(changed[STRENGTH] or 0)
        scaled = {name: float(own[name] or 0) * strength for name in AUGMENTATIONS}
        # Shift and zoom are fractions: whole ones would leave nothing to see.
        settings |= scaled | {name: min(scaled[name], 0.9) for name in ("shift", "zoom")}
    return settings


def ladder(width: int, stages: int) -> list[int]:
    """Filters per stage: twice those of the stage before, up to WIDEST times the first."""
    return [min(width * 2**stage, width * WIDEST) for stage in range(stages)]


def given(base: TrainConfig) -> dict[str, Any]:
    """The value of every dimension at the given settings."""
    values: dict[str, Any] = {}
    for name, (group, *rest), _ in leaves(TrainConfig):
        if group in GROUPS:
            values[name] = getattr(getattr(base, group), rest[0])
    filters = base.network.filters
    compound = {STAGES: len(filters), WIDTH: filters[0], STRENGTH: 1.0}
    return values | {"filters": ",".join(map(str, filters))} | compound


def default_space(base: TrainConfig) -> Space:
    """The ranges that stand beside the settings, and those of the compound dimensions."""
    ranges = dict(declared())
    epochs = base.training.epochs
    if epochs > 1:
        ranges["epochs"] = Integer(math.ceil(epochs / 2), epochs)
    ranges |= COMPOUND
    if base.network.network != "cnn":
        ranges = {name: limits for name, limits in ranges.items() if name not in ARCHITECTURE}
    if not any(getattr(base.augmentation, name) for name in AUGMENTATIONS):
        del ranges[STRENGTH]
    return fitted(Space(ranges, base))


def declared() -> Iterable[tuple[str, Range]]:
    """The settings that have a range beside them."""
    for name, _, field in leaves(TrainConfig):
        for mark in field.metadata:
            if isinstance(mark, Choice | Uniform | LogUniform | Integer):
                yield name, mark


def read_space(file: str, base: TrainConfig) -> Space:
    """The space in a YAML file; Mendable says in one line what is wrong with it."""
    known = {name for name, (group, *_), _ in leaves(TrainConfig) if group in GROUPS} | {*COMPOUND}
    ranges = {}
    for name, value in read_yaml(file).items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Mendable(f"--space {file}: there is no setting {name} to search{hint}")
        ranges[name] = parse_range(f"--space {file}: {name}", value)
    if "filters" in ranges and ranges.keys() & {STAGES, WIDTH}:
        raise Mendable(f"--space {file}: give filters, or stages and width, not both")
    if not isinstance(ranges.get("image_size", Choice(())), Choice):
        raise Mendable(f"--space {file}: image_size takes a choice: each is prepared once")
    space = fitted(Space(ranges, base))
    for name, limits in ranges.items():
        for value in ends(limits):
            space.settings(space.start | {name: value})  # each must be a value of its setting
    return space


def ends(limits: Range) -> tuple[Value, ...]:
    """The values that stand for a range when it is checked."""
    return limits.values if isinstance(limits, Choice) else (limits.low, limits.high)


def fitted(space: Space) -> Space:
    """The space without stages that the image size has no room for: each halves the image."""
    room = int(math.log2(space.image_sizes[0]))
    limits = space.ranges.get(STAGES)
    if isinstance(limits, Integer) and limits.low > room:
        raise Mendable(
            f"{limits.low} stages do not fit images of {space.image_sizes[0]} pixels: "
            f"search up to {room}, or take larger images"
        )
    if isinstance(limits, Integer):
        return Space(
            space.ranges | {STAGES: Integer(limits.low, min(limits.high, room))}, space.base
        )
    if isinstance(limits, Choice):
        fitting = tuple(value for value in limits.values if int(value or 0) <= room)
        return Space(space.ranges | {STAGES: Choice(fitting)}, space.base)
    return space
