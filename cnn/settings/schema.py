"""The schema of a class of settings: its leaves, and values validated against it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cnn.config import Positional, ScoreConfig, TrainConfig, TuneConfig
from cnn.errors import UserError, in_short
from cnn.text.spelling import nearest

Config = TypeVar("Config", bound=BaseModel)
Location = tuple[str, ...]


def leaves(
    settings: type[BaseModel], above: Location = ()
) -> Iterator[tuple[str, Location, FieldInfo]]:
    """The name, location and field of each setting, in all groups; a flag is the name alone."""
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*above, name))
        else:
            yield name, (*above, name), field


def locations(settings: type[BaseModel]) -> dict[str, Location]:
    """Setting name → its location in the groups."""
    return {name: location for name, location, _ in leaves(settings)}


def kind(field: FieldInfo) -> str:
    """The kind of value that a flag takes, in a word; several values, such as 32,64, are text."""
    if get_origin(field.annotation) is tuple:
        return "TEXT"
    types = {field.annotation, *get_args(field.annotation)}
    types |= {get_args(one)[0] for one in types if get_origin(one) is Annotated}
    return "N" if int in types else "X" if float in types else "TEXT"


def called(name: str, field: FieldInfo) -> str:
    """A setting's name on the command line: `IMAGES`, or `--image-size`."""
    return name.upper() if Positional in field.metadata else flag(name)


def flag(name: str) -> str:
    """A setting's flag, such as `--image-size`."""
    return f"--{name.replace('_', '-')}"


def validate(
    settings: type[Config],
    values: dict[str, Any],
    source: str | None = None,
    flagged: Collection[str] = (),
) -> Config:
    """`values` as settings; raises a one-line UserError for the first error.

    `source` is the file that the values are from, except for those in `flagged`.
    """
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(settings, error, source, flagged)) from None


def explain(
    settings: type[BaseModel],
    error: ValidationError,
    source: str | None,
    flagged: Collection[str],
) -> str:
    """The first error of pydantic as one line that names the file or flag, and the fix."""
    unknown = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
    if unknown:  # before wrong values: another job's settings are both
        where = f"{source or 'the settings'}: unknown setting {'.'.join(map(str, unknown[0]))}"
        return f"{where}; {mend(settings, unknown)}"
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        field = settings.model_fields[place[-1]]
        return f"{called(place[-1], field)} is missing: give the {field.description}"
    name = next((called(n, field) for n, at, field in leaves(settings) if at == place), None)
    if name is None and first["type"] == "value_error":  # settings that conflict
        return message
    if name is None:  # a value where a group belongs
        group = ".".join(map(str, first["loc"]))
        wanted = "give its settings below it, or leave it out" if len(place) == 1 else message
        return f"{source or 'the settings'}: {group}: {wanted}"
    file = f"{source}: " if source and place[-1] not in flagged else ""
    return f"{file}{name} {first['input']}: {message[0].lower()}{message[1:]}"


def mend(settings: type[BaseModel], unknown: Sequence[tuple[int | str, ...]]) -> str:
    """What to do about the locations of unknown settings, by the first of them."""
    names = {str(place[0]) for place in unknown if len(place) == 1}
    for other in (TrainConfig, TuneConfig, ScoreConfig):
        if len(unknown[0]) == 1 and names <= other.model_fields.keys():
            searched = (settings, other) == (TrainConfig, TuneConfig)
            best = ", such as the search's best.yaml" if searched else ""
            return f"it is a setting of {job_of(other)}: give settings of {job_of(settings)}{best}"
    known = {name: ".".join(location) for name, location in locations(settings).items()}
    known |= {name: name for name in settings.model_fields}
    near = nearest(str(unknown[0][-1]), known)
    return f"did you mean {known[near]}?" if near else "--help lists the settings"


def job_of(settings: type[BaseModel]) -> str:
    """The job that takes these settings, as it is called on the command line."""
    return f"jobs.{settings.__name__.removesuffix('Config').lower()}"


def read_yaml(file: str, flag: str, wanted: str) -> dict[str, Any]:
    """The mapping in a flag's YAML file; if there is none, UserError that names the `wanted`."""
    from cnn.files.place import place  # late: it imports pyarrow, for which --help should not wait

    try:
        content = yaml.load(place(file).read_text(encoding="utf-8"), UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise UserError(f"{flag} {file}: cannot be read: {in_short(error)}") from None
    except UserError as error:
        raise UserError(f"{flag} {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # the second: such as a 30th of February
        raise UserError(f"{flag} {file}: is not YAML: {in_short(error)}") from None
    except RecursionError:
        raise UserError(f"{flag} {file}: is nested too deeply") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{flag} {file}: holds no {wanted}")
    return content


class UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice: PyYAML would silently drop the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value} is given twice, the second time in line {line}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
