"""Laws of locks: one job uses a folder at a time, and its lock ends with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.errors import UserError
from cnn.files.lock import locked, require_free

HOLDER = """
import sys, time
from pathlib import Path
from cnn.files.lock import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


# Creates a file while it holds the lock; fails if another process holds the lock too.
LOCK_REPEATEDLY = """
import os, sys
from pathlib import Path
from cnn.errors import UserError
from cnn.files.lock import locked
for _ in range(2000):
    try:
        with locked(Path(sys.argv[1])):
            os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[2])
            print("in")
    except UserError:
        pass
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has locked the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_in_one_line_until_its_job_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(UserError, match=r"another job is using .* another --out"):
        require_free(tmp_path)
    with pytest.raises(UserError, match="another job is using"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    require_free(tmp_path)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_an_ended_job_leaves_no_lock(tmp_path: Path, fault: type[Exception] | None) -> None:
    try:
        with locked(tmp_path):
            if fault is not None:
                raise fault
    except ZeroDivisionError:
        pass
    require_free(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_one_of_many_competing_jobs_holds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    arguments = [
        sys.executable,
        "-c",
        LOCK_REPEATEDLY,
        str(tmp_path / "work"),
        str(tmp_path / "in"),
    ]
    jobs = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [job.communicate(timeout=60) for job in jobs]
    assert [errors for _, errors in outputs] == [""] * 3
    assert any(entered for entered, _ in outputs)
