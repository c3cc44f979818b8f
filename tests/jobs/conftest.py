"""Jobs as a user types them: real commands, each with a Ray of its own."""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from runs import EPOCHS, epochs_kept, kill, wait_for

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Here = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """Variables with a short temporary folder for Ray: a socket's path is limited to 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_TMPDIR": str(folder)}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Start:
    """Start `python -m jobs.NAME …` in a process group of its own.

    `environment`: further variables, for this job alone.
    """
    shared = environment

    def start(
        job: str, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)],
            cwd=ROOT,
            env={**shared, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def command(start: Start) -> Command:
    """Run `python -m jobs.NAME …` to its end."""

    def run(
        job: str, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = start(job, *arguments, environment=environment)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a job in this process, which saves its imports: exit code, output, errors."""

    def run(job: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [job, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"jobs.{job}", run_name="__main__")
            sys.exit(0)
        code = ended.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(here: Here) -> Callable[..., str]:
    """Run a job that must be refused: exit code 2, no output, and the one line it returns."""

    def run(job: str, *arguments: object) -> str:
        code, out, err = here(job, *arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ") and err.count("\n") == 1
        return err

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the runs of these tests."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def finished(start: Start, command: Command, runs: Path) -> subprocess.CompletedProcess[str]:
    """The README's first command, but shorter: killed after its third epoch, then resumed."""
    process = start("train", "--out", runs / "digits", *EPOCHS)
    wait_for(process, lambda: epochs_kept(runs / "digits") >= 3)
    kill(process)
    assert not (runs / "digits/report.html").exists()
    return command("train", "--out", runs / "digits", *EPOCHS)
