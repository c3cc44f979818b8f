"""Laws of locks: a folder is one job's at a time, and nobody's once that is gone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.errors import Mendable
from cnn.lock import locked, require_free

HOLDER = """
import sys, time
from pathlib import Path
from cnn.lock import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
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


def test_the_folder_of_a_job_at_work_is_refused_in_one_line_until_it_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(Mendable, match=r"another job is at work in .* another --out"):
        require_free(tmp_path)
    with pytest.raises(Mendable, match="another job is at work"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    require_free(tmp_path)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("fault", [None, ZeroDivisionError])
def test_a_job_that_has_ended_leaves_no_lock(tmp_path: Path, fault: type[Exception] | None) -> None:
    try:
        with locked(tmp_path):
            if fault is not None:
                raise fault
    except ZeroDivisionError:
        pass
    require_free(tmp_path)
    assert not list(tmp_path.iterdir())
