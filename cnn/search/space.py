"""The search space: what a search may vary, and how a point of it becomes settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod
from typing import Annotated, Any, Self, TypeAlias

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cnn.config import (
    CNN_ONLY,
    MOST_FILTERS,
    NO_TRUTH,
    Augmentation,
    Network,
    Settings,
    TrainConfig,
    is_number,
)
from cnn.errors import UserError
from cnn.settings.ranges import (
    Choice,
    Integer,
    LogUniform,
    Range,
    Uniform,
    Value,
    as_value,
    parse_range,
    size_of,
    varies,
    written,
)
from cnn.settings.schema import kind, leaves, locations, read_yaml, validate
from cnn.text.plural import counted
from cnn.text.spelling import nearest

Point: TypeAlias = Mapping[str, Value]
"""A value for each dimension of a space."""

GROUPS = ("augmentation", "network", "training")
"""Groups of settings that may be searched; of the group `data`, only the image size may be."""

# Filters double from stage to stage, up to this multiple of the first stage's.
WIDEST = 8

# The limit of each augmentation when it is multiplied by a strength. A shift or zoom by the whole
# side would leave nothing to see.
LARGEST = {"rotation": 180.0, "shift": 0.9, "zoom": 0.9}


class Compound(Settings):
    """Dimensions that stand for several settings each."""

    stages: Annotated[int, Integer(2, 6)] = Field(ge=1, description="stages of the cnn")
    width: Annotated[int, Choice((16, 32, 48, 64))] = Field(
        ge=1, description="filters in the first stage of the cnn"
    )
    strength: Annotated[float, Uniform(0.3, 1.5)] = Field(
        ge=0, description="multiple of the given rotation, shift and zoom"
    )

    @classmethod
    def of(cls, base: TrainConfig) -> Self:
        """The compound dimensions that are nearest to the given settings."""
        filters = base.network.filters
        return cls(stages=len(filters), width=filters[0], strength=1.0)

    def filters(self) -> tuple[int, ...]:
        """Filters per stage: twice those of the stage before, up to WIDEST times the first."""
        widest = min(self.width * WIDEST, MOST_FILTERS)
        return tuple(min(self.width * 2**stage, widest) for stage in range(self.stages))

    def augmentation(self, given: Augmentation) -> dict[str, float]:
        """The given augmentation at this strength."""
        own = {name: getattr(given, name) for name in LARGEST}
        return {
            name: min(value * self.strength, max(value, LARGEST[name]))
            for name, value in own.items()
        }


@dataclass(frozen=True)
class Space:
    """Ranges by dimension, around the settings that a search begins with."""

    ranges: dict[str, Range]
    base: TrainConfig

    @property
    def start(self) -> dict[str, Value]:
        """The point of the given settings, or the nearest point that the ranges allow."""
        own = given(self.base)
        return {name: limits.nearest(own[name]) for name, limits in self.ranges.items()}

    @property
    def holds_given(self) -> bool:
        """Whether the ranges allow the given settings."""
        own = given(self.base)
        return all(own[name] == value for name, value in self.start.items())

    @property
    def image_sizes(self) -> list[int]:
        """Every image size that a trial may have, the smallest first."""
        return sorted(size for size in self.choices("image_size") if isinstance(size, int))

    def require_points(self, trials: int) -> None:
        """Raise UserError if there are fewer points than trials: one again shows nothing new."""
        if (points := prod(map(size_of, self.ranges.values()))) < trials:
            raise UserError(
                f"the space has {counted(int(points), 'point')}, fewer than --trials {trials}: "
                f"give --trials {int(points)}, or wider ranges"
            )

    @property
    def most_epochs(self) -> int:
        """The most epochs that a trial may have."""
        return max(epochs for epochs in self.choices("epochs") if isinstance(epochs, int))

    def as_yaml(self) -> str:
        """The ranges in the format that `read_space` reads."""
        ranges = {name: written(limits) for name, limits in self.ranges.items()}
        return yaml.safe_dump(ranges, sort_keys=False)

    def choices(self, name: str) -> tuple[Value, ...]:
        """The values, or the bounds, that trials may give to a setting."""
        return self.ranges[name].samples if name in self.ranges else (given(self.base)[name],)

    def settings(self, point: Point) -> TrainConfig:
        """The settings of a point: values that it does not change are kept exactly as given."""
        own, groups, values = given(self.base), searchable(), self.base.model_dump()
        changed = {name: value for name, value in point.items() if value != own[name]}
        for name in changed.keys() & groups.keys():
            values[groups[name]][name] = changed.pop(name)
        compound = validate(Compound, Compound.of(self.base).model_dump() | changed)
        if changed.keys() & {"stages", "width"}:
            values["network"]["filters"] = compound.filters()
        if "strength" in changed:
            values["augmentation"] |= compound.augmentation(self.base.augmentation)
        return validate(TrainConfig, values)


def searchable() -> dict[str, str]:
    """Every single setting that may be searched, and its group.

    The others, such as the seed, are the same for all trials; also `fit`, because images are
    prepared once per size.
    """
    return {
        name: group
        for name, (group, *_), _ in leaves(TrainConfig)
        if group in GROUPS or name == "image_size"
    }


def dimensions() -> dict[str, FieldInfo]:
    """Every dimension that a space may have: single settings, and the compound ones."""
    singles = {name: field for name, _, field in leaves(TrainConfig) if name in searchable()}
    return singles | Compound.model_fields


def given(base: TrainConfig) -> dict[str, Value]:
    """The value of every dimension at the given settings."""
    values = base.model_dump()
    singles = {name: as_value(values[group][name]) for name, group in searchable().items()}
    return singles | Compound.of(base).model_dump()


def default_space(base: TrainConfig) -> Space:
    """The ranges declared with the settings, each extended to include the given value.

    A weight decay of 0 stays 0, and dimensions without effect are left out. Raises UserError if no
    network can be built from the given settings.
    """
    alone, own = fitted(Space({}, base)), given(base)
    ranges = {
        name: possible(alone, name, limits.reaching(own[name]))
        for name, limits in declared(base).items()
        if not idle(alone, name) and not (isinstance(limits, LogUniform) and own[name] == 0)
    }
    space = fitted(Space(ranges, base))
    return replace(
        space, ranges={n: limits for n, limits in space.ranges.items() if varies(limits)}
    )


def declared(base: TrainConfig) -> dict[str, Range]:
    """The dimensions with a declared range, and the epochs: from half to all of them."""
    marked = {
        name: mark
        for name, field in dimensions().items()
        for mark in field.metadata
        if isinstance(mark, Choice | Uniform | LogUniform | Integer)
    }
    epochs = base.training.epochs
    return marked | {"epochs": Integer((epochs + 1) // 2, epochs)}


def possible(space: Space, name: str, limits: Range) -> Range:
    """A choice without values that conflict with other settings, as a batch size with workers."""

    def goes(value: Value) -> bool:
        try:
            return bool(space.settings({name: value}))
        except UserError:
            return False

    return Choice(tuple(filter(goes, limits.values))) if isinstance(limits, Choice) else limits


def idle(space: Space, name: str) -> str | None:
    """Why a dimension would have no effect; None if it has one."""
    if name in CNN_ONLY | {"stages", "width"} and "cnn" not in space.choices("network"):
        return f"{name} is for the cnn only, and the network is {space.choices('network')[0]}"
    if name == "growing" and "cnn" not in space.choices("network"):
        return "growing is for the cnn only: other networks take images of one size"
    if name == "test_time_flip":
        return "test_time_flip changes no accuracy on validation, which compares the trials"
    if name == "strength" and not any(getattr(space.base.augmentation, n) for n in LARGEST):
        return "strength multiplies rotation, shift and zoom, and all of them are 0"
    return None


def fitted(space: Space) -> Space:
    """The space limited to the stages that its smallest images allow: each stage halves them.

    Raises UserError if no number of stages is left.
    """
    if "cnn" not in space.choices("network"):
        return space
    smallest = space.image_sizes[0]
    room = smallest.bit_length() - 1
    name = "filters" if "filters" in space.ranges else "stages"
    limits = space.ranges.get(name, Choice((len(space.base.network.filters),)))
    fewest = min(map(depth, limits.samples))
    if fewest > room:
        raise UserError(
            f"{fewest} stages halve images of {smallest} pixels to nothing: "
            f"give at most {room}, or larger images"
        )
    if name not in space.ranges:
        return space
    return replace(space, ranges=space.ranges | {name: shallow(limits, room)})


def shallow(limits: Range, room: int) -> Range:
    """The part of a range of stages, or of filters, that has at most `room` stages."""
    match limits:
        case Choice(values):
            return Choice(tuple(value for value in values if depth(value) <= room))
        case Integer(low, high):
            return Integer(low, min(high, room))
        case _:
            return limits


def depth(value: Value) -> int:
    """The number of stages in a value of `stages` or of `filters`."""
    return len(value.split(",")) if isinstance(value, str) else int(value or 0)


def read_space(file: str, base: TrainConfig) -> Space:
    """The space in a YAML file; a one-line UserError if it is wrong."""
    content = read_yaml(file, "--space", "ranges, such as lr: {loguniform: [0.001, 0.1]}")
    try:
        ranges = {name: dimension(name, limits) for name, limits in content.items()}
        refuse_clashes(ranges)
        space = fitted(Space(ranges, base))
        refuse_idle(space)
        try_settings(space)
        try_networks(space)
    except UserError as error:
        raise UserError(f"--space {file}: {error}") from None
    return space


def dimension(name: Any, given_range: Any) -> Range:
    """The range of a dimension as YAML gives it; UserError if it cannot have such values."""
    fields = dimensions()
    if name in locations(TrainConfig).keys() - fields.keys():
        raise UserError(f"{name} is the same for all trials: leave it out, and give it as a flag")
    if name not in fields:
        near = nearest(str(name), fields)
        hint = f"did you mean {near}?" if near else "name one, such as lr, without its group"
        raise UserError(f"there is no setting {name} to search; {hint}")
    try:
        return typed(fields[name], parse_range(given_range))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def typed(field: FieldInfo, limits: Range) -> Range:
    """The range with values of the setting's type: 1e-4, which is text, becomes a number."""
    if isinstance(limits, Choice):
        return Choice(tuple(dict.fromkeys(valued(field, value) for value in limits.values)))
    if kind(field) == "TEXT":
        raise UserError("this is not a number: write {choice: [a, b]}")
    if kind(field) == "N" and not isinstance(limits, Integer):
        raise UserError("these are whole numbers: write {int: [low, high]} or {choice: [a, b]}")
    for value in limits.samples:
        valued(field, value)
    return limits


