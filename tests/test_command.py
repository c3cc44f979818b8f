"""Laws of the command line: flags over file over defaults, and each error is one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from cnn.config import Positional, PrepareConfig, ScoreConfig, TrainConfig, TuneConfig
from cnn.errors import UserError, is_full_gpu
from cnn.manifest import COLUMNS, Manifest
from cnn.runs.run_folder import TrainFolder
from cnn.settings.command import parse
from cnn.settings.schema import flag, leaves, mend

IMPORTS = "from cnn.settings.command import *; from cnn.config import TrainConfig"
ROOT = Path(__file__).parents[1]
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py") if file.stem != "__init__")

# Counts that would end in an error of torch or Ray, or never, if they were absurd.
COUNTS = (
    "--filters", "--convolutions", "--kernel-size", "--hidden", "--epochs", "--batch-size",
    "--workers",
)  # fmt: skip

NO_IMAGES = Manifest(COLUMNS.empty_table(), {})

# Runs a job's module as `python -m` does, then prints which heavy libraries it has loaded.
LOADED = """
import atexit, runpy, sys
heavy = {"ray", "torch", "torchvision", "pandas", "sklearn", "matplotlib"}
atexit.register(lambda: print("loaded:", *heavy & sys.modules.keys()))
runpy.run_module(f"jobs.{sys.argv[1]}", run_name="__main__", alter_sys=True)
"""


def write(tmp_path: Path, values: Any) -> str:
    """A file of settings; text is written as it is."""
    file = tmp_path / "settings.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return str(file)


def train(*arguments: str) -> TrainConfig:
    return parse(TrainConfig, list(arguments))


def error_line(*arguments: str) -> str:
    """The one-line error that these arguments give."""
    with pytest.raises(UserError) as caught:
        train(*arguments)
    (line,) = str(caught.value).splitlines()
    return line


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["TrainConfig"], "a smaller --batch-size and a new --out, or"),
        (["ScoreConfig", "model", "photos", "--out", "run"], "a smaller --batch-size, or"),
    ],
    ids=["train", "score"],
)
def test_too_little_gpu_memory_is_a_one_line_error_with_a_mend_that_the_job_accepts(
    arguments: list[str], mend: str
) -> None:
    code = """
import sys, torch
from cnn import config
from cnn.settings.command import run
def job(settings):
    try:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")
    except RuntimeError as error:
        raise RuntimeError("a worker failed") from error
run(getattr(config, sys.argv.pop(1)), job)
"""
    ended = python("-c", code, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    line = f"error: a GPU's memory is too small: give {mend} stop other programs on the GPU\n"
    assert ended.stderr == line


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 8.00 GiB.",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_full_gpu_is_recognised_by_each_of_its_messages(message: str) -> None:
    assert is_full_gpu(RuntimeError(message))
    assert not is_full_gpu(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_the_text_of_a_user_error_in_a_task_is_a_one_line_error() -> None:
    """Ray Data raises an error of its own with the traceback of the task's as its text."""
    code = """
import cnn.files.folder
from cnn.settings.command import run
from cnn.config import TrainConfig
def job(settings):
    raise RuntimeError("File x\\ncnn.files.folder.FolderError: gone: bring it back\\n\\nmore")
run(TrainConfig, job)
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (2, "error: gone: bring it back\n")
    other = python("-c", code.replace("cnn.files.folder.FolderError", "cnn.loop.DivergedError"))
    assert other.returncode == 1 and "Traceback" in other.stderr


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT"])
@pytest.mark.parametrize(
    "error", ["OSError(number, text, 'file')", "RuntimeError(f'task: {text}')"]
)
def test_a_full_disk_or_quota_is_a_one_line_error(code: str, error: str) -> None:
    """Also where only the text of a task's error survives."""
    program = f"""
import errno, os
from cnn.settings.command import run
from cnn.config import TrainConfig
def job(settings):
    number, text = errno.{code}, os.strerror(errno.{code})
    raise {error}
run(TrainConfig, job)
"""
    ended = python("-c", program)
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "free some space, then run the same command to resume" in line


