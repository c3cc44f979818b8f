"""`ray job submit --working-dir .` from a checkout: what is uploaded, and what comes back."""

import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import ray
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus, JobSubmissionClient

ROOT = Path(__file__).parents[2]
LIMIT = 2**20  # bytes; Ray refuses 512 MiB, and every submission sends all that has changed


@pytest.fixture(scope="module")
def address() -> str:
    """Where the Ray of these tests takes jobs."""
    url: str = ray.init(ignore_reinit_error=True).dashboard_url
    return f"http://{url}"


@pytest.fixture(scope="module")
def jobs(address: str) -> JobSubmissionClient:
    client = JobSubmissionClient(address)
    wait_for(lambda: takes_jobs(client))  # the agent that starts them comes last of all
    return client


def takes_jobs(client: JobSubmissionClient) -> bool:
    try:
        client.submit_job(entrypoint="true")
    except RuntimeError:
        return False
    return True


def submission(address: str, *command: object, name: str) -> subprocess.Popen[str]:
    """The README's command, with this Python in the place of the cluster's."""
    ray_command = [Path(sys.executable).with_name("ray"), "job", "submit", "--address", address]
    upload = ["--submission-id", name, "--working-dir", "."]
    return subprocess.Popen(
        [*map(str, (*ray_command, *upload, "--", sys.executable, *command))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_the_code_is_uploaded_and_nothing_else(tmp_path: Path) -> None:
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


def test_a_job_runs_on_the_workers_and_its_log_is_readable(
    address: str, jobs: JobSubmissionClient, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "prepared"
    process = submission(address, "-m", "jobs.prepare", digits, "--out", out, name="prepare")
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, said + err
    assert jobs.get_job_status("prepare") == JobStatus.SUCCEEDED
    log = jobs.get_job_logs("prepare")
    assert f"wrote {out}" in log.splitlines() and f"wrote {out}" in said
    assert "\x1b" not in log and "\r" not in log
    assert (out / "prepared.json").exists()


@pytest.mark.slow
def test_a_job_that_the_user_can_mend_has_failed_and_says_why(
    address: str, jobs: JobSubmissionClient, tmp_path: Path
) -> None:
    words = ("-m", "jobs.train", tmp_path / "nowhere", "--out", tmp_path / "run")
    process = submission(address, *words, name="nowhere")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert jobs.get_job_status("nowhere") == JobStatus.FAILED
    assert "exit code 2" in said and "give an existing folder" in said


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_a_stopped_job_goes_on(
    address: str, jobs: JobSubmissionClient, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("-m", "jobs.train", "--out", run, "--epochs", 40)
    client = submission(address, *words, name="first")
    wait_for((run / "checkpoints/epoch-0002").is_dir)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=30)
    assert jobs.get_job_status("first") == JobStatus.RUNNING
    jobs.stop_job("first")
    wait_for(lambda: jobs.get_job_status("first") == JobStatus.STOPPED)
    again = submission(address, *words, name="second")
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "nothing to decode" in said
    assert "  1/40" not in said and " 40/40" in said
    assert list(pd.read_csv(run / "history.csv")["epoch"]) == list(range(1, 41))
