"""Real faults to test against: a full disk, a killed process, a greedy one, forbidden files."""

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
    """A folder for PYTHONPATH: GIFs that say so crash their decoder, or let it hang.

    No file is known that does so to the real one; the signal is that of a fault in native code.
    """
    path = folder / "faulty"
    path.mkdir()
    (path / "sitecustomize.py").write_text(FAULTY_DECODER)
    return path


def memory_beside(before: str, code: str) -> int:
    """How many bytes more a process held at once while it ran `code` than `before` that."""
    peak = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    script = f"{before}\nbase = {peak}\n{code}\nprint({peak} - base)"
    told = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT / "tests", text=True)
    return 1024 * int(told)


@contextmanager
def as_nobody() -> Iterator[None]:
    """For as long as the `with` block lasts, permissions hold for this process, root's too."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