def test_without_arguments_all_settings_are_the_defaults() -> None:
    assert train() == TrainConfig()


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, {"seed": 3, "training": {"epochs": 5, "lr": 0.25}})
    settings = train("photos", "--config", file, "--epochs", "7", "--hidden", "9")
    assert (settings.training.epochs, settings.network.hidden) == (7, 9)  # flags
    assert (settings.seed, settings.training.lr) == (3, 0.25)  # file
    given = {"seed": 3, "epochs": 7, "lr": 0.25, "hidden": 9, "images": "photos"}
    plain = TrainConfig.model_validate({"images": "photos", "training": {"epochs": 7}})
    for name, location, _ in leaves(TrainConfig):
        assert look_up(settings, location) == given.get(name, look_up(plain, location))


def look_up(settings: Any, location: tuple[str, ...]) -> Any:
    for name in location:
        settings = getattr(settings, name)
    return settings


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["photos", "--seed", "3", "--workers", "2", "--batch-size", "8", "--gpu"],
        ["--image-size", "32", "--flip", "--filters", "4,8", "--patience", "2", "--lr", "1e-9"],
        ["s3://bucket/a: b #c", "--network", "resnet18", "--weights", "default", "--no-residual"],
        ["caf\u00e9 \u732b\n", "--out", "true", "--prepared", "1e3"],
        ["photos", "--max-minutes", "0.5", "--memory", "0"],
    ],
)
def test_the_settings_that_a_run_saves_are_read_back_unchanged(
    tmp_path: Path, arguments: list[str]
) -> None:
    settings, run = train(*arguments), TrainFolder(tmp_path / "run")
    with run.begun(settings, NO_IMAGES):
        pass
    assert train("--config", str(run.config)) == settings


def test_other_epochs_scale_the_regularisation_that_a_file_has_by_default(tmp_path: Path) -> None:
    run = TrainFolder(tmp_path / "run")
    with run.begun(train("photos", "--epochs", "2", "--rotation", "7"), NO_IMAGES):
        pass
    longer = train("--config", str(run.config), "--epochs", "45")
    assert longer == train("photos", "--epochs", "45", "--rotation", "7")
    digits = TrainFolder(tmp_path / "digits")
    with digits.begun(train("--epochs", "2"), NO_IMAGES):
        pass
    assert train("--config", str(digits.config), "--epochs", "28") == train()
    chosen = write(tmp_path, {"augmentation": {"rotation": 15}})  # the usual one, by name
    assert train("photos", "--config", chosen, "--epochs", "9").augmentation.rotation == 15


def test_a_search_starts_from_the_saved_settings_of_a_training_run(tmp_path: Path) -> None:
    run = TrainFolder(tmp_path / "run")
    given = train("photos", "--lr", "0.5", "--dry-run", "--out", str(run.path))
    with run.begun(given, NO_IMAGES):
        pass
    search = parse(TuneConfig, ["--config", str(run.config), "--out", "elsewhere"])
    assert search.given() == train("photos", "--lr", "0.5")


def test_giving_a_default_by_its_flag_changes_nothing() -> None:
    for name, _, field in leaves(TrainConfig):
        if field.default is None or field.default is PydanticUndefined:
            continue
        flag = name.replace("_", "-")
        if isinstance(field.default, bool):
            arguments = [f"--{flag}" if field.default else f"--no-{flag}"]
        elif isinstance(field.default, tuple):
            arguments = [f"--{flag}", ",".join(map(str, field.default))]
        else:
            arguments = [f"--{flag}", str(field.default)]
        assert train("photos", *arguments) == train("photos"), arguments


