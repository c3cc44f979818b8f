"""What all tests share: one torch thread, and which of them go to one process."""

import os
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A deadline would test how busy the machine is, not the law.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Runs before any test process starts.

    Two test processes at once each train on all cores. Threads that spin while they wait take the
    cores of the threads that they wait for: measured with two, three to five times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# Fixtures that are slow to make, by the tests that share them.
SHARED = {
    "tests/cluster/": "a Ray",
    "tests/jobs/test_score.py": "a trained run",
    "tests/jobs/test_train.py": "a trained run",
}


class Together(LoadScopeScheduling):
    """Runs the tests of a file in one process, and also the tests that share a slow fixture."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((scope for path, scope in SHARED.items() if file.startswith(path)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)
