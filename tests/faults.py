"""Real faults to test against: a disk that is full, and a process killed while it writes."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

MORTAL = """
import resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """For as long as the `with` block lasts, no file grows beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def killed_while_writing(code: str, limit: int) -> None:
    """Run `code` in a process that the system kills when it lets a file grow beyond `limit`."""
    # -B: the process is to die of the file that is tested, not of a compiled module it caches.
    command = [sys.executable, "-B", "-c", MORTAL.format(limit=limit) + code]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGXFSZ
