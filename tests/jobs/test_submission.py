"""`ray job submit --working-dir .` from a checkout: what is uploaded, and what comes back."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from ray._private.runtime_env.packaging import create_package

from cnn.cluster import environment
from cnn.dataset import digits

ROOT = Path(__file__).parents[2]
LIMIT = 2**20  # bytes; Ray refuses 512 MiB, and every submission sends all that has changed
TOKEN = "1" * 64

ASK_A_WORKER = """
import os, ray
from cnn.cluster import environment, session
environment.set_defaults()
with session.joined():
    kept = ray.remote(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_", "nothing"))
    print("a worker keeps", ray.get(kept.remote()))
"""


@dataclass(frozen=True)
class Head:
    """A Ray head that requires a token, and the address at which it accepts jobs."""

    address: str
    environment: dict[str, str]

    def ray(self, *words: object) -> subprocess.Popen[str]:
        """Ray's own command line."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), *map(str, words)],
            cwd=ROOT,
            env=self.environment | {"RAY_API_SERVER_ADDRESS": self.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, name: str, *command: object) -> subprocess.Popen[str]:
        """The README's command."""
        upload = ("--submission-id", name, "--working-dir", ".")
        return self.ray("job", "submit", *upload, "--", "python", *command)

    def answer(self, *words: object) -> str:
        """What a `ray job` command prints."""
        return self.ray("job", *words).communicate(timeout=120)[0]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head on its own ports: another Ray on the default ports must not run our jobs."""
    folder, ports = Path(tempfile.mkdtemp(prefix="ray")), free_ports(4)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_worker_niceness": "0"}
    others = {"RAY_ADDRESS", *environment.ARITHMETIC}  # no machine of a cluster has these
    own = {name: value for name, value in os.environ.items() if name not in others}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    head = Head(f"http://127.0.0.1:{ports[1]}", own | auth | {"PATH": path})
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    running = head.ray(
        "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}",
        "--disable-usage-stats", *(f"--{n}={p}" for n, p in zip(names, ports, strict=True)),
    )  # fmt: skip
    try:
        wait_for(lambda: running.poll() is not None or accepts_jobs(head))
        assert running.poll() is None, running.communicate()[0]
        yield head
    finally:
        # Kill them at once: Ray's own shutdown takes half a minute.
        for process in (*psutil.Process(running.pid).children(recursive=True), running):
            process.kill()
        running.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def accepts_jobs(head: Head) -> bool:
    """Whether the head accepts jobs: at first it has no dashboard, then no agent."""
    return "submitted" in head.answer("submit", "--no-wait", "--", "true")


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.5)


def test_only_code_and_settings_are_uploaded(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for file in (".rayignore", ".gitignore", "cnn/loop.py", "jobs/train.py"):
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_bytes((ROOT / file).read_bytes())
    kept = {"cnn/loop.py", "jobs/train.py", "best.yaml"}
    heavy = {
        "runs/a/model/model.safetensors", "photos/heron/cnn/1.jpg", ".git/objects/1f", "cnn.zip",
        ".venv/bin/python", "cnn/__pycache__/loop.pyc", "jobs/__pycache__/train.pyc", "uv.lock",
    }  # fmt: skip
    for name in heavy | {"best.yaml"}:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"1")
    assert uploaded(checkout, tmp_path) == kept


def test_an_upload_of_this_checkout_is_small(tmp_path: Path) -> None:
    files = [file for folder in ("cnn", "jobs") for file in (ROOT / folder).rglob("*.*")]
    code = {str(file.relative_to(ROOT)) for file in files if file.suffix != ".pyc"}
    assert "jobs/train.py" in code
    assert code <= uploaded(ROOT, tmp_path)
    assert (tmp_path / "package.zip").stat().st_size < LIMIT


def uploaded(folder: Path, place: Path) -> set[str]:
    """The files that Ray packs from a working directory."""
    package = place / "package.zip"
    create_package(
        str(folder), package, include_gitignore=True, include_parent_dir=False, excludes=[".git"]
    )
    with zipfile.ZipFile(package) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("job", ["train", "tune", "prepare", "score"])
def test_an_out_folder_inside_the_upload_is_refused(
    refused: Callable[..., str], job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts a submitted job in its upload, and removes that some time later."""
    upload = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    upload.mkdir(parents=True)
    images = digits.write(tmp_path / "images")
    monkeypatch.chdir(upload)
    model = ["no model"] if job == "score" else []
    assert "which Ray removes" in refused(job, *model, images, "--out", "runs/a")
    assert not list(upload.iterdir())


def test_a_job_runs_on_the_workers_and_its_log_is_readable(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    images = digits.write(tmp_path / "images")
    job = head.submit("prepare", "-m", "jobs.prepare", images, "--out", out)
    output, _ = job.communicate(timeout=240)
    assert job.returncode == 0, output
    assert "succeeded" in head.answer("status", "prepare")
    log = output.partition("Running entrypoint")[2].partition("wrote")[0]
    assert f"wrote {out}\n" in output and (out / "prepared.json").exists()
    assert log and "\x1b" not in log and "\r" not in log


def test_cluster_workers_keep_as_much_memory_as_local_ones(head: Head) -> None:
    output, _ = head.submit("ask", "-c", ASK_A_WORKER).communicate(timeout=240)
    assert f"a worker keeps {256 << 20}" in output


@pytest.mark.slow
def test_a_refused_job_has_failed_and_says_why(head: Head, tmp_path: Path) -> None:
    words = ("-m", "jobs.train", tmp_path / "nowhere", "--out", tmp_path / "run")
    job = head.submit("nowhere", *words)
    output, _ = job.communicate(timeout=240)
    assert job.returncode == 1
    assert "failed" in head.answer("status", "nowhere")
    assert "exit code 2" in output and "give an existing folder" in output


@pytest.mark.slow
def test_no_job_is_accepted_without_the_token(head: Head) -> None:
    stranger = Head(head.address, head.environment | {"RAY_AUTH_TOKEN": "2" * 64})
    job = stranger.submit("stranger", "-c", "pass")
    assert "token authentication is enabled" in job.communicate(timeout=60)[0]
    assert job.returncode == 1


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_a_stopped_job_resumes(
    head: Head, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("-m", "jobs.train", "--out", run, "--epochs", 40)
    client = head.submit("first", *words)
    wait_for((run / "checkpoints/epoch-0002").is_dir)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=60)
    assert "currently running" in head.answer("status", "first")
    assert "was stopped" in head.answer("stop", "first")
    again = head.submit("second", *words)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert "nothing to decode" in output
    assert "  1/40" not in output and " 40/40" in output
    assert list(pd.read_csv(run / "history.csv")["epoch"]) == list(range(1, 41))
