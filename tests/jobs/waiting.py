"""Waiting for what a running job does."""

import subprocess
import time
from collections.abc import Callable


def wait_for(
    process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 300
) -> None:
    """Wait until `condition` holds; the process must live that long."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