def test_each_kind_of_flag_is_understood() -> None:
    settings = train(
        "photos", "--filters", "8,16", "--no-flip", "--vertical-flip", "--no-gpu", "--fit", "crop"
    )
    assert settings.images == "photos"
    assert settings.network.filters == (8, 16)
    assert (settings.augmentation.flip, settings.augmentation.vertical_flip) == (False, True)
    assert settings.resources.gpu is False
    assert settings.data.fit == "crop"
    assert train("--epochs=3", "photos").training.epochs == 3
    assert train("--", "--photos").images == "--photos"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--epoch", "3"], ["'--epoch'", "'--epochs'"]),
        (["--epochs", "many"], ["--epochs many", "valid integer"]),
        (["--epochs", "2.5"], ["--epochs 2.5", "valid integer"]),
        (["--epochs", "0"], ["--epochs 0", "greater than or equal to 1"]),
        (["--epochs"], ["'--epochs'", "requires an argument"]),
        (["--lr", "nan"], ["--lr nan", "finite"]),
        (["--max-minutes", "inf"], ["--max-minutes inf", "finite"]),
        (["--dropout", "1"], ["--dropout 1", "less than 1"]),
        (["--optimizer", "adamx"], ["--optimizer adamx", "'adamw'"]),
        (["--filters", "8,x"], ["--filters x", "valid integer"]),
        (["--config", ""], ["--config is empty", "leave it out"]),
        (["--out", ""], ["--out is empty", "leave it out"]),
        (["--out", "caf\udce9"], ["--out 'caf\\udce9' is not UTF-8", "rename it"]),
        (["--seed", str(2**32)], ["--seed 4294967296", "less than"]),
        (["--filters", "8,0"], ["--filters 0", "greater than or equal to 1"]),
        *(([flag, "9" * 30], [f"{flag} {'9' * 30}", "less than or equal to"]) for flag in COUNTS),
        (["--kernel-size", "10001"], ["--kernel-size 10001", "less than or equal to"]),
        (["--batch-size", "64", "--workers", "3"], ["batch_size 64", "3 workers", "multiple of 3"]),
        (["--kernel-size", "4"], ["kernel_size 4", "odd"]),
        (["--network", "cnn", "--weights", "default"], ["weights", "--network resnet18"]),
        (["--dry-run", "--preview"], ["--dry-run", "--preview", "one of them"]),
        (["photos", "more"], ["more"]),
        (["--config", "no-such.yaml"], ["--config no-such.yaml", "No such file"]),
    ],
)
def test_a_wrong_command_line_gives_a_one_line_error_that_names_the_flag(
    arguments: list[str], parts: list[str]
) -> None:
    line = error_line(*arguments)
    assert all(part in line for part in parts), line


