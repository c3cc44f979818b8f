"""The runs that the tests of jobs share, and waiting for what a running one does."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Less than half of the epochs that the README's first command runs: they reach 0.97 as well.
EPOCHS = ("--epochs", 12)


def wait_for(
    process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 300
) -> None:
    """Wait until `condition` holds; the process must live that long."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def epochs_kept(run: Path) -> int:
    """The last epoch that a training run has kept a checkpoint of, or 0."""
    folders = (run / "checkpoints").glob("epoch-*")
    return max((int(folder.name.removeprefix("epoch-")) for folder in folders), default=0)
