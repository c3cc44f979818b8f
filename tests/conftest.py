"""What all tests share: one torch thread, and which of them go to one process."""

import os
from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A deadline tells how busy the machine is, and nothing of the law.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Before any process of the tests starts.

    Two of them at once train on all cores each. Threads that spin while they wait for each other
    take the core of the one they wait for: three to five times the time, measured with two.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# What takes longer to make than to look at, by the tests that share it.
SHARED = {
    "tests/cluster/": "a Ray",
    "tests/jobs/test_score.py": "a trained run",
    "tests/jobs/test_train.py": "a trained run",
}


class Together(LoadScopeScheduling):
    """The tests of a file are run by one process, and so are those that share something costly."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((it for path, it in SHARED.items() if file.startswith(path)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)