def test_a_searchs_best_yaml_is_advised_for_training_only() -> None:
    advised = mend(TrainConfig, [("search",)])
    assert advised.endswith("give settings of jobs.train, such as the search's best.yaml")
    for settings, unknown in (
        (ScoreConfig, "search"),
        (ScoreConfig, "network"),
        (TrainConfig, "pool"),
        (TuneConfig, "pool"),
    ):
        given = mend(settings, [(unknown,)])
        assert given.startswith("it is a setting of") and "best.yaml" not in given


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"training": {"epoch": 3}}, ["training.epoch;", "training.epochs?"]),
        ({"epochs": 3}, ["unknown setting epochs;", "training.epochs?"]),
        ({"trainin": {"epochs": 3}}, ["unknown setting trainin;", "training?"]),
        ({"netwrk": {"hidden": 3}}, ["unknown setting netwrk;", "mean network?"]),
        ({"training": {"epoch": 3}, "search": {}}, ["training.epoch; did you mean"]),
        ({"colour": "red"}, ["unknown setting colour;", "--help"]),
        ({"search": {"trials": 3}}, ["search; it is a setting of jobs.tune:", "best.yaml"]),
        (
            {"model": "runs/a", "images": ["photos"], "pool": {"workers": 2}},
            ["model; it is a setting of jobs.score: give settings of jobs.train"],
        ),
        ({"training": {"epochs": "many"}}, ["settings.yaml: --epochs many", "valid integer"]),
        ({"training": {"epochs": 0}}, ["settings.yaml: --epochs 0", "greater than or equal to 1"]),
        ({"training": {"lr": float("inf")}}, ["settings.yaml: --lr inf", "finite"]),
        ({"network": "resnet18"}, ["settings.yaml", "network: give its settings below it"]),
        ({"data": None}, ["settings.yaml", "data: give its settings below it"]),
        ({1: 2}, ["settings.yaml", "1"]),
        ("", ["settings.yaml", "no settings"]),
        ("[3]", ["settings.yaml", "no settings"]),
        ("training: {epochs: 3", ["settings.yaml", "not YAML"]),
        ("training: {epochs: 3}\ntraining: {lr: 0.1}", ["training is given twice", "line 2"]),
        ("training: {lr: 0.1, lr: 0.2}", ["lr is given twice", "line 1"]),
        ("\x00", ["settings.yaml", "not YAML"]),
        ("a: " + "[" * 3000 + "]" * 3000, ["settings.yaml: is nested too deeply"]),
        ("network: {filters: &a [*a]}", ["settings.yaml: --filters", "valid integer"]),
        ("training: {epochs: yes}", ["settings.yaml: --epochs True: give a number, not yes or no"]),
        ("training: {lr: yes}", ["settings.yaml: --lr True: give a number"]),
        ("seed: on", ["settings.yaml: --seed True: give a number"]),
        ("resources: {memory: no}", ["settings.yaml: --memory False: give a number"]),
        ("resources: {workers: yes}", ["settings.yaml: --workers True: give a number"]),
        ("network: {filters: [true, 2]}", ["settings.yaml: --filters [True, 2]: give a number"]),
        ("out: ''", ["settings.yaml: --out is empty"]),
        ("images: ''", ["settings.yaml: IMAGES is empty"]),
        ("network: {weights: ''}", ["settings.yaml: --weights is empty"]),
        ('out: "a\\0b"', ["settings.yaml: --out 'a\\x00b' holds a null character"]),
        ('prepared: "\\ud800"', ["settings.yaml: --prepared '\\ud800' is not UTF-8"]),
    ],
)
def test_a_wrong_settings_file_gives_a_one_line_error_that_names_the_place(
    tmp_path: Path, content: Any, parts: list[str]
) -> None:
    file = write(tmp_path, content)
    for more in ([], ["--image-size", "32", "--hidden", "0"]):  # flags do not hide it
        line = error_line("--config", file, *more)
        assert all(part in line for part in parts), line


def test_each_of_several_texts_is_checked(tmp_path: Path) -> None:
    file = write(tmp_path, {"model": "runs/a", "images": ["photos", ""], "out": "scores"})
    with pytest.raises(UserError, match=r"settings\.yaml: IMAGES is empty"):
        parse(ScoreConfig, ["--config", file])
    with pytest.raises(UserError, match=r"^IMAGES is empty"):
        parse(ScoreConfig, ["runs/a", "photos", "", "--config", file])
    assert parse(ScoreConfig, ["runs/a", "photos", "--config", file]).images == ("photos",)