def valued(field: FieldInfo, value: Value) -> Value:
    """A value in the setting's type; UserError if the setting cannot have it."""
    if isinstance(value, bool) and is_number(field.annotation):
        raise UserError(f"{value}: {NO_TRUTH}")
    checked: Any = Annotated[field.annotation, field]
    setting = TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False))
    try:
        return as_value(setting.validate_python(value))
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise UserError(f"{value}: {message[0].lower()}{message[1:]}") from None


def refuse_clashes(ranges: Mapping[str, Range]) -> None:
    """Raise UserError if two dimensions change the same setting."""
    if "filters" in ranges and ranges.keys() & {"stages", "width"}:
        raise UserError("give filters, or stages and width, not both")
    if "strength" in ranges and ranges.keys() & LARGEST.keys():
        raise UserError(f"give strength, or {', '.join(LARGEST)}, not both")
    if not isinstance(ranges.get("image_size", Choice(())), Choice):
        raise UserError("image_size: write {choice: [a, b]}: images are prepared once per size")


def refuse_idle(space: Space) -> None:
    """Raise UserError if a dimension would have no effect."""
    for reason in (idle(space, name) for name in space.ranges):
        if reason:
            raise UserError(f"{reason}: leave it out")


def try_settings(space: Space) -> None:
    """Raise UserError if settings conflict; no rule involves more than two of them."""
    for size in (1, 2):
        for names in combinations(space.ranges, size):
            for values in product(*(space.ranges[name].samples for name in names)):
                space.settings(space.start | dict(zip(names, values, strict=True)))


def try_networks(space: Space) -> None:
    """Raise UserError if a torchvision network cannot take an image size of the space."""
    others = [str(name) for name in space.choices("network") if name != "cnn"]
    if not others:
        return
    import torch  # late: it costs seconds, and the cnn does not need it here

    from cnn.network import build, check

    # Weights to download are not looked at here: each trial downloads its own.
    files = {weights if weights != "default" else None for weights in space.choices("weights")}
    for name, weights, image_size in product(others, files, space.image_sizes):
        try:
            # Shapes only, without memory or arithmetic; but weights can be loaded only into memory.
            with torch.device("cpu" if weights else "meta"):
                shape = Network.model_validate({"network": name, "weights": weights})
                check(build(shape, image_size, classes=2), image_size)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
