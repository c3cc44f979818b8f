"""The command line of a job, made from its page of settings."""

import difflib
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import click
import psutil
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cnn.config import Positional
from cnn.errors import FULL_GPU, Mendable, is_full_disk, is_full_gpu, is_refused, reasons
from cnn.terminal import one_line

Config = TypeVar("Config", bound=BaseModel)
Location = tuple[str, ...]

STOPPED = "stopped; the same command goes on from here"
REFUSED = "name another, or mend who may read and write it"
FULL_DISK = "error: no space left on device; make room, and the same command goes on from here"


def run(settings: type[Config], job: Callable[[Config], None]) -> None:
    """Parse the command line into `settings`, call `job`, and end the process as it deserves.

    Exit codes: 0 done; 2 the user can mend it and 1 a full disk, both with one line on stderr; 130
    on Ctrl-C, 143 on SIGTERM. Anything else is a bug, and leaves with its traceback and 1.
    """
    signal.signal(signal.SIGTERM, terminate)
    try:
        job(parse(settings, sys.argv[1:]))
    except Terminated:
        stop(143)
    except KeyboardInterrupt:
        stop(130)
    except Exception as error:
        for reason in reasons(error):
            if isinstance(reason, Mendable):
                end(f"error: {reason}", 2)
            if is_full_disk(reason):
                end(FULL_DISK, 1)
            if is_full_gpu(reason):
                end(f"error: {FULL_GPU}", 2)
        if isinstance(error, OSError) and is_refused(error):
            end(f"error: {error.filename}: {error.strerror}: {REFUSED}", 2)
        raise


class Terminated(KeyboardInterrupt):
    """The system, or whoever runs it, wants this process to end."""


def terminate(number: int, frame: object) -> None:
    """The handler of SIGTERM."""
    raise Terminated


def end(line: str, code: int) -> NoReturn:
    """End the process with one line on standard error."""
    print(one_line(" ".join(line.splitlines())), file=sys.stderr)
    sys.exit(code)