def test_a_settings_file_that_is_not_text_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    assert "not YAML" in error_line("--config", str(tmp_path / "settings.yaml"))
    assert "--config" in error_line("--config", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "missing"), [([], "IMAGES"), (["photos"], "--out"), (["--out", "x"], "IMAGES")]
)
def test_a_missing_required_setting_is_named(arguments: list[str], missing: str) -> None:
    with pytest.raises(UserError, match=missing) as caught:
        parse(PrepareConfig, arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epoch", "3"],
        ["--lr", "a\nb"],  # the message repeats the value, and stays one line
        ["--batch-size", "64", "--workers", "3"],
        ["x" * 300],  # longer than a name may be
    ],
)
def test_a_user_error_exits_with_2_and_one_line_on_stderr(
    arguments: list[str], tmp_path: Path
) -> None:
    done = python("-m", "jobs.train", *arguments, "--out", str(tmp_path / "run"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", JOBS)
def test_help_is_the_same_for_a_module_and_a_script(job: str) -> None:
    module, script = python("-m", f"jobs.{job}", "--help"), python(f"jobs/{job}.py", "--help")
    assert (module.returncode, module.stderr) == (0, "")
    assert (script.returncode, script.stderr, script.stdout) == (0, "", module.stdout)
    assert module.stdout.startswith(f"Usage: python -m jobs.{job} ")


@pytest.mark.parametrize(("job", "config"), [("train", TrainConfig), ("prepare", PrepareConfig)])
def test_help_shows_every_setting_and_its_description(job: str, config: Any) -> None:
    shown = " ".join(python("-m", f"jobs.{job}", "--help").stdout.split())
    for name, _, field in leaves(config):
        flag = f"--{name.replace('_', '-')} "
        assert flag in shown or f"{name.upper()}: " in shown
        assert " ".join((field.description or "").split()) in shown


@pytest.mark.parametrize(("job", "config"), [("train", TrainConfig), ("prepare", PrepareConfig)])
def test_help_shows_each_group_of_settings_under_what_the_group_says(job: str, config: Any) -> None:
    _, *sections = python("-m", f"jobs.{job}", "--help").stdout.split("\n\n")
    for name, (group, *inner), field in leaves(config):
        if Positional not in field.metadata:
            (shown,) = [part for part in sections if f"\n  {flag(name)} " in part]
            doc = config.model_fields[group].annotation.__doc__ if inner else "Options"
            assert shown.startswith(f"{doc.rstrip('.')}:\n")


@pytest.mark.parametrize("argument", ["--help", "--no-such-flag"])
def test_help_and_wrong_flags_load_no_heavy_library(argument: str) -> None:
    done = python("-c", LOADED, "train", argument)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]


@pytest.mark.parametrize(
    ("job", "code", "line"),
    [
        ("print('done')", 0, ""),
        ("exec('raise UserError(1)')", 2, "error: 1"),
        (
            "exec('raise PermissionError(13, 1, 2)')",
            2,
            "error: 2: 1: give another path, or fix its permissions",
        ),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "run the same command to resume"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_job_exits_with_the_code_of_its_outcome(job: str, code: int, line: str) -> None:
    names = "import os, signal; " + IMPORTS
    done = python("-c", f"{names}; run(TrainConfig, lambda settings: {job})")
    assert done.returncode == code
    last = (done.stderr.splitlines() or [""])[-1]
    assert last.endswith(line) and bool(last) == bool(line)
    assert ("Traceback" in done.stderr) == (code == 1)  # only for a bug


def test_a_stopped_job_ends_its_threads_and_child_processes() -> None:
    """Its thread and its grandchild process: the command would wait too long for either."""
    job = """
import os, signal, subprocess, threading, time
from cnn.settings.command import run
from cnn.config import TrainConfig

def job(settings):
    threading.Thread(target=time.sleep, args=[600]).start()
    below = subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE)
    below.stdout.readline()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)

run(TrainConfig, job)
"""
    done = python("-c", job)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "stopped: run the same command to resume\n"


def test_a_stopped_job_keeps_its_exit_code_if_standard_error_is_closed() -> None:
    """As with `| tee`, which Ctrl-C stops as well."""
    names = "import os, signal; " + IMPORTS
    job = f"{names}; run(TrainConfig, lambda settings: os.kill(os.getpid(), signal.SIGINT))"
    process = subprocess.Popen([sys.executable, "-c", job], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 130


def test_a_user_error_exits_with_2_if_nobody_reads_standard_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "jobs.train", "--epochs", "0"]
    assert subprocess.run(command, cwd=ROOT, stderr=writing).returncode == 2
    os.close(writing)


def test_an_impossible_date_in_a_settings_file_is_reported_as_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("images: 2024-02-30\n")
    with pytest.raises(UserError, match="is not YAML: day is out of range"):
        parse(TrainConfig, ["--config", str(tmp_path / "config.yaml")])


def test_weights_at_a_uri_are_refused() -> None:
    with pytest.raises(UserError, match=r"--weights s3://b/w\.pth: give a file on this machine"):
        parse(TrainConfig, ["photos", "--network", "resnet18", "--weights", "s3://b/w.pth"])


def test_a_config_in_a_place_that_does_not_exist_is_not_called_yaml() -> None:
    with pytest.raises(UserError, match="--config nosuch://x: ") as refused:
        parse(TrainConfig, ["--config", "nosuch://x"])
    assert "YAML" not in str(refused.value)
