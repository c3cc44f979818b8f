"""What all tests share: one torch thread, and which of them go to one process."""

from typing import Any

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A deadline tells how busy the machine is, and nothing of the law.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Together(LoadScopeScheduling):
    """The tests of a folder, and those of a file beside this one, are run by one process.

    Those of a folder share a Ray, or a trained run, which take longer to make than to look at.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, _, file = nodeid.partition("::")[0].rpartition("/")
        return file if folder == "tests" else folder


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)
