"""What all tests share: one torch thread, so that they are quick beside one another."""

import pytest
import torch
from hypothesis import settings

# A deadline tells how busy the machine is, and nothing of the law.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
