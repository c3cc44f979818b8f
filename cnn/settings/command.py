"""The command line of a job, made from its settings."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn, get_args, get_origin

import click
import psutil
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cnn.config import Experiment, Positional, TrainConfig
from cnn.errors import (
    FULL_GPU,
    FULL_GPU_IN_SCORING,
    UserError,
    is_full_disk,
    is_full_gpu,
    is_refused,
    raised_by_task,
    reasons,
)
from cnn.settings.schema import (
    Config,
    Location,
    called,
    job_of,
    kind,
    leaves,
    locations,
    read_yaml,
    validate,
)
from cnn.text.terminal import one_line

STOPPED = "stopped: run the same command to resume"
REFUSED = "give another path, or fix its permissions"
FULL_DISK = (
    "error: no space left on device, or in your quota: "
    "free some space, then run the same command to resume"
)


def run(settings: type[Config], job: Callable[[Config], None]) -> None:
    """Parse the command line into `settings`, call `job`, and exit with a code.

    Exit codes: 0 done; 2 an error that the user can fix and 1 a full disk, both with one line on
    stderr; 130 on Ctrl-C, 143 on SIGTERM. Anything else is a bug: a traceback, and 1.
    """
    signal.signal(signal.SIGTERM, terminate)
    given = None
    try:
        given = parse(settings, sys.argv[1:])
        job(given)
    except KeyboardInterrupt as signalled:
        looks = isinstance(given, TrainConfig) and (given.dry_run or given.preview)
        # A dry run or a preview leaves nothing to resume.
        stop(143 if isinstance(signalled, Terminated) else 130, "stopped" if looks else STOPPED)
    except Exception as error:
        for reason in reasons(error):
            if isinstance(reason, UserError):
                end(f"error: {reason}", 2)
            if message := raised_by_task(reason):
                end(f"error: {message}", 2)
            if is_full_disk(reason):
                end(FULL_DISK, 1)
            if is_full_gpu(reason):
                training = issubclass(settings, Experiment)
                end(f"error: {FULL_GPU if training else FULL_GPU_IN_SCORING}", 2)
        if isinstance(error, OSError) and is_refused(error):
            end(f"error: {error.filename}: {error.strerror}: {REFUSED}", 2)
        raise


class Terminated(KeyboardInterrupt):
    """SIGTERM: the process is asked to end."""


def terminate(number: int, frame: object) -> None:
    """The handler of SIGTERM."""
    raise Terminated


def end(line: str, code: int) -> NoReturn:
    """End the process with one line on standard error."""
    with suppress(OSError):  # its reader has ended: the exit code still tells the outcome
        print(one_line(" ".join(line.splitlines())), file=sys.stderr)
    sys.exit(code)


def stop(code: int, line: str) -> NoReturn:
    """Print the line and exit at once, and kill all child processes; threads are not waited for."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    try:
        with suppress(OSError):  # the reader may have been stopped by the same Ctrl-C
            print(line, file=sys.stderr, flush=True)
            sys.stdout.flush()
        for process in reversed(psutil.Process().children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    finally:
        os._exit(code)


def parse(settings: type[Config], arguments: list[str]) -> Config:
    """Settings from flags over the --config file over defaults; UserError if they are invalid."""
    given = flags(settings, arguments)
    file = given.pop("config", None)
    values = read_yaml(file, "--config", "settings, such as a run's config.yaml") if file else {}
    if "epochs" in given and issubclass(settings, Experiment):
        values = settings.for_other_epochs(values)
    for name, value in given.items():
        *groups, leaf = locations(settings)[name]
        group = values
        for part in groups:
            group = group.setdefault(part, {})
        if isinstance(group, dict):  # else the file is wrong there: `validate` reports it
            group[leaf] = value
    for name, location, field in leaves(settings):
        source = f"{file}: " if file and name not in given else ""
        require_text(f"{source}{called(name, field)}", value_at(values, location))
    return validate(settings, values, file, given)


def value_at(values: Any, location: Location) -> Any:
    """The value at a location in nested groups; None if there is none."""
    for name in location:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def flags(settings: type[BaseModel], arguments: list[str]) -> dict[str, Any]:
    """The values on the command line, by setting; settings that are not given are left out."""
    command = Sectioned(
        settings,
        name=f"python -m {job_of(settings)}",
        params=[*parameters(settings), config_option()],
        help="\n\n".join([settings.__doc__ or "", *arguments_of(settings)]),
        callback=lambda **given: given,
        context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    )
    try:
        given = command.main(arguments, prog_name=command.name, standalone_mode=False)
    except click.ClickException as error:
        raise UserError(error.format_message()) from None
    if not isinstance(given, dict):  # --help has been printed
        sys.exit(0)
    require_text("--config", given["config"])
    return {name: value for name, value in given.items() if value not in (None, ())}


class Sectioned(click.Command):
    """A command whose help has a section for each group of settings, with the group's docstring."""

    def __init__(self, settings: type[BaseModel], **named: Any) -> None:
        super().__init__(**named)
        self.settings = settings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):  # `arguments_of` has the others
                sections.setdefault(section(self.settings, parameter.name), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section(settings: type[BaseModel], name: str | None) -> str:
    """The section of a setting in the help: what its group says of itself, or Options."""
    group, *inner = locations(settings).get(name or "", ("",))
    return str(settings.model_fields[group].annotation.__doc__).rstrip(".") if inner else "Options"


def require_text(name: str, value: Any) -> None:
    """UserError for a text that is empty, as from an unset shell variable, or that no path can be.

    Of several values, each is checked; those that are not text are left to `validate`.
    """
    several = value if isinstance(value, list | tuple) else [value]
    for text in (one for one in several if isinstance(one, str)):
        if text == "":
            raise UserError(f"{name} is empty: give a value, or leave it out")
        if "\0" in text:
            raise UserError(f"{name} {text!r} holds a null character: no file has it in its name")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{name} {text!r} is not UTF-8: rename it, or give a link to it"
            ) from None


def arguments_of(settings: type[BaseModel]) -> Iterator[str]:
    """The help text of each argument: click itself lists only flags."""
    for name, _, field in leaves(settings):
        if Positional in field.metadata:
            yield f"{name.upper()}: {field.description}"


def config_option() -> click.Option:
    """The flag that names a file of settings."""
    return click.Option(
        ["--config"],
        metavar="FILE",
        help="YAML file of settings, such as a run's config.yaml; flags override it",
    )


def parameters(settings: type[BaseModel]) -> Iterator[click.Parameter]:
    """A click parameter for each setting; pydantic converts and checks the values."""
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
    """The click argument of a setting without a flag; a tuple takes one value or more."""
    several = get_origin(field.annotation) is tuple
    shown = f"{name.upper()} [{name.upper()} ...]" if several else name.upper()
    return click.Argument(
        [name],
        metavar=shown if field.is_required() else f"[{shown}]",
        nargs=-1 if several else 1,
        required=False,  # it may be in the --config file
    )


def help_of(field: FieldInfo) -> str:
    """The description, with the default unless it is None or False."""
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