def stop(code: int) -> NoReturn:
    """End the process at once, with all that it has started.

    A thread may still be at work, and is not waited for.
    """
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    try:
        with suppress(OSError):  # whoever read this may have been stopped by the same Ctrl-C
            print(STOPPED, file=sys.stderr, flush=True)
            sys.stdout.flush()
        for process in reversed(psutil.Process().children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    finally:
        os._exit(code)


def parse(settings: type[Config], arguments: list[str]) -> Config:
    """Settings from defaults, then the --config file, then flags; Mendable says what is wrong."""
    given = flags(settings, arguments)
    file = given.pop("config", None)
    values = read_yaml(file, "--config", "settings, as a run's config.yaml has") if file else {}
    for name, value in given.items():
        *groups, leaf = locations(settings)[name]
        group = values
        for part in groups:
            group = group.setdefault(part, {})
        if isinstance(group, dict):  # else the file is wrong there, which is told below
            group[leaf] = value
    return validate(settings, values, file, given)


def validate(
    settings: type[Config],
    values: dict[str, Any],
    source: str | None = None,
    flagged: Collection[str] = (),
) -> Config:
    """`values`, from a file but for those of flags, as settings; what is wrong becomes one line."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise Mendable(explain(settings, error, source, flagged)) from None


def flags(settings: type[BaseModel], arguments: list[str]) -> dict[str, Any]:
    """What the command line gives, by setting; what it does not mention is not there."""
    command = click.Command(
        name=f"python -m jobs.{settings.__name__.removesuffix('Config').lower()}",
        params=[*parameters(settings), config_option()],
        help="\n\n".join([settings.__doc__ or "", *arguments_of(settings)]),
        callback=lambda **given: given,
        context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    )
    try:
        given = command.main(arguments, prog_name=command.name, standalone_mode=False)
    except click.ClickException as error:
        raise Mendable(error.format_message()) from None
    if not isinstance(given, dict):  # --help was asked for, and printed
        sys.exit(0)
    named = {name: called(name, field) for name, _, field in leaves(settings)}
    for name, value in given.items():
        for one in value if isinstance(value, tuple) else (value,):
            require_text(named.get(name, "--config"), one)
    return {name: value for name, value in given.items() if value not in (None, ())}


def require_text(name: str, value: Any) -> None:
    """Mendable where a value is empty, as that of a variable that is unset, or is no text."""
    if value == "":
        raise Mendable(f"{name} is empty: give a value, or leave it out")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise Mendable(f"{name} {value!r} is not UTF-8: rename it, or give a link to it") from None


def arguments_of(settings: type[BaseModel]) -> Iterator[str]:
    """What the help says of each argument: click tells of flags alone."""
    for name, _, field in leaves(settings):
        if Positional in field.metadata:
            yield f"{name.upper()}: {field.description}"


def config_option() -> click.Option:
    """The flag that names a file of settings."""
    return click.Option(
        ["--config"],
        metavar="FILE",
        help="YAML file of settings, such as a run's config.yaml; flags go before it",
    )


def parameters(settings: type[BaseModel]) -> Iterator[click.Parameter]:
    """A click parameter for each setting; pydantic does the typing and checking."""
    for name, _, field in leaves(settings):
        if Positional in field.metadata:
            yield argument(name, field)
            continue
        flag = called(name, field)
        if bool in (field.annotation, *get_args(field.annotation)):
            yield click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=help_of(field))
        else:
            choices = get_args(field.annotation)
            metavar = "|".join(choices) if all(isinstance(c, str) for c in choices) else None
            yield click.Option(
                [flag],
                metavar=metavar or kind(field),
                help=help_of(field),
                type=str,
            )


def argument(name: str, field: FieldInfo) -> click.Argument:
    """What the command line takes without a flag; a tuple takes one value or more."""
    several = get_origin(field.annotation) is tuple
    shown = f"{name.upper()} [{name.upper()} ...]" if several else name.upper()
    return click.Argument(
        [name],
        metavar=shown if field.is_required() else f"[{shown}]",
        nargs=-1 if several else 1,
        required=False,  # it may stand in the --config file
    )


def kind(field: FieldInfo) -> str:
    """What a flag takes, in a word."""
    types = {field.annotation, *get_args(field.annotation)}
    types |= {get_args(one)[0] for one in types if get_origin(one) is Annotated}
    return "N" if int in types else "X" if float in types else "TEXT"


def help_of(field: FieldInfo) -> str:
    """The description, and the default where the description does not tell it."""
    text = field.description or ""
    if (
        field.is_required()
        or field.default is None
        or (field.annotation is bool and not field.default)
    ):
        return text
    default = field.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} [default: {shown}]"


def leaves(
    settings: type[BaseModel], above: Location = ()
) -> Iterator[tuple[str, Location, FieldInfo]]:
    """Each setting with its place: groups are entered, so that flags are short."""
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*above, name))
        else:
            yield name, (*above, name), field


def locations(settings: type[BaseModel]) -> dict[str, Location]:
    """Setting name → its place in the page."""
    return {name: location for name, location, _ in leaves(settings)}


class UniqueKeys(yaml.SafeLoader):
    """YAML without a key given twice: the first of the two would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value} is given twice, at last in line {line}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(file: str, flag: str, wanted: str) -> dict[str, Any]:
    """The mapping in the YAML file of a flag; Mendable where it does not hold what is `wanted`."""
    from cnn.place import place  # late: it brings pyarrow, for which --help should not wait

    try:
        content = yaml.load(place(file).read_text(encoding="utf-8"), UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise Mendable(f"{flag} {file}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise Mendable(f"{flag} {file}: is not YAML: {reason}") from None
    if not isinstance(content, dict) or not content:
        raise Mendable(f"{flag} {file}: holds no {wanted}")
    return content


def explain(
    settings: type[BaseModel],
    error: ValidationError,
    source: str | None,
    flagged: Collection[str],
) -> str:
    """The first complaint of pydantic as one line that names file or flag, and the mend."""
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        known = {name: ".".join(location) for name, location in locations(settings).items()}
        known |= {name: name for name in settings.model_fields}
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        return f"{source or 'the settings'}: unknown setting {'.'.join(place)}{hint}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        field = settings.model_fields[place[-1]]
        return f"{called(place[-1], field)} is missing: give the {field.description}"
    name = next((called(n, field) for n, at, field in leaves(settings) if at == place), None)
    if name is None and first["type"] == "value_error":  # settings that do not go together
        return message
    if name is None:  # a value where a group belongs
        group = ".".join(map(str, first["loc"]))
        wanted = "give its settings below it, or leave it out" if len(place) == 1 else message
        return f"{source or 'the settings'}: {group}: {wanted}"
    file = f"{source}: " if source and place[-1] not in flagged else ""
    return f"{file}{name} {first['input']}: {message[0].lower()}{message[1:]}"


def called(name: str, field: FieldInfo) -> str:
    """What the command line calls a setting: `IMAGES`, or `--image-size`."""
    return name.upper() if Positional in field.metadata else f"--{name.replace('_', '-')}"
