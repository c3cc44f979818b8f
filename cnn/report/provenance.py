"""Provenance: a run's settings, command, duration and versions."""

import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

from cnn.runs.run_folder import flat, saved
from cnn.text.duration import clock

LIBRARIES = ("ray", "torch", "torchvision", "pillow", "scikit-learn")


def provenance(seconds: float, resumed: bool = False) -> dict[str, str]:
    """The command, its duration, and the versions of Python and the libraries.

    resumed: whether this resumed an interrupted run, of which `seconds` is only the last session.
    """
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "command": shlex.join(["python", "-m", f"jobs.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "duration": clock(seconds) + (" in the last session" if resumed else ""),
        "versions": f"Python {platform.python_version()}, {libraries}",
    }


def settings_facts(settings: BaseModel) -> dict[str, str]:
    """Every setting of a run, as text; those of one command, such as a dry run, are left out."""
    return {
        name.split(".")[-1].replace("_", " "): str(value)
        for name, value in flat(saved(settings)).items()
        if value is not None
    }
