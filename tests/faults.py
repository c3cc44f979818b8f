"""Real faults for tests: a full disk, a kill, a crashing decoder, high memory, no permission."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOBODY = 65534

KILLED_BY_ITS_LIMIT = """
import resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """During the `with` block, no file can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def killed_while_writing(code: str, limit: int) -> None:
    """Run `code` in a process that the system kills when a file grows beyond `limit` bytes."""
    # -B caches no compiled modules, so only the tested file can exceed the limit.
    command = [sys.executable, "-B", "-c", KILLED_BY_ITS_LIMIT.format(limit=limit) + code]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGXFSZ


FAULTY_DECODER = """
import os, time
from PIL import GifImagePlugin

opened = GifImagePlugin.GifImageFile._open

def open_or_fail(self):
    content = self.fp.read()
    if b"CRASH" in content:
        os.kill(os.getpid(), 11)
    if b"HANG" in content:
        time.sleep(1000)
    self.fp.seek(0)
    opened(self)

GifImagePlugin.GifImageFile._open = open_or_fail
"""


def faulty_decoder(folder: Path) -> Path:
    """A folder for PYTHONPATH: GIFs with CRASH or HANG in them crash or hang their decoder.

    No file is known to do this to the real decoder; a fault in native code has the same signal.
    """
    path = folder / "faulty"
    path.mkdir()
    (path / "sitecustomize.py").write_text(FAULTY_DECODER)
    return path


def memory_beside(before: str, code: str) -> int:
    """The peak memory of a process that runs `code`, in bytes above its peak after `before`."""
    peak = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    script = f"{before}\nbase = {peak}\n{code}\nprint({peak} - base)"
    printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT / "tests", text=True)
    return 1024 * int(printed)


@contextmanager
def as_nobody() -> Iterator[None]:
    """During the `with` block, file permissions apply to this process, even if it is root."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
