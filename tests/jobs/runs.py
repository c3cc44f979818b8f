"""Helpers for the tests of jobs: what they share, and waiting for a running job."""

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

# Less than a third of the epochs of the README's first command; they also reach 0.97.
EPOCHS = ("--epochs", 8)


def wait_for(
    process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 300
) -> None:
    """Wait until `condition` holds; the process must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a job, and wait until its Ray has noticed and its workers have ended."""
    below = psutil.Process(process.pid).children(recursive=True)
    # The agents take a minute to notice, and keep the job's output open until then.
    agents = [one for one in below if one.name().endswith("Agent")]
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(alive(one) for one in below if one not in agents):
        assert time.monotonic() < end, "the killed job's workers are still alive"
        time.sleep(0.02)
    for agent in agents:
        with suppress(psutil.NoSuchProcess):
            agent.kill()
    process.communicate()


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs: a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def epochs_kept(run: Path) -> int:
    """The last epoch with a checkpoint in the folder of a training run, or 0."""
    folders = (run / "checkpoints").glob("epoch-*")
    return max((int(folder.name.removeprefix("epoch-")) for folder in folders), default=0)


def console_lines(text: str) -> list[str]:
    """The lines of a job without progress lines, which appear only on a slow machine."""
    return [line for line in text.splitlines() if not re.match(r"\w+ +[\d,]+ of [\d,]+", line)]
