"""The runs that the tests of jobs share, and waiting for what a running one does."""

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

# Less than a third of the epochs that the README's first command runs: they reach 0.97 as well.
EPOCHS = ("--epochs", 8)


def wait_for(
    process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 300
) -> None:
    """Wait until `condition` holds; the process must live that long."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a job, and wait until its Ray has noticed and its workers write no more."""
    below = psutil.Process(process.pid).children(recursive=True)
    # The agents take a minute to notice, and keep the job's output open for so long.
    agents = [one for one in below if one.name().endswith("Agent")]
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(alive(one) for one in below if one not in agents):
        assert time.monotonic() < end, "the killed job's workers live on"
        time.sleep(0.02)
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()
    process.communicate()


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs: it may have ended, and nobody has asked how."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def epochs_kept(run: Path) -> int:
    """The last epoch that a training run has kept a checkpoint of, or 0."""
    folders = (run / "checkpoints").glob("epoch-*")
    return max((int(folder.name.removeprefix("epoch-")) for folder in folders), default=0)


def said(text: str) -> list[str]:
    """The lines of a job, but for those of progress, which come where a machine is slow."""
    return [line for line in text.splitlines() if not re.match(r"\w+ +[\d,]+ of [\d,]+", line)]
